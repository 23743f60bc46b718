//! One HTTP client for every sink that speaks it.
//!
//! [`Client`] sends a [`Request`] once, within a time, and returns the whole [`Response`] or a [`Failure`]. It never retries, never
//! follows a redirect and never goes through a proxy: a lane retries, a redirect is a wrong address that an operator should see,
//! and a proxy would have to be asked for (`HTTPS_PROXY` is not read). HTTP/1.1 and HTTP/2 are agreed on by ALPN.
//!
//! TLS is rustls with ring. Trusted are the certificate authorities of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` are
//! honoured), or those of Mozilla, which are built in, where the system has none; or only those that a sink names ([`TlsOptions`]).
//! Certificates are always verified; there is no option against that.
//!
//! Every request says which process sent it, and through which others what is in it came ([`hops`](crate::support::hops)): where an
//! address leads back to us, through a proxy, under another name or by way of other daemons, a receiver of ours answers 508 and the lane
//! of whoever sent it holds.
//!
//! **The kit.** [`Address`] is an address that is never printed with its query; `Limits` checks what all HTTP sinks limit; `cut` makes
//! the bodies of requests that are no larger than that; `deliver`
//! encodes a delivery where it blocks nobody, sends its requests in order and makes one report of theirs; `Endpoint` is where they go.
//! How large they may be is learned in the lane. `CONTRIBUTING.md` walks through a sink that uses them.
//!
//! [`classify`] says what a status means. Nothing here prints a body or a credential.

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

pub use client::{
    Client, ClientOptions, Protocol, Request, Response, add_hops, basic, secret_header, shortened,
};
pub use compress::{Compression, INLINE_BYTES_MAX};
#[cfg(any(feature = "kafka", test))]
pub(super) use cutting::cut_items;
pub(super) use cutting::{Body, cut};
pub use failure::Failure;
pub use options::Address;
pub(super) use options::{Limits, default_connect_timeout, shown};
pub(super) use sending::{Endpoint, Ready, deliver, encode, in_turn};
pub use tls::TlsOptions;
