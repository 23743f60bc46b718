//! What an answer is made of.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::HeaderMap;

use crate::support::clock;

/// The body of an answer: a few bytes or none, and trailers where gRPC has them.
#[derive(Debug, Default)]
pub(super) struct Reply {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Reply {
    /// A body without trailers.
    pub(super) fn new(data: impl Into<Bytes>) -> Self {
        let data = data.into();
        Self { data: (!data.is_empty()).then_some(data), trailers: None }
    }

    /// A body with trailers.
    pub(super) fn with_trailers(data: Bytes, trailers: HeaderMap) -> Self {
        Self { data: Some(data), trailers: Some(trailers) }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.data.take() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.trailers.is_some() {
            // A known length becomes a `content-length`, and some clients (curl) do not read what comes after so many bytes.
            return SizeHint::default();
        }
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

/// Longest wait that is asked of a client. Python and JS exporters give a batch up when the wait exceeds what is left of their ten
/// seconds.
const RETRY_AFTER_SECONDS_MAX: u64 = 5;

/// The wait that is asked of a client which should come again: one to five whole seconds, not the same for everybody.
pub(super) fn retry_after_seconds() -> u64 {
    // The clock's microseconds are as good as random for this.
    1 + clock::unix_now_ns() / 1000 % RETRY_AFTER_SECONDS_MAX
}
