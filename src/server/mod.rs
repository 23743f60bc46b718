//! Serves HTTP: listeners on TCP and Unix sockets, TLS with certificates that may change, and connections within limits. It knows
//! nothing of what is asked: receivers and admin answer.
//!
//! One port serves HTTP/1.1 and HTTP/2, by the first bytes of a connection; over TLS (1.2 and 1.3) both are offered (ALPN). Only TCP is
//! encrypted: who may open a Unix socket is said by its mode.
//!
//! | what a connection does | what becomes of it |
//! |---|---|
//! | there are too many | one that never had a request gives way, then the one that has been idle the longest; who is in a handshake or does not read its answer is idle |
//! | it does not finish its handshake | closed after ten seconds |
//! | it speaks plain HTTP where TLS is spoken | told so with a 400, and said in the log |
//! | it sends no request, or a head that does not end | closed after three minutes |
//! | its head has more than 100 headers or 64 KiB | 431, over HTTP/2 a reset or 431 |
//! | it opens streams and resets them | GOAWAY after a few that nobody had seen yet |

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
pub use listener::Listener;
pub use tls::{ClientAuth, Tls, TlsOptions};

/// What answers the requests of a listener. Clones share it.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request, or has its connection closed. The extensions of the request have a [`Peer`].
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response, HangUp>> + Send;

    /// The limits as they are now.
    fn limits(&self) -> Limits;

    /// What encrypts connections to a port that begin now; `None` where they are in the clear.
    fn tls(&self) -> Option<Tls>;

    /// A connection waits, and all that are open have a request.
    fn make_room(&self) {}
}

/// A header of a request that is text.
pub fn header_text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The key behind `Bearer` in a request's `authorization`.
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
    /// The most connections.
    pub connections_max: usize,
    /// How long requests in flight may take to finish at the end.
    pub drain_timeout: Duration,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// Where it is; `None` behind a Unix socket.
    pub address: Option<SocketAddr>,
    /// Whether the connection is encrypted.
    pub is_encrypted: bool,
    /// What its certificate calls it, where it showed one; an authority that we trust has signed that.
    pub certificate: Option<Arc<str>>,
}

impl Peer {
    /// Whether it is on this machine, or has a Unix socket of it at hand.
    pub fn is_local(&self) -> bool {
        self.address.is_none_or(|address| address.ip().to_canonical().is_loopback())
    }

    /// What addresses begin with that lead here.
    pub fn scheme(&self) -> &'static str {
        if self.is_encrypted { "https" } else { "http" }
    }
}
