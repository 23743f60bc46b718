//! Reads certificates: the name of a client, which is the common name of the subject or else the first alternative name for a host or URI,
//! and the end of the validity.

use jiff::civil;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::support::sha256::{self, fingerprint};

/// The object identifier of a common name, 2.5.4.3 (X.520), in DER.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const VERSION: u8 = 0xa0;
const GENERALIZED_TIME: u8 = 0x18;
/// A common name has at most 64 characters (X.520), a host name at most 253 bytes.
const NAME_BYTES_MAX: usize = 256;

/// Returns the name in a verified certificate; without any name, one derived from its SHA-256.
pub(super) fn name(certificate: &CertificateDer<'_>) -> String {
    let found = EndEntityCert::try_from(certificate).ok().and_then(|certificate| {
        let alternative = || {
            certificate
                .valid_dns_names()
                .chain(certificate.valid_uri_names())
                .find(|name| is_good(name))
        };
        common_name(certificate.subject()).or_else(alternative).map(str::to_owned)
    });
    found.unwrap_or_else(|| format!("certificate-{}", fingerprint(sha256::of(certificate))))
}

/// Returns when a certificate expires, in nanoseconds since 1970; `None` if it cannot be read. That is the second time of the fifth field,
/// not counting the version (RFC 5280, 4.1).
pub fn certificate_end(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (whole, _) = element(certificate, SEQUENCE)?;
    let (mut fields, _) = element(whole, SEQUENCE)?;
    if let Some((_, rest)) = element(fields, VERSION) {
        fields = rest;
    }
    for _serial_algorithm_issuer in 0..3 {
        fields = any_element(fields)?.2;
    }
    let (validity, _) = element(fields, SEQUENCE)?;
    let (tag, text, _) = any_element(any_element(validity)?.2)?;
    let text = std::str::from_utf8(text).ok()?;
    // Two-digit years extend to 2049.
    let century = if tag == GENERALIZED_TIME { "" } else { "20" };
    let end = civil::DateTime::strptime("%Y%m%d%H%M%SZ", format!("{century}{text}")).ok()?;
    let end_ns = TimeZone::UTC.to_timestamp(end).ok()?.as_nanosecond();
    u64::try_from(end_ns.clamp(0, u64::MAX.into())).ok()
}

/// Finds the common name of a subject: a sequence of sets of pairs of an object identifier and a text.
fn common_name(mut subject: &[u8]) -> Option<&str> {
    while let Some((set, rest)) = element(subject, SET) {
        subject = rest;
        let (pair, _) = element(set, SEQUENCE)?;
        let (identifier, text) = element(pair, OBJECT_IDENTIFIER)?;
        let text = std::str::from_utf8(any_element(text)?.1).ok();
        if identifier == COMMON_NAME && text.is_some_and(is_good) {
            return text;
        }
    }
    None
}

/// Returns whether a name can be displayed.
fn is_good(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// Returns the content of an element with this tag, and the bytes after it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    any_element(der).filter(|(found, ..)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// Returns an element's tag and content, and the bytes after it. Elements in names are smaller than 64 KiB.
fn any_element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, der) = der.split_first()?;
    let (length, der) = match der {
        [length @ 0..=0x7f, der @ ..] | [0x81, length, der @ ..] => (usize::from(*length), der),
        [0x82, high, low, der @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), der),
        _ => return None,
    };
    let (content, rest) = der.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn named(common_name: Option<&str>, alternative: &[&str]) -> String {
        let alternative: Vec<String> = alternative.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(alternative).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "team");
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        name(certificate.der())
    }

    #[test]
    fn a_client_is_called_by_its_common_name_and_else_by_its_first_other_name() {
        let long = "x".repeat(200);
        for (common_name, alternative, expected) in [
            (Some("shop"), &["a.example.com"][..], "shop"),
            (Some("Zo\u{eb} \u{2713}"), &[], "Zo\u{eb} \u{2713}"),
            (Some(&long), &[], &long),
            (None, &["a.example.com", "b.example.com"], "a.example.com"),
            (Some("two\nlines"), &["a.example.com"], "a.example.com"),
        ] {
            assert_eq!(named(common_name, alternative), expected);
        }
        let hashed = named(None, &[]);
        assert!(hashed.starts_with("certificate-") && hashed.len() == 28, "{hashed}");
    }

    #[test]
    fn the_end_of_a_certificate_is_found_before_and_after_2050() {
        for (year, end) in
            [(2031, "2031-02-03T00:00:00.000000000Z"), (2061, "2061-02-03T00:00:00.000000000Z")]
        {
            let mut params = CertificateParams::new(["a.example.com".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 2, 3);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let found = certificate_end(certificate.der()).map(crate::support::rfc3339::text);
            assert_eq!(found.as_deref(), Some(end));
        }
        assert_eq!(certificate_end(&CertificateDer::from(vec![0x30, 2, 0x30, 0])), None);
    }

    #[test]
    fn a_broken_subject_has_no_name() {
        let whole = [0x31, 10, 0x30, 8, 0x06, 3, 0x55, 4, 3, 0x0c, 1, b'a'];
        assert_eq!(common_name(&whole), Some("a"));
        for end in 0..whole.len() {
            assert_eq!(common_name(whole.get(..end).unwrap()), None);
            let mut broken = whole;
            for value in [0, 0x80, 0x81, 0x82, 0xff] {
                *broken.get_mut(end).unwrap() = value;
                common_name(&broken);
            }
        }
    }
}
