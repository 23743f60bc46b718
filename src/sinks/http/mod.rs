//! The HTTP client of all sinks that use HTTP.
//!
//! [`Client`] sends a [`Request`] once, within a timeout, and returns the complete [`Response`] or a [`RequestError`]. It never retries, because
//! lanes do. It never follows redirects, because a redirect is a wrong address that an operator should see. It uses no proxy, and
//! `HTTPS_PROXY` is not read. HTTP/1.1 or HTTP/2 is negotiated by ALPN.
//!
//! TLS is rustls with ring. The client trusts the system's certificate authorities (`SSL_CERT_FILE` and `SSL_CERT_DIR` are respected), or
//! Mozilla's built-in ones if the system has none, or only those that a sink names ([`TlsOptions`]). Certificates are always verified,
//! without an option to disable that.
//!
//! Every request names the process that sends it and the forwarding path of its items ([`hops`](crate::support::forwarding)). If an address leads
//! back to this daemon, through a proxy, under another name or by way of other daemons, its receiver answers 508 and the sender's lane
//! holds.
//!
//! **Shared parts.** [`Address`] is an address whose query is never printed; [`ConnectionOptions`] are common to all HTTP sinks; `cut` splits
//! deliveries into bodies of at most that size; `deliver` encodes a delivery without blocking the reactor, sends its requests in order and
//! merges their reports; `Endpoint` is their destination. The lane learns the size that a backend accepts. `CONTRIBUTING.md` walks through
//! a sink that uses them.
//!
//! [`classify`] interprets statuses. Nothing here prints a body or a credential.

mod client;
pub mod classify;
mod compress;
mod cutting;
mod failure;
mod options;
mod sending;
mod tls;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientOptions, Request, Response, basic, secret_header, shortened};
pub use compress::Compression;
pub use cutting::Body;
pub(super) use cutting::cut;
#[cfg(any(feature = "kafka", test))]
pub(super) use cutting::cut_items;
pub use failure::RequestError;
pub(super) use options::shown;
pub use options::{Address, ConnectionOptions};
pub(super) use sending::{Endpoint, deliver, encode, in_turn};
pub use tls::TlsOptions;
