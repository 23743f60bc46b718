//! An address to listen on: a host and a port, or a Unix socket.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use super::written::written_as;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Address {
    /// A host and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its mode: processes that may write to it may connect.
        mode: u32,
    },
}

/// Message for a text that is not an address.
const FORM: &str = "not an address with a port; write for example \"127.0.0.1:4318\" or \"unix:/run/spanferry/http.sock\"";
/// Message for a text that is not a Unix socket.
const UNIX_FORM: &str = "not a Unix socket; write for example \"unix:/run/spanferry/http.sock\" or \"unix:/run/spanferry/http.sock?mode=0666\"";

/// Prefix of a Unix socket's address.
pub const UNIX: &str = "unix:";
/// User and group may connect: containers of a pod more often share a group than a user.
const DEFAULT_MODE: u32 = 0o660;
/// A socket's address on Linux has room for 108 bytes (`unix(7)`). While a socket is created, its name is longer by a process id.
const PATH_BYTES_MAX: usize = 95;

impl Address {
    /// The name of this format in schemas.
    pub(super) const FORMAT: &str = "listen-address";

    /// Returns an address on the loopback interface.
    pub const fn loopback(port: u16) -> Self {
        Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// Returns whether one process cannot listen on both.
    pub fn collides_with(&self, other: &Self) -> bool {
        match (self, other) {
            // Port 0 means any free port.
            (Self::Tcp(one), Self::Tcp(two)) if one.port() == two.port() && one.port() != 0 => {
                let (one, two) = (one.ip(), two.ip());
                one == two || takes_all(one, two) || takes_all(two, one)
            }
            (Self::Unix { path: one, .. }, Self::Unix { path: two, .. }) => one == two,
            _ => false,
        }
    }

    /// Returns the host and port, unless it is a Unix socket.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }

    /// Returns the URL at which a listener is reached from the same machine; a path can be appended.
    pub fn url(&self, is_encrypted: bool) -> String {
        let scheme = if is_encrypted { "https" } else { "http" };
        match self {
            Self::Unix { path, .. } => format!("{UNIX}{}:", path.display()),
            Self::Tcp(address) if address.ip().is_unspecified() => {
                let loopback = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
                format!("{scheme}://{loopback}:{}", address.port())
            }
            Self::Tcp(address) => format!("{scheme}://{address}"),
        }
    }

    /// Returns whether other machines can reach it.
    pub fn is_exposed(&self) -> bool {
        self.socket().is_some_and(|address| !address.ip().to_canonical().is_loopback())
    }
}

/// Returns whether a listener on `wide` also occupies `narrow`. Unlike other systems, Linux also serves IPv4 on `[::]`.
fn takes_all(wide: IpAddr, narrow: IpAddr) -> bool {
    wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
}

/// Parses a Unix socket: an absolute path, optionally followed by `?mode=` and octal digits.
fn unix(text: &str) -> Option<Address> {
    let (path, mode) = match text.split_once("?mode=") {
        Some((path, mode)) => (path, u32::from_str_radix(mode, 8).ok()?),
        None => (text, DEFAULT_MODE),
    };
    let is_path = path.starts_with('/') && !path.contains('?') && path.len() <= PATH_BYTES_MAX;
    (is_path && mode <= 0o777).then(|| Address::Unix { path: path.into(), mode })
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix(UNIX) {
            return unix(rest).ok_or(UNIX_FORM);
        }
        // `localhost` is common and needs no resolver.
        let address = match text.strip_prefix("localhost:") {
            Some(port) => port.parse().map(|port| (Ipv4Addr::LOCALHOST, port).into()).ok(),
            None => text.parse().ok(),
        };
        address.map(Self::Tcp).ok_or(FORM)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix { path, mode } => {
                write!(formatter, "{UNIX}{}", path.display())?;
                if *mode == DEFAULT_MODE { Ok(()) } else { write!(formatter, "?mode={mode:04o}") }
            }
        }
    }
}

impl TryFrom<String> for Address {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse()
    }
}

written_as!(Address, {
    "type": "string",
    "format": (Address::FORMAT),
    "pattern": "^(.+:[0-9]+|unix:/.+)$",
    "examples": ["127.0.0.1:4318", "unix:/run/spanferry/http.sock"],
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
            assert_eq!(text.parse::<Address>(), Err(FORM), "{text}");
        }
    }

    #[test]
    fn a_unix_socket_is_an_absolute_path_with_a_mode() {
        for (text, shown) in [
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:/run/a.sock?mode=0660", "unix:/run/a.sock"),
            (" unix:/run/a.sock?mode=666", "unix:/run/a.sock?mode=0666"),
        ] {
            assert_eq!(address(text).to_string(), shown, "{text}");
            assert_eq!(address(shown), address(text), "{text}");
        }
        let long = format!("unix:/{}", "a".repeat(PATH_BYTES_MAX));
        for text in [
            "unix:",
            "unix:a.sock",
            "unix:/a?mode=",
            "unix:/a?mode=9",
            "unix:/a?mode=1777",
            "unix:/a?mod=0666",
            &long,
        ] {
            assert_eq!(text.parse::<Address>(), Err(UNIX_FORM), "{text}");
        }
    }

    #[test]
    fn what_listens_everywhere_is_reached_on_loopback() {
        for (listen, expected) in [
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("0.0.0.0:13133", "http://127.0.0.1:13133"),
            ("[::]:13133", "http://[::1]:13133"),
            ("10.0.0.7:80", "http://10.0.0.7:80"),
            ("unix:/run/a.sock?mode=0666", "unix:/run/a.sock:"),
        ] {
            assert_eq!(address(listen).url(false), expected);
        }
        assert_eq!(address("0.0.0.0:1").url(true), "https://127.0.0.1:1");
    }

    #[test]
    fn what_other_machines_reach_is_exposed() {
        for (text, is_exposed) in [
            ("127.0.0.1:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("unix:/run/a.sock?mode=0666", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("10.1.2.3:1", true),
        ] {
            assert_eq!(address(text).is_exposed(), is_exposed, "{text}");
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
            ("unix:/a", "unix:/a?mode=0666", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", "0.0.0.0:1", false),
        ] {
            assert_eq!(address(one).collides_with(&address(two)), collide, "{one} {two}");
            assert_eq!(address(two).collides_with(&address(one)), collide, "{two} {one}");
        }
    }
}
