//! Detects addresses that lead back to this daemon. A sink that sends there would loop.
//!
//! Only loops that are visible without a lookup are found: no name is resolved, because checking a configuration has no side effects. Loops
//! through a proxy or another name are found at run time: every request of a sink names the process that sends it (`support/process.rs`),
//! and a receiver refuses requests from its own process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hyper::Uri;

use super::environment::Environment;
use super::layers::Layers;
use super::sections::LISTENERS;

/// The addresses where this daemon receives spans, and the machine's name.
#[derive(Debug, Clone)]
pub(super) struct Ourselves {
    /// The receivers that listen on a port, each with its option.
    pub(super) listeners: Vec<(String, SocketAddr)>,
    /// The machine's host name.
    pub(super) host_name: Option<String>,
}

impl Ourselves {
    /// Collects both from the configuration and the environment.
    pub(super) fn of(layers: &Layers<'_>, environment: &Environment) -> Self {
        let receivers = LISTENERS.into_iter().filter(|([section, _], _)| *section == "receivers");
        let listeners = receivers.filter_map(|(path, default)| {
            Some((path.join("."), layers.address(&path, default)?.socket()?))
        });
        Self { listeners: listeners.collect(), host_name: environment.host_name.clone() }
    }

    /// Returns the receiver that an `http://` or `https://` address leads to, with its option.
    pub(super) fn reached_by(&self, address: &str) -> Option<&(String, SocketAddr)> {
        let uri: Uri = address.parse().ok()?;
        let port = match uri.scheme_str() {
            Some("http") => uri.port_u16().unwrap_or(80),
            Some("https") => uri.port_u16().unwrap_or(443),
            _ => return None,
        };
        let host = uri.host()?.trim_end_matches('.').to_ascii_lowercase();
        let leads_to = |(_, listener): &&(String, SocketAddr)| {
            // Port 0 becomes a port that is unknown in advance.
            listener.port() == port && port != 0 && self.is_host_of(&host, *listener)
        };
        self.listeners.iter().find(leads_to)
    }

    fn is_host_of(&self, host: &str, listener: SocketAddr) -> bool {
        let listening = listener.ip().to_canonical();
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Ok(ip) = literal.unwrap_or(host).parse::<IpAddr>() {
            return is_reached(ip.to_canonical(), listening);
        }
        if host == "localhost" || host.ends_with(".localhost") {
            return listening.is_loopback() || listening.is_unspecified();
        }
        // The host name stands for the machine's network addresses; if it resolves to a loopback address, that is seldom 127.0.0.1.
        let own = self.host_name.as_deref();
        own.is_some_and(|own| own.eq_ignore_ascii_case(host)) && !listening.is_loopback()
    }
}

/// Returns whether a connection to this address reaches a listener.
fn is_reached(ip: IpAddr, listening: IpAddr) -> bool {
    // Connecting to the unspecified address connects to this machine.
    let ip = if ip.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { ip };
    if listening.is_unspecified() {
        // On Linux, `[::]` also serves IPv4.
        return ip.is_loopback() && (listening.is_ipv6() || ip.is_ipv4());
    }
    ip == listening
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening_on(address: &str) -> Ourselves {
        Ourselves {
            listeners: vec![("receivers.http".to_owned(), address.parse().unwrap())],
            host_name: Some("Box7".to_owned()),
        }
    }

    #[test]
    fn an_address_that_leads_to_a_listener_is_found() {
        for (listener, address) in [
            ("127.0.0.1:4318", "http://127.0.0.1:4318"),
            ("127.0.0.1:4318", "http://localhost:4318/v1/traces"),
            ("127.0.0.1:4318", "https://LocalHost.:4318"),
            ("127.0.0.1:4318", "http://app.localhost:4318"),
            ("127.0.0.1:4318", "http://0.0.0.0:4318"),
            ("127.0.0.1:4318", "http://[::ffff:127.0.0.1]:4318"),
            ("[::1]:4318", "http://[::1]:4318"),
            ("[::1]:4318", "http://localhost:4318"),
            ("0.0.0.0:4318", "http://127.0.0.5:4318"),
            ("0.0.0.0:4318", "http://box7:4318"),
            ("[::]:4318", "http://127.0.0.1:4318"),
            ("[::]:4318", "http://[::]:4318"),
            ("10.1.2.3:4318", "http://10.1.2.3:4318"),
            ("10.1.2.3:4318", "http://box7:4318"),
            ("127.0.0.1:80", "http://127.0.0.1/api/public/otel"),
            ("127.0.0.1:443", "https://localhost"),
        ] {
            let ourselves = listening_on(listener);
            let found = ourselves.reached_by(address);
            assert_eq!(found.map(|(option, _)| &**option), Some("receivers.http"), "{address}");
        }
    }

    #[test]
    fn an_address_that_leads_elsewhere_is_not() {
        for (listener, address) in [
            ("127.0.0.1:4318", "http://127.0.0.1:4319"),
            ("127.0.0.1:4318", "http://127.0.0.2:4318"),
            ("127.0.0.1:4318", "http://box7:4318"),
            ("127.0.0.1:4318", "http://box8:4318"),
            ("127.0.0.1:4318", "http://10.1.2.3:4318"),
            ("0.0.0.0:4318", "http://10.1.2.3:4318"),
            ("0.0.0.0:4318", "http://[::1]:4318"),
            ("10.1.2.3:4318", "http://localhost:4318"),
            ("127.0.0.1:4318", "http://localhost"),
            ("127.0.0.1:4318", "localhost:4318"),
            ("127.0.0.1:4318", "ftp://localhost:4318"),
            ("127.0.0.1:4318", "traces/{date}.jsonl"),
            ("127.0.0.1:0", "http://localhost:0"),
            ("127.0.0.1:4318", ""),
        ] {
            assert_eq!(listening_on(listener).reached_by(address), None, "{listener} {address}");
        }
    }
}
