//! An address to listen on: a host and a port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::written::written_as;

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(pub SocketAddr);

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address with a port; write for example \"127.0.0.1:4318\"")]
pub struct AddressError;

impl Address {
    /// What the schema calls it.
    pub(super) const FORMAT: &str = "listen-address";

    /// Whether the two cannot both be listened on.
    pub fn collides_with(self, other: Self) -> bool {
        // Port 0 means any free one.
        if self.0.port() != other.0.port() || self.0.port() == 0 {
            return false;
        }
        let (one, two) = (self.0.ip(), other.0.ip());
        one == two || takes_all(one, two) || takes_all(two, one)
    }
}

/// For a field that holds an address as text: `#[serde(deserialize_with = "address::text")]`.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Address::deserialize(deserializer).map(|address| address.to_string())
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

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

written_as!(Address, {
    "type": "string",
    "format": (Address::FORMAT),
    "pattern": "^.+:[0-9]+$",
    "examples": ["127.0.0.1:4318"],
});

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
