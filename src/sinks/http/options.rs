//! Shared parts of the options of all HTTP sinks: addresses whose query is never printed, limits, and their display.

use std::fmt;

use hyper::Uri;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ClientOptions, TlsOptions};
use crate::sinks::{Mistake, Mistakes};
use crate::support::byte_size::ByteSize;
use crate::support::duration::Duration;
use crate::support::secret::REDACTED;

/// The address of a backend. Its query may contain a key, so only [`Address::uri`] and [`Address::reveal`] return it; `Debug`, `Display`
/// and `Serialize` redact it. Any text is accepted, and the check of the options reports an invalid address.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    text: String,
    uri: Option<Uri>,
}

impl Address {
    /// Returns the unredacted text, for completing or sending it.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Returns the address if requests can be sent to it: http or https, a host, no credentials.
    pub fn uri(&self) -> Option<&Uri> {
        self.uri.as_ref().filter(|_| !self.has_credentials())
    }

    /// Returns whether it has credentials before the host.
    pub fn has_credentials(&self) -> bool {
        let authority = self.uri.as_ref().and_then(Uri::authority);
        authority.is_some_and(|authority| authority.as_str().contains('@'))
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        let uri = text.parse().ok().filter(|uri: &Uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
        });
        Self { text, uri }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_credentials() {
            return out.write_str(REDACTED);
        }
        match self.text.split_once('?') {
            Some((before, _)) => write!(out, "{before}?{REDACTED}"),
            None => out.write_str(&self.text),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// Returns the default of the option `connect_timeout`.
pub(in crate::sinks) fn default_connect_timeout() -> Duration {
    ClientOptions::default().connect_timeout.into()
}

/// Smaller requests spend more on headers than on items.
const REQUEST_BYTES_MIN: ByteSize = ByteSize(1 << 10);

/// The limits in the options of every HTTP sink.
pub(in crate::sinks) struct Limits<'a> {
    pub(in crate::sinks) timeout: &'a Duration,
    pub(in crate::sinks) connect_timeout: &'a Duration,
    pub(in crate::sinks) request_bytes_max: &'a ByteSize,
    pub(in crate::sinks) tls: &'a TlsOptions,
}

impl Limits<'_> {
    /// Returns the mistakes in them.
    pub(in crate::sinks) fn check(&self) -> Vec<Mistake> {
        let mut found = Mistakes::default();
        let what = "`request_bytes_max` is less than 1KiB";
        let hint = "a request would cost more than its content: use \"1KiB\" or more";
        let is_small = *self.request_bytes_max < REQUEST_BYTES_MIN;
        found.note(is_small, "request_bytes_max", what, hint);
        found.0.extend(self.tls.check());
        let hint = "leave it out, or write \"30s\"";
        let what = "`timeout` must be more than zero";
        found.note(self.timeout.0.is_zero(), "timeout", what, hint);
        let what = "`connect_timeout` must be more than zero";
        found.note(self.connect_timeout.0.is_zero(), "connect_timeout", what, hint);
        found.0
    }

    /// Returns the options of a client whose backend sends short answers: about 1 KB for a success, and a sentence for an error.
    pub(in crate::sinks) fn client(&self) -> ClientOptions {
        ClientOptions {
            timeout: self.timeout.0,
            connect_timeout: self.connect_timeout.0,
            response_bytes_max: 64 << 10,
            tls: self.tls.clone(),
            ..ClientOptions::default()
        }
    }
}

/// Returns options in the form of `config show`. Their types redact secrets.
pub(in crate::sinks) fn shown(options: &impl Serialize) -> toml::Table {
    toml::Table::try_from(options).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_neither_its_query_nor_its_credentials() {
        for (text, shown) in [
            ("https://a/b?key=hush", "https://a/b?[redacted]"),
            ("https://me:hush@a/b", "[redacted]"),
            ("http://a:1/b", "http://a:1/b"),
            ("no address?hush", "no address?[redacted]"),
        ] {
            let address = Address::from(text.to_owned());
            assert_eq!(address.to_string(), shown);
            assert_eq!(format!("{address:?}"), shown);
            assert_eq!(toml::Value::try_from(&address).unwrap().as_str(), Some(shown));
            assert_eq!(address.reveal(), text);
        }
        let address = |text: &str| Address::from(text.to_owned());
        assert_eq!(address("https://a/b?key=hush").uri().unwrap().query(), Some("key=hush"));
        for invalid in ["a/b", "ftp://a", "https://me:hush@a"] {
            assert_eq!(address(invalid).uri(), None, "{invalid}");
        }
    }
}
