//! Fetches OpenAI responses by id: `GET {endpoint}/v1/responses/{id}`.
//!
//! The Agents SDK sends only a response's id, so its model and, from JavaScript, its tokens are unknown here. Lookups are bounded in time,
//! number and memory, and a delivery never fails because of them: it goes without a response that does not arrive in time. Each id is
//! requested once, so that a retried delivery is identical. After a failure, lookups pause for a while.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::options::{Lookup as LookupOptions, Settings};
use super::trace::{Answer, KnownFacts};
use crate::sinks::http::{Client, ClientOptions, Request, secret_header};
use crate::sinks::{BuildError, Delivery};
use crate::span::{Kind, Payload, Span, Text, TraceId, Usage};
use crate::support::json::raw::Raw;
use crate::support::lock::lock;
use crate::support::recent::Recent;

/// Concurrent lookups: a delivery of the usual size needs a few rounds.
const UNDER_WAY_MAX: usize = 8;
/// Responses that are cached: those of several hours, in about a megabyte.
const ANSWERS_MAX: usize = 10_000;
/// Bytes of response content that are cached. Only retried deliveries need it again.
const CONTENT_BYTES_MAX: usize = 16 << 20;
/// The largest response that is read.
const ANSWER_BYTES_MAX: usize = 2 << 20;
/// The pause after a failure, so as not to press a server that limits or refuses requests.
const PAUSE: Duration = Duration::from_mins(1);

/// Looks up responses and caches them.
pub(super) struct Lookup {
    client: Client,
    headers: HeaderMap,
    options: LookupOptions,
    memory: Mutex<Memory>,
}

impl fmt::Debug for Lookup {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Lookup({})", self.options.endpoint)
    }
}

/// The cache: requested ids and their responses.
#[derive(Default)]
struct Memory {
    answers: Recent<ANSWERS_MAX, Text, Option<Arc<Answer>>>,
    content_bytes: usize,
    /// Traces whose tokens are known from responses.
    counted: Recent<ANSWERS_MAX, TraceId>,
    paused_until: Option<Instant>,
}

impl Lookup {
    /// Reads certificates; does not connect.
    pub(super) fn new(settings: &Settings) -> Result<Option<Self>, BuildError> {
        let Some(options) = &settings.options.lookup else { return Ok(None) };
        let key = format!("Bearer {}", options.api_key.reveal());
        let key = secret_header(&key).ok_or_else(|| {
            BuildError("the key of `lookup` is not a valid header value".to_owned())
        })?;
        let client = ClientOptions {
            // `ask` has its own timeout, which must end first.
            timeout: options.timeout.0 * 2,
            response_bytes_max: ANSWER_BYTES_MAX,
            idle_connections_max: UNDER_WAY_MAX,
            tls: options.tls.clone(),
            ..ClientOptions::default()
        };
        Ok(Some(Self {
            client: Client::new(&client)?,
            headers: HeaderMap::from_iter([(AUTHORIZATION, key)]),
            options: options.clone(),
            memory: Mutex::default(),
        }))
    }

    /// Returns what is known of a delivery's responses, after requesting those that are needed.
    pub(super) async fn answers(&self, delivery: &Delivery, settings: &Settings) -> KnownFacts {
        let wanted: Vec<(TraceId, Text)> = delivery
            .spans()
            .filter(|span| self.wants(span, settings))
            .filter_map(|span| Some((span.trace_id, span.facts().response_id.clone()?)))
            .collect();
        let unknown = self.memory().unknown(&wanted);
        if !unknown.is_empty() {
            self.ask(unknown).await;
        }
        let traces = delivery.spans().map(|span| span.trace_id);
        self.memory().known(&wanted, traces)
    }

    /// Returns whether a response can supply data that a span lacks.
    fn wants(&self, span: &Span, settings: &Settings) -> bool {
        let facts = span.facts();
        let models = &settings.options.models;
        let has_model = facts.request_model.is_some()
            || facts.response_model.is_some()
            || models.default.is_some();
        !span.is_otlp()
            && facts.kind == Kind::Generation
            && facts.response_id.as_ref().is_some_and(is_id)
            && (!has_model || (self.options.content && facts.output.is_none()))
    }

    /// Requests these responses within the timeout. Those that do not arrive in time are not requested again.
    async fn ask(&self, ids: Vec<Text>) {
        if !self.memory().is_paused() {
            let mut has_answered = false;
            let rounds = async {
                let asked = stream::iter(ids.clone())
                    .map(|id| async move { (self.ask_one(&id).await, id) })
                    .buffer_unordered(UNDER_WAY_MAX);
                let mut asked = pin!(asked);
                while let Some((answer, id)) = asked.next().await {
                    has_answered = true;
                    self.memory().keep(&id, answer.map(Arc::new));
                }
            };
            drop(timeout(self.options.timeout.into(), rounds).await);
            // Under load, the time is too short for all of them. A server that answers some need not be spared.
            if !has_answered {
                self.pause("no answer came in time");
            }
        }
        let mut memory = self.memory();
        for id in &ids {
            memory.keep(id, None);
        }
    }

    fn pause(&self, reason: &str) {
        let mut memory = self.memory();
        if !memory.is_paused() {
            warn!(
                reason,
                "the lookup of models and tokens pauses for a minute; spans are sent without them"
            );
        }
        memory.paused_until = Some(Instant::now() + PAUSE);
    }

    /// Requests a response. Returns `None` if it does not exist or is unreadable. If OpenAI cannot be asked now, lookups pause.
    async fn ask_one(&self, id: &Text) -> Option<Answer> {
        // Another request of the same round may have started the pause.
        if self.memory().is_paused() {
            return None;
        }
        let uri = format!("{}/v1/responses/{id}", self.options.endpoint.reveal());
        let request = Request::get(uri.parse().ok()?, self.headers.clone());
        match self.client.send(&request).await {
            Err(failure) => self.pause(&failure.to_string()),
            Ok(response) => match response.status {
                StatusCode::OK => return read(&response.body, self.options.content),
                // The response was not stored, or was deleted.
                StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => {}
                status => self.pause(&format!("HTTP {}", status.as_u16())),
            },
        }
        None
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}

/// Returns whether an id can be part of a URL as it is. Other servers' ids have other forms, and OpenAI does not know them.
fn is_id(id: &Text) -> bool {
    id.starts_with("resp_")
        && id.len() <= ID_BYTES_MAX
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Usual ids have about 70 bytes.
const ID_BYTES_MAX: usize = 200;

impl Memory {
    fn is_paused(&self) -> bool {
        self.paused_until.is_some_and(|until| Instant::now() < until)
    }

    /// Returns the ids that were not requested yet, without duplicates.
    fn unknown(&self, wanted: &[(TraceId, Text)]) -> Vec<Text> {
        let mut unknown = Vec::new();
        for (_, id) in wanted {
            if self.answers.get(id).is_none() && !unknown.contains(id) {
                unknown.push(id.clone());
            }
        }
        unknown
    }

    /// Caches a response, or the fact that it is missing.
    fn keep(&mut self, id: &Text, answer: Option<Arc<Answer>>) {
        if self.answers.get(id).is_some() {
            return;
        }
        self.content_bytes += content_bytes(answer.as_ref());
        // The id is a slice of an entire request, which it would otherwise keep in memory.
        let forgotten = self.answers.insert(Text::from(id.to_string()), answer);
        self.content_bytes -= content_bytes(forgotten.flatten().as_ref());
        while CONTENT_BYTES_MAX < self.content_bytes {
            let Some(forgotten) = self.answers.forget() else { break };
            self.content_bytes -= content_bytes(forgotten.as_ref());
        }
    }

    /// Returns what is known of these responses, and the traces whose tokens are known.
    fn known(
        &mut self,
        wanted: &[(TraceId, Text)],
        traces: impl Iterator<Item = TraceId>,
    ) -> KnownFacts {
        let mut known = KnownFacts::default();
        for (trace, id) in wanted {
            let Some(Some(answer)) = self.answers.get(id) else { continue };
            known.answers.insert(id.clone(), Arc::clone(answer));
            if !answer.usage.is_empty() {
                self.counted.insert(*trace, ());
            }
        }
        known.counted = traces.filter(|trace| self.counted.get(trace).is_some()).collect();
        known
    }
}

fn content_bytes(answer: Option<&Arc<Answer>>) -> usize {
    let output = answer.and_then(|answer| answer.output.as_ref());
    output.map_or(0, |output| output.as_str().len())
}

/// Parses a response of the API.
fn read(body: &[u8], with_content: bool) -> Option<Answer> {
    let response = Raw::parse(std::str::from_utf8(body).ok()?)?.object();
    let usage = response.get_object("usage").unwrap_or_default();
    let count = |name| usage.get(name).and_then(Raw::count);
    let part = |of, name| usage.get_object(of)?.get(name)?.count();
    Some(Answer {
        model: response.get_string("model").map(|model| Text::from(model.into_owned())),
        usage: Usage {
            input: count("input_tokens"),
            output: count("output_tokens"),
            total: count("total_tokens"),
            cached_read: part("input_tokens_details", "cached_tokens"),
            cache_write: part("input_tokens_details", "cache_write_tokens"),
            reasoning: part("output_tokens_details", "reasoning_tokens"),
            ..Usage::default()
        },
        output: response
            .get("output")
            .filter(|_| with_content)
            .map(|output| Payload::Json(Text::from(output.text().to_owned()))),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use toml::de::DeTable;

    use super::*;
    use crate::sinks::langfuse::parse;

    #[test]
    fn the_memory_is_bounded_in_number_and_in_bytes() {
        let mut memory = Memory::default();
        let id = |number: usize| Text::from(format!("resp_{number}"));
        for number in 0..ANSWERS_MAX + 5 {
            memory.keep(&id(number), None);
        }
        assert!(memory.answers.get(&id(4)).is_none());
        assert!(memory.answers.get(&id(5)).is_some());
        let output = Payload::Text(Text::from("x".repeat(CONTENT_BYTES_MAX - 1)));
        let answer = Some(Arc::new(Answer { output: Some(output), ..Answer::default() }));
        memory.keep(&Text::from_static("resp_a"), answer.clone());
        memory.keep(&Text::from_static("resp_b"), answer);
        assert!(memory.content_bytes <= CONTENT_BYTES_MAX);
        assert!(memory.answers.get("resp_b").is_some());
        assert!(memory.answers.get("resp_a").is_none());
    }

    #[test]
    fn an_answer_says_model_and_tokens_and_its_content_only_when_asked() {
        let body =
            br#"{"id":"resp_1","model":"gpt-5-mini-2025-08-07","output":[{"type":"message"}],
            "usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":2},"output_tokens":5,
            "output_tokens_details":{"reasoning_tokens":1},"total_tokens":12}}"#;
        let answer = read(body, false).unwrap();
        assert_eq!(answer.model.as_deref(), Some("gpt-5-mini-2025-08-07"));
        assert_eq!((answer.usage.total, answer.usage.reasoning), (Some(12), Some(1)));
        assert_eq!(answer.output, None);
        assert_eq!(read(body, true).unwrap().output.unwrap().as_str(), r#"[{"type":"message"}]"#);
        assert_eq!(read(b"<html>", true), None);
        assert_eq!(read(b"{}", true), Some(Answer::default()));
    }

    fn lookup(more: &str, tls: &str) -> Result<Option<Lookup>, BuildError> {
        let table = format!(
            "public_key = \"pk-lf-1\"\nsecret_key = \"sk-lf-1\"\n{more}\n\
             lookup = {{ api_key = \"sk-test\", timeout = \"200ms\"{tls} }}"
        );
        Lookup::new(&parse(DeTable::parse(&table).unwrap()).unwrap())
    }

    #[test]
    fn the_certificates_of_langfuse_are_not_those_of_openai() {
        assert!(lookup("tls = { ca_file = \"not-there.pem\" }", "").is_ok());
        let own = lookup("", ", tls = { ca_file = \"not-there.pem\" }").unwrap_err();
        assert!(own.to_string().contains("not-there.pem"), "{own}");
    }

    /// Returns an address that answers so many requests with "not found", and accepts the others without an answer.
    async fn answers_only(count: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                if kept.len() < count {
                    let mut head = [0; 2048];
                    assert_ne!(stream.read(&mut head).await.unwrap(), 0);
                    let none =
                        b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(none).await.unwrap();
                }
                kept.push(stream);
            }
        });
        format!(", endpoint = \"http://{address}\"")
    }

    #[tokio::test]
    async fn more_ids_than_there_is_time_for_do_not_stop_the_asking_but_silence_does() {
        for (answered, is_paused) in [(1, false), (0, true)] {
            let lookup = lookup("", &answers_only(answered).await).unwrap().unwrap();
            let ids = (0..3 * UNDER_WAY_MAX).map(|id| Text::from(format!("resp_{id}")));
            lookup.ask(ids.collect()).await;
            assert_eq!(lookup.memory().paused_until.is_some(), is_paused, "{answered}");
            let known = (0..3 * UNDER_WAY_MAX)
                .all(|id| lookup.memory().answers.get(&*format!("resp_{id}")).is_some());
            assert!(known);
        }
    }

    #[test]
    fn only_ids_of_openai_are_asked_for() {
        assert!(is_id(&Text::from_static("resp_68b2a0c1")));
        for odd in ["", "chatcmpl-1", "resp_../../models", "resp_a?b", "resp_a b"] {
            assert!(!is_id(&Text::from_static(odd)), "{odd}");
        }
    }
}
