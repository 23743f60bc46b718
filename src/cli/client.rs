//! One request to a daemon on this machine or in this pod: plain HTTP, a time limit, and an answer of bounded size.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::HeaderName;
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

/// More of an answer than this is not read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Question<'a> {
    /// Where.
    pub(super) url: &'a str,
    /// With these headers.
    pub(super) headers: Vec<(HeaderName, String)>,
    /// A body makes it a POST.
    pub(super) body: Option<Bytes>,
    /// For so long.
    pub(super) patience: Duration,
}

/// What was answered.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: StatusCode,
    /// Its body.
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// The address is none.
    #[error("{url} is not an http:// address")]
    Address {
        /// As it was given.
        url: String,
    },
    /// Nobody is there, or they hung up.
    #[error("{url} does not answer: {reason}")]
    Connection {
        /// As it was given.
        url: String,
        /// The innermost cause.
        reason: String,
    },
    /// Nobody answered in time.
    #[error("{url} did not answer within {patience:?}")]
    Slow {
        /// As it was given.
        url: String,
        /// How long was waited.
        patience: Duration,
    },
}

impl Answer {
    /// The body as text, to be shown.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// Asks once.
pub(super) async fn ask(question: Question<'_>) -> Result<Answer, NoAnswer> {
    let (url, patience) = (question.url.to_owned(), question.patience);
    match timeout(patience, ask_patiently(question)).await {
        Ok(answered) => answered,
        Err(_) => Err(NoAnswer::Slow { url, patience }),
    }
}

async fn ask_patiently(question: Question<'_>) -> Result<Answer, NoAnswer> {
    let Question { url, headers, body, .. } = question;
    let wrong_address = || NoAnswer::Address { url: url.to_owned() };
    if !url.starts_with("http://") {
        return Err(wrong_address());
    }
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(body.unwrap_or_default())).map_err(|_| wrong_address())?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let failed = |error: &(dyn std::error::Error + 'static)| NoAnswer::Connection {
        url: url.to_owned(),
        reason: innermost(error),
    };
    let response = client.request(request).await.map_err(|error| failed(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| failed(&*error))?.to_bytes();
    Ok(Answer { status, body })
}

/// The cause at the bottom, which is what a person can do something about.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
