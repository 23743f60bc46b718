//! A batch goes to a daemon, and what is to be done when that does not take it.

use std::time::{Duration, Instant};

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

use super::batches::{Batch, Post, SetAside};
use crate::cli::client::{Answer, Question, TrustArguments, ask, below};
use crate::cli::output::explain;
use crate::sinks::http::classify::{StatusClass, classify};
use crate::support::backoff::Backoff;

/// A journal that is full answers after `ack_wait`; this is well beyond.
const PATIENCE: Duration = Duration::from_mins(1);
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// A running daemon.
pub(super) struct Daemon<'a> {
    /// Where it listens, without a path.
    pub(super) url: String,
    pub(super) token: &'a str,
    pub(super) trust: &'a TrustArguments,
    /// For so long it may take nothing.
    pub(super) give_up_after: Duration,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Posted {
    /// Items that the daemon acknowledged.
    pub(super) accepted: u64,
    /// Items of these requests that it has in its quarantine.
    pub(super) quarantined: u64,
}

/// Why it does not go on.
#[derive(Debug)]
pub(super) struct Stopped(pub(super) String);

impl Daemon<'_> {
    /// Sends a batch. What the daemon refuses for good joins what was set aside.
    pub(super) async fn take(&self, mut batch: Batch) -> (Batch, Result<Posted, Stopped>) {
        let mut posted = Posted::default();
        for post in std::mem::take(&mut batch.posts) {
            match self.send(&post).await {
                Ok(Ok(quarantined)) => {
                    posted.accepted += post.items.saturating_sub(quarantined);
                    posted.quarantined += quarantined;
                }
                Ok(Err(refusal)) => batch.set_aside.push(SetAside {
                    place: format!("{}, {} items before {}", batch.source, post.items, batch.done),
                    reason: refusal,
                    bytes: post.body,
                }),
                Err(stopped) => return (batch, Err(stopped)),
            }
        }
        (batch, Ok(posted))
    }

    /// Sends a request until it is taken or refused. How many items of it were quarantined, or why it was refused.
    async fn send(&self, post: &Post) -> Result<Result<u64, String>, Stopped> {
        let path = if post.is_otlp { "/v1/traces" } else { "/v1/traces/ingest" };
        let url = below(&self.url, path);
        let (began, mut backoff) = (Instant::now(), Backoff::new(FIRST_WAIT, LONGEST_WAIT));
        let mut is_said = false;
        loop {
            let (said, wanted) = match ask(self.question(&url, post)).await {
                Err(no_answer) => (no_answer.to_string(), None),
                Ok(answer) => {
                    let said = format!("{url} answers {}: {}", answer.status, answer.text());
                    match classify(answer.status, &answer.headers) {
                        StatusClass::Taken => return Ok(Ok(quarantined(post, &answer))),
                        StatusClass::TooLarge | StatusClass::Malformed => return Ok(Err(said)),
                        StatusClass::Stop => return Err(Stopped(said)),
                        StatusClass::Retry { after } | StatusClass::Throttled { after } => {
                            (said, after)
                        }
                        StatusClass::Fault => (said, None),
                    }
                }
            };
            let wait = wanted.unwrap_or_default().max(backoff.next_wait());
            if self.give_up_after < began.elapsed() + wait {
                return Err(Stopped(said));
            }
            if !std::mem::replace(&mut is_said, true) {
                explain(&format!("waiting: {said}\n"));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Headers are those that the clients sent, as far as they are known: it is not this program that made the spans.
    fn question<'q>(&'q self, url: &'q str, post: &Post) -> Question<'q> {
        let media = if post.is_otlp { "application/x-protobuf" } else { "application/json" };
        let mut headers = vec![
            (CONTENT_TYPE, media.to_owned()),
            (AUTHORIZATION, format!("Bearer {}", self.token)),
        ];
        let kept = post.headers.iter();
        headers.extend(
            kept.filter_map(|(name, value)| {
                Some((HeaderName::try_from(name).ok()?, value.clone()))
            }),
        );
        let (body, ca) = (Some(post.body.clone()), self.trust.ca.as_deref());
        Question { url, headers, body, patience: PATIENCE, ca }
    }
}

/// Items that are in the daemon's quarantine: only OTLP says so in its answer.
fn quarantined(post: &Post, answer: &Answer) -> u64 {
    let decoded = ExportTraceServiceResponse::decode(answer.body.clone());
    let partial = decoded.ok().filter(|_| post.is_otlp).and_then(|said| said.partial_success);
    partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or_default())
}
