//! Why a request is not taken. Each door says it in the words of its own protocol.

use crate::feed::Refusal;
use crate::normalize::{InflateError, Malformed};

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Nothing is here; what to do instead.
    #[error("{0}")]
    NotFound(String),
    /// The signal is one that the operator does not want.
    #[error("this daemon stores traces only: switch this signal off in the client")]
    Unwanted,
    /// The path takes POST.
    #[error("this path takes POST: {0}")]
    Method(&'static str),
    /// No key, or one that is not known.
    #[error("the credentials are missing or not known here")]
    Unauthenticated,
    /// A sink of this daemon sent it, perhaps by way of others: what is taken would be sent again, for ever.
    #[error(
        "this went through a sink of this daemon before, or through too many daemons: an address \
         leads back here; give that sink the address of the next receiver"
    )]
    Loop,
    /// The media type is none that the path takes.
    #[error("Content-Type must be {0}")]
    MediaType(&'static str),
    /// The body is compressed in a way that is not known.
    #[error("the body's coding is not known: use gzip, deflate, zstd or none")]
    Coding,
    /// The body is larger than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// The body is no request.
    #[error("{0}")]
    Malformed(String),
    /// The gRPC frame around the message is broken, in a way that gRPC has a code for.
    #[error("{0}")]
    Frame(&'static str),
    /// Nothing is wrong with the request: the client should come again.
    #[error("{why}: come again in a moment")]
    Busy {
        /// What stands in the way.
        why: &'static str,
        /// Items the request holds, where that is known; else it counts as one.
        items: u32,
    },
    /// The body stopped coming.
    #[error("the body stopped coming")]
    Slow,
    /// The client is gone, or sends something that is no HTTP.
    #[error("the body was cut off")]
    Gone,
}

impl Failure {
    /// The daemon is stopping.
    pub(super) const STOPPING: Self = Self::Busy { why: "the daemon is stopping", items: 1 };
    /// Something of ours broke. Said as something that a second attempt may mend, because the alternative loses data.
    pub(super) const PANICKED: Self =
        Self::Busy { why: "the request could not be handled", items: 1 };

    /// A body beyond the wire limit.
    pub(super) fn body_too_large(max: usize) -> Self {
        Self::TooLarge(format!("the body is larger than {max} bytes"))
    }

    /// What the journal's way in said of a request with so many items.
    pub(super) fn refused(refusal: &Refusal, items: u32) -> Self {
        let why = match refusal {
            Refusal::Full => "the journal is full",
            Refusal::NoSpace => "the disk is full",
            Refusal::Stopping => "the daemon is stopping",
            Refusal::TooLarge => return Self::TooLarge(refusal.to_string()),
        };
        Self::Busy { why, items }
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        let text = bounded(malformed.to_string());
        match malformed {
            Malformed::TooMany { .. } => Self::TooLarge(text),
            Malformed::Syntax { .. } | Malformed::Shape(_) => Self::Malformed(text),
        }
    }
}

impl From<InflateError> for Failure {
    fn from(error: InflateError) -> Self {
        let text = bounded(error.to_string());
        match error {
            InflateError::TooLarge { .. } => Self::TooLarge(text),
            InflateError::Broken { .. } => Self::Malformed(text),
        }
    }
}

/// Error texts go into headers (gRPC) and logs of clients; a parser's text may be long.
const TEXT_BYTES_MAX: usize = 512;

fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}
