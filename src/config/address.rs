//! An address to listen on: a host and a port.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address(pub(super) SocketAddr);

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address with a port; write for example \"127.0.0.1:4318\"")]
pub(super) struct AddressError;

impl Address {
    /// A default's, which is known to be one.
    pub(super) fn of_default(text: &str) -> Self {
        text.parse().unwrap_or(Self((Ipv4Addr::LOCALHOST, 0).into()))
    }

    /// Whether the two cannot both be listened on.
    pub(super) fn collides_with(self, other: Self) -> bool {
        // Port 0 means any free one.
        if self.0.port() != other.0.port() || self.0.port() == 0 {
            return false;
        }
        let (one, two) = (self.0.ip(), other.0.ip());
        one == two || takes_all(one, two) || takes_all(two, one)
    }
}

/// Whether listening on `wide` takes `narrow` as well. Other than elsewhere, Linux serves IPv4 on `[::]` too.
fn takes_all(wide: IpAddr, narrow: IpAddr) -> bool {
    wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        // The one name that needs no resolver, and that people write.
        let address = match text.strip_prefix("localhost:") {
            Some(port) => port.parse().map(|port| (Ipv4Addr::LOCALHOST, port).into()).ok(),
            None => text.parse().ok(),
        };
        address.map(Self).ok_or(AddressError)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^.+:[0-9]+$", "examples": ["127.0.0.1:4318"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_ip_and_port_or_localhost() {
        assert_eq!(address("localhost:4318"), address("127.0.0.1:4318"));
        assert_eq!(address("[::1]:80").to_string(), "[::1]:80");
        for text in
            ["", "4318", ":4318", "127.0.0.1", "127.0.0.1:99999", "example.com:80", "localhost:"]
        {
            assert_eq!(text.parse::<Address>(), Err(AddressError), "{text}");
        }
    }

    #[test]
    fn two_addresses_collide_where_the_system_would_refuse_the_second() {
        for (one, two, collide) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("[::]:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(address(one).collides_with(address(two)), collide, "{one} {two}");
            assert_eq!(address(two).collides_with(address(one)), collide, "{two} {one}");
        }
    }
}
