//! One request to a daemon on this machine or in this pod: plain HTTP, a time limit, and an answer of bounded size.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderName;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

/// More of an answer than this is not read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// A line holds at most one letter with its payload, as JSON text or base64 of what a receiver takes (64 MiB by default).
const LINE_BYTES_MAX: usize = 256 << 20;

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
#[error("{url} {reason}")]
pub(super) struct NoAnswer {
    /// What was asked, as it was given.
    url: String,
    /// In words behind the address.
    reason: String,
}

impl Answer {
    /// The body as text, to be shown.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// Asks once.
pub(super) async fn ask(question: Question<'_>) -> Result<Answer, NoAnswer> {
    let (url, patience) = (question.url, question.patience);
    let answered = timeout(patience, async {
        let response = send(question).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| broken_off(url, &*error))?.to_bytes();
        Ok(Answer { status, body })
    });
    answered.await.unwrap_or_else(|_| Err(slow(url, patience)))
}

/// Asks once, and has each line of the answer as it comes. `patience` is for the wait between lines. Returns the status.
pub(super) async fn ask_for_lines(
    question: Question<'_>,
    mut line: impl FnMut(&[u8]),
) -> Result<StatusCode, NoAnswer> {
    let (url, patience) = (question.url, question.patience);
    let slow = |_| slow(url, patience);
    let response = timeout(patience, send(question)).await.map_err(slow)??;
    let status = response.status();
    let mut body = response.into_body();
    let mut held = BytesMut::new();
    while let Some(frame) = timeout(patience, body.frame()).await.map_err(slow)? {
        let frame = frame.map_err(|error| broken_off(url, &error))?;
        let Some(mut data) = frame.data_ref().cloned() else { continue };
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            held.extend_from_slice(&data.split_to(end + 1));
            line(&held);
            held.clear();
        }
        held.extend_from_slice(&data);
        if held.len() > LINE_BYTES_MAX {
            return Err(no_answer(url, "answers with more than can be read"));
        }
    }
    if !held.is_empty() {
        line(&held);
    }
    Ok(status)
}

/// Sends the question; returns the beginning of the answer.
async fn send(question: Question<'_>) -> Result<Response<Incoming>, NoAnswer> {
    let Question { url, headers, body, .. } = question;
    let wrong_address = || no_answer(url, "is not an http:// address");
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
    client.request(request).await.map_err(|error| broken_off(url, &error))
}

fn no_answer(url: &str, reason: impl Into<String>) -> NoAnswer {
    NoAnswer { url: url.to_owned(), reason: reason.into() }
}

fn slow(url: &str, patience: Duration) -> NoAnswer {
    no_answer(url, format!("did not answer within {patience:?}"))
}

/// Nobody is there, or they hung up. The cause at the bottom is what a person can do something about.
fn broken_off(url: &str, error: &(dyn std::error::Error + 'static)) -> NoAnswer {
    let innermost = std::iter::successors(Some(error), |cause| cause.source()).last();
    no_answer(url, format!("does not answer: {}", innermost.unwrap_or(error)))
}
