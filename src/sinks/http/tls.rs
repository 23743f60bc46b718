//! TLS: trusted authorities and the client certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::sinks::{BuildError, Mistake, Mistakes};
use crate::support::pem;
use crate::support::verifier::{Shown, Verifier};

/// TLS of one sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsOptions {
    /// A PEM file with the only certificate authorities to trust. Default: the system's, or Mozilla's if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of a certificate authority's certificate, in hexadecimal, with or without colons: only what it has signed is trusted.
    /// Elasticsearch 8 and later print it when they first start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_fingerprint: Option<String>,
    /// A PEM file with the client certificate and its chain, if the backend requires one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// A PEM file with the client certificate's private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

impl TlsOptions {
    /// Returns whether no option is set.
    pub(in crate::sinks) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the mistakes in the option `tls`, without accessing files.
    pub(in crate::sinks) fn check(&self) -> Vec<Mistake> {
        let mut found = Mistakes::default();
        let is_odd = self.ca_fingerprint.as_deref().is_some_and(|text| fingerprint(text).is_none());
        #[rustfmt::skip]
        found.note_all([
            (self.ca_file.is_some() && self.ca_fingerprint.is_some(),
                "tls", "`tls.ca_file` and `tls.ca_fingerprint` are mutually exclusive", "keep one of them"),
            (self.cert_file.is_some() != self.key_file.is_some(),
                "tls", "`tls.cert_file` and `tls.key_file` go together", "set both or neither"),
            (is_odd, "tls", "`tls.ca_fingerprint` is not a SHA-256", "give 64 hexadecimal digits, with or without colons"),
        ]);
        found.0
    }

    /// Reads the files and builds the configuration.
    pub fn config(&self) -> Result<ClientConfig, BuildError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| BuildError(error.to_string()))?;
        let builder = match self.ca_fingerprint.as_deref().and_then(fingerprint) {
            Some(fingerprint) => {
                builder.dangerous().with_custom_certificate_verifier(pinned(fingerprint, provider))
            }
            None => builder.with_root_certificates(self.roots()?),
        };
        let (Some(cert_file), Some(key_file)) = (&self.cert_file, &self.key_file) else {
            return Ok(builder.with_no_client_auth());
        };
        builder
            .with_client_auth_cert(read(cert_file, pem::certificates)?, read(key_file, pem::key)?)
            .map_err(|error| unreadable(cert_file, &error))
    }

    fn roots(&self) -> Result<RootCertStore, BuildError> {
        if let Some(ca_file) = &self.ca_file {
            return read(ca_file, pem::roots);
        }
        let mut roots = RootCertStore::empty();
        // Some certificates of a system may be unparsable. It suffices that any can be parsed.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Ok(roots)
    }
}

/// Reads and parses a file.
fn read<T>(path: &Path, parse: fn(&[u8]) -> Result<T, String>) -> Result<T, BuildError> {
    let pem = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    parse(&pem).map_err(|problem| unreadable(path, &problem))
}

fn unreadable(path: &Path, problem: &dyn std::fmt::Display) -> BuildError {
    BuildError(format!("{}: {problem}", path.display()))
}

/// Parses a SHA-256 in the form that people write.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits = text.replace(':', "");
    let is_whole = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..64).step_by(2).map(byte).collect();
    bytes.filter(|_| is_whole)?.try_into().ok()
}

/// Trusts only the authority with this fingerprint, which the backend must send.
fn pinned(fingerprint: [u8; 32], provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    let signatures = Arc::clone(&provider);
    Arc::new(Verifier::new(signatures, move |shown| {
        let authority = std::iter::once(shown.end_entity)
            .chain(shown.intermediates)
            .find(|certificate| Sha256::digest(certificate)[..] == fingerprint)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let Shown { end_entity, intermediates, server_name, ocsp_response, now } = shown;
        // From here on, it is an ordinary check of the chain, the name and the time.
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }))
}
