//! Sends a batch to a daemon, and handles refusals.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

use super::Import;
use super::batches::{Batch, Post};
use super::stores::patiently;
use crate::cli::client::{Question, WRONG_ADDRESS, ask, below};
use crate::sinks::Pace;
use crate::sinks::http::classify::classify;
use crate::span::otlp::protobuf::write_request;
use crate::span::{Item, ONLY_SINK_HEADER, Receiver, sdk_requests};

/// The timeout of a request. A full journal answers after `ack_wait`, which is much less.
const PATIENCE: Duration = Duration::from_mins(1);

impl Import<'_> {
    /// Sends a batch. Permanently refused items join the rejects. Returns an error that ends the import.
    pub(super) async fn take(&mut self, batch: &mut Batch) -> Result<(), String> {
        for post in std::mem::take(&mut batch.posts) {
            let (items, body) = (post.items.len() as u64, post.body());
            match self.send(&post, &body).await? {
                Ok(quarantined) => {
                    self.sums.accepted += items.saturating_sub(quarantined);
                    self.sums.quarantined += quarantined;
                }
                Err(refusal) => {
                    let (source, done) = (&batch.source, batch.progress.done);
                    let place = format!("{source}, {items} items up to {done}");
                    batch.set_aside(place, refusal, body);
                }
            }
        }
        Ok(())
    }

    /// Sends a request until it is accepted or refused. Returns the number of quarantined items, or the reason of the refusal.
    async fn send(&self, post: &Post, body: &Bytes) -> Result<Result<u64, String>, String> {
        let (path, media) = if post.is_otlp() {
            ("/v1/traces", "application/x-protobuf")
        } else {
            ("/v1/traces/ingest", "application/json")
        };
        let url = below(&self.url, path);
        let token = format!("Bearer {}", self.arguments.token);
        let own = [(CONTENT_TYPE, media.to_owned()), (AUTHORIZATION, token)];
        let sink = self.arguments.sink.iter().cloned();
        let sink = sink.map(|sink| (HeaderName::from_static(ONLY_SINK_HEADER), sink));
        // This program did not create the spans, so the known headers are those of the original clients.
        let known = post.client.headers.iter();
        let known = known.filter_map(|(name, value)| Some((name.parse().ok()?, value.clone())));
        let headers: Vec<_> = own.into_iter().chain(sink).chain(known).collect();
        let (body, ca) = (Some(body.clone()), self.arguments.trust.ca.as_deref());
        let question = Question { url: &url, headers, body, patience: PATIENCE, ca };
        patiently(self.arguments.give_up_after.0, async || {
            let answer = ask(question.clone()).await.map_err(|reason| {
                let is_wrong = reason.ends_with(WRONG_ADDRESS);
                if is_wrong { Pace::hold(reason) } else { Pace::down(reason) }
            })?;
            let reason = format!("{url} answers {}: {}", answer.status, answer.text());
            let report = classify(answer.status, &answer.headers).report(reason, String::new);
            match report.refusal() {
                _ if report.pace != Pace::Go => Err(report.pace),
                Some(refusal) => Ok(Err(refusal.reason.clone())),
                None => Ok(Ok(post.quarantined(answer.body))),
            }
        })
        .await
    }
}

impl Post {
    fn is_otlp(&self) -> bool {
        self.client.receiver != Receiver::OpenAi
    }

    fn body(&self) -> Bytes {
        if !self.is_otlp() {
            return sdk_requests(self.items.iter().map(|item| item.wire().as_ref()));
        }
        let mut body = Vec::new();
        write_request(&mut body, self.items.iter().filter_map(Item::as_span));
        Bytes::from(body)
    }

    /// Returns the number of items in the daemon's quarantine, which only OTLP responses report.
    fn quarantined(&self, answer: Bytes) -> u64 {
        let answer = ExportTraceServiceResponse::decode(answer).ok().filter(|_| self.is_otlp());
        let rejected = answer.and_then(|answer| Some(answer.partial_success?.rejected_spans));
        rejected.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    }
}
