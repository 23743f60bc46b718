//! Shared parts of the options of all HTTP sinks: addresses whose query is never printed, limits, and their display.

use std::fmt;

use hyper::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClientOptions, TlsOptions};
use crate::sinks::{Mistake, Mistakes};
use crate::support::byte_size::ByteSize;
use crate::support::duration::{Duration, seconds};
use crate::support::secret::REDACTED;
use crate::support::written::written_as;

/// The address of a backend. Its query may contain a key, so only [`Address::uri`] and [`Address::reveal`] return it; `Debug`, `Display`
/// and `Serialize` redact it. Any text is accepted, and the check of the options reports an invalid address.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
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

written_as!(Address, { "type": "string" });

/// Returns the default of the option `connect_timeout`.
fn default_connect_timeout() -> Duration {
    ClientOptions::default().connect_timeout.into()
}

/// Smaller requests spend more on headers than on items.
const REQUEST_BYTES_MIN: ByteSize = ByteSize(1 << 10);

/// The options of every HTTP sink for its client, with the default of `timeout`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
pub struct ConnectionOptions<const TIMEOUT_SECONDS: u64> {
    /// Timeout of a request.
    #[serde(default = "seconds::<TIMEOUT_SECONDS>")]
    pub timeout: Duration,
    /// Timeout of connecting.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Duration,
    /// Certificates for https.
    #[serde(default)]
    pub tls: TlsOptions,
}

impl<const TIMEOUT_SECONDS: u64> ConnectionOptions<TIMEOUT_SECONDS> {
    /// Returns the mistakes in them and in `request_bytes_max`.
    pub(in crate::sinks) fn check(&self, request_bytes_max: ByteSize) -> Vec<Mistake> {
        let mut found = Mistakes::default();
        let is_small = request_bytes_max < REQUEST_BYTES_MIN;
        let hint = "leave it out, or write \"30s\"";
        #[rustfmt::skip]
        found.note_all([
            (is_small, "request_bytes_max", "`request_bytes_max` is less than 1KiB",
                "a request would cost more than its content: use \"1KiB\" or more"),
            (self.timeout.0.is_zero(), "timeout", "`timeout` must be more than zero", hint),
            (self.connect_timeout.0.is_zero(), "connect_timeout", "`connect_timeout` must be more than zero", hint),
        ]);
        found.0.extend(self.tls.check());
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
