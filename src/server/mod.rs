//! Serves HTTP: listeners on TCP and Unix sockets, TLS with certificates that may change, and connections within limits. It knows nothing
//! about the requests; receivers and admin answer them.
//!
//! One port serves HTTP/1.1 and HTTP/2, distinguished by the first bytes of a connection; over TLS (1.2 and 1.3) ALPN offers both. Only TCP
//! is encrypted: the mode of a Unix socket limits who may open it.
//!
//! | connection | result |
//! |---|---|
//! | there are too many | an idle one is closed, first those without a request; handshakes and unread answers count as idle |
//! | it does not finish its handshake | closed after ten seconds |
//! | it speaks plain HTTP to a TLS port | gets a 400, which is logged |
//! | it sends no request, or a head that does not end | closed after three minutes |
//! | its head has more than 100 headers or 64 KiB | 431, over HTTP/2 a reset or 431 |
//! | it opens streams and resets them | GOAWAY after a few that were not processed yet |

mod certificate;
mod connections;
mod listener;
mod tls;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, AsHeaderName, HeaderMap};

pub use certificate::certificate_end;
pub use connections::serve;
pub use listener::{Listener, Stream};
pub use tls::{ClientAuth, Tls, TlsOptions};

/// Answers the requests of a listener. Clones share it.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request, or has its connection closed. The request's extensions contain a [`Peer`].
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response, HangUp>> + Send;

    /// Returns the current limits.
    fn limits(&self) -> Limits;

    /// Returns the TLS of new connections to a port; `None` if they are not encrypted.
    fn tls(&self) -> Option<Tls>;

    /// Called when a connection waits and all open ones have a request.
    fn make_room(&self) {}
}

/// Returns a header of a request if it is text.
pub fn header_text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Returns the key after `Bearer` in a request's `authorization`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = header_text(headers, AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

/// Why a connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HangUp(pub String);

/// The limits of one listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of connections.
    pub connections_max: usize,
    /// How long requests in flight may take to finish on shutdown.
    pub drain_timeout: Duration,
}

/// The peer of a connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// Its address; `None` for a Unix socket.
    pub address: Option<SocketAddr>,
    /// Whether the connection is encrypted.
    pub is_encrypted: bool,
    /// The name in its certificate, if it presented one; a trusted authority has signed it.
    pub certificate: Option<Arc<str>>,
}

impl Peer {
    /// Returns whether it is on this machine, which includes Unix sockets.
    pub fn is_local(&self) -> bool {
        self.address.is_none_or(|address| address.ip().to_canonical().is_loopback())
    }

    /// Returns the scheme of this listener's URLs.
    pub fn scheme(&self) -> &'static str {
        if self.is_encrypted { "https" } else { "http" }
    }
}
