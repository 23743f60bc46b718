//! Compresses the bodies of requests.

use std::io;
use std::net::IpAddr;

use bytes::Bytes;
use hyper::Uri;
use hyper::header::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::support::compress;

/// How a request's body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, which every OTLP receiver accepts.
    Gzip,
    /// zstd: smaller and faster, but accepted by fewer receivers.
    Zstd,
}

impl Compression {
    /// Returns the default. Compression for a backend on the same machine costs more than it saves.
    pub fn toward<'a>(addresses: impl IntoIterator<Item = &'a Uri>) -> Self {
        if addresses.into_iter().all(is_loopback) { Self::None } else { Self::Gzip }
    }

    /// Returns the value of `content-encoding` or `grpc-encoding`; `None` for an uncompressed body.
    pub fn header(self) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::Gzip => Some(HeaderValue::from_static("gzip")),
            Self::Zstd => Some(HeaderValue::from_static("zstd")),
        }
    }

    /// Compresses a body. The same body always yields the same bytes.
    pub fn apply(self, body: impl Into<Bytes>) -> io::Result<Bytes> {
        let body = body.into();
        if self == Self::None { Ok(body) } else { self.at_level(&body, FAST_LEVEL) }
    }

    /// Compresses a body at a level: 0 to 9 for gzip, 1 to 22 for zstd.
    pub fn at_level(self, body: &[u8], level: i32) -> io::Result<Bytes> {
        Ok(match self {
            Self::None => Bytes::copy_from_slice(body),
            Self::Gzip => compress::gzip(body, u32::try_from(level).unwrap_or_default())?.into(),
            Self::Zstd => compress::zstd(body, level)?.into(),
        })
    }
}

fn is_loopback(address: &Uri) -> bool {
    let host = address.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Spans are so repetitive that the fastest level of either already finds nearly everything.
const FAST_LEVEL: i32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_on_this_machine_is_not_compressed() {
        for (address, usual) in [
            ("http://localhost:9200", Compression::None),
            ("http://127.0.0.2", Compression::None),
            ("http://[::1]:4318/v1/traces", Compression::None),
            ("http://10.0.0.1", Compression::Gzip),
            ("https://localhost.example.com", Compression::Gzip),
        ] {
            assert_eq!(Compression::toward([&address.parse().unwrap()]), usual, "{address}");
        }
    }
}
