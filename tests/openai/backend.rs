//! OpenAI's ingest in this process, as far as it is known: what it accepts, what it refuses, and with which messages.
//!
//! The refusals of the real one are known from issues of both SDKs: values over 100 kB, unknown members of `span_data` and of `usage`,
//! `usage` on other types of spans, non-text metadata of traces, unknown keys, and organisations without data retention. It refuses a
//! request as a whole and names the first invalid item.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use spanferry::support::json::raw::Raw;
use tokio::net::TcpListener;

/// Maximum number of items per request.
const ITEMS_MAX: usize = 128;
/// Maximum size of `input` and `output`.
const FIELD_BYTES_MAX: usize = 100_000;

/// An accepted request.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) headers: HashMap<String, String>,
    /// Its items, as sent.
    pub(crate) items: Vec<String>,
    pub(crate) body: String,
}

/// State of an organisation's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyState {
    Good,
    Bad,
    Zdr,
}

/// An answer that replaces the check of the request.
#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u32>,
    pub(crate) body: String,
}

/// OpenAI; clones share their state.
#[derive(Clone, Default)]
pub(crate) struct OpenAiBackend {
    script: Arc<Mutex<VecDeque<Scripted>>>,
    got: Arc<Mutex<Vec<Got>>>,
    refused: Arc<Mutex<Vec<(u16, String)>>>,
    keys: Arc<Mutex<HashMap<String, KeyState>>>,
    /// Accepts any list of items, so that tests can inspect it.
    is_lenient: bool,
}

impl OpenAiBackend {
    /// Returns one that accepts every item, whatever its contents.
    pub(crate) fn lenient() -> Self {
        Self { is_lenient: true, ..Self::default() }
    }

    /// Listens; returns the address of the ingest.
    pub(crate) async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new()
            .route("/v1/traces/ingest", axum::routing::post(ingest))
            .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}/v1/traces/ingest")
    }

    /// Sets the answers to the next requests.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = (u16, Option<u32>, String)>) {
        let scripted = |(status, retry_after, body)| Scripted { status, retry_after, body };
        self.script.lock().unwrap().extend(steps.into_iter().map(scripted));
    }

    /// Sets the state of a key; keys are good by default.
    pub(crate) fn set_key(&self, key: &str, state: KeyState) {
        self.keys.lock().unwrap().insert(key.to_owned(), state);
    }

    /// Returns the accepted requests.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Returns the accepted items.
    pub(crate) fn items(&self) -> Vec<String> {
        self.got().into_iter().flat_map(|got| got.items).collect()
    }

    /// Returns the items accepted with this key.
    pub(crate) fn items_of(&self, key: &str) -> Vec<String> {
        let of_key = |got: &Got| got.headers["authorization"] == format!("Bearer {key}");
        self.got().into_iter().filter(of_key).flat_map(|got| got.items).collect()
    }

    /// Returns status and body of all refusals.
    pub(crate) fn refused(&self) -> Vec<(u16, String)> {
        self.refused.lock().unwrap().clone()
    }

    fn look(&self, headers: &HeaderMap, body: &str) -> Result<Vec<String>, Refusal> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let key = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let Some(key) = key else {
            return Err(Refusal::new(401, "You didn't provide an API key.", None, None));
        };
        match self.keys.lock().unwrap().get(key).copied().unwrap_or(KeyState::Good) {
            KeyState::Good => {}
            KeyState::Bad => {
                let said = format!("Incorrect API key provided: {key}.");
                return Err(Refusal::new(401, &said, None, Some("invalid_api_key")));
            }
            KeyState::Zdr => {
                let said =
                    "Traces ingestion is not permitted for zero data retention organizations.";
                return Err(Refusal::new(403, said, None, Some("zdr_forbidden")));
            }
        }
        let is_beta = header("openai-beta") == Some("traces=v1");
        if !is_beta || header("content-type") != Some("application/json") {
            return Err(Refusal::new(400, "not as the SDKs send it", None, Some("invalid_beta")));
        }
        assert!(header("content-length").is_some(), "the SDKs always say the length");
        let data = Raw::parse(body).and_then(|body| body.get("data"));
        let Some(data) = data.filter(|data| data.is_array()) else {
            return Err(Refusal::new(400, "expected an array", Some("data"), Some("invalid_type")));
        };
        let items: Vec<String> = data.elements().map(|item| item.text().to_owned()).collect();
        if ITEMS_MAX < items.len() {
            let code = Some("array_above_max_length");
            return Err(Refusal::new(400, "Invalid 'data': array too long.", Some("data"), code));
        }
        for (index, item) in items.iter().enumerate().filter(|_| !self.is_lenient) {
            check_item(item).map_err(|mut refusal| {
                refusal.put_at(&format!("data[{index}]"));
                refusal
            })?;
        }
        Ok(items)
    }
}

async fn ingest(State(backend): State<OpenAiBackend>, headers: HeaderMap, body: Bytes) -> Response {
    let scripted = backend.script.lock().unwrap().pop_front();
    if let Some(Scripted { status, retry_after, body }) = scripted {
        let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert("retry-after", seconds.into());
        }
        return response;
    }
    let body = String::from_utf8(body.to_vec()).unwrap();
    match backend.look(&headers, &body) {
        Ok(items) => {
            let pair = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
                (name.to_string(), value.to_str().unwrap().to_owned())
            };
            let headers = headers.iter().map(pair).collect();
            backend.got.lock().unwrap().push(Got { headers, items, body });
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => {
            let body = refusal.body();
            backend.refused.lock().unwrap().push((refusal.status, body.clone()));
            (StatusCode::from_u16(refusal.status).unwrap(), body).into_response()
        }
    }
}

/// Why a request is refused.
#[derive(Debug)]
struct Refusal {
    status: u16,
    said: String,
    param: Option<String>,
    code: Option<String>,
}

impl Refusal {
    fn new(status: u16, said: &str, param: Option<&str>, code: Option<&str>) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self { status, said: said.to_owned(), param: owned(param), code: owned(code) }
    }

    fn unknown(param: &str) -> Self {
        Self::new(400, "Unknown parameter: '%'.", Some(param), Some("unknown_parameter"))
    }

    /// Adds the item's index to the message.
    fn put_at(&mut self, item: &str) {
        let whole = match self.param.as_deref() {
            Some("") | None => item.to_owned(),
            Some(param) => format!("{item}.{param}"),
        };
        self.said = self.said.replace('%', &whole);
        self.param = self.code.is_some().then_some(whole);
    }

    fn body(&self) -> String {
        json!({ "error": {
            "message": self.said, "type": "invalid_request_error",
            "param": self.param, "code": self.code,
        } })
        .to_string()
    }
}

fn check_item(item: &str) -> Result<(), Refusal> {
    let deep = Raw::parse(item)
        .ok_or_else(|| Refusal::new(400, "no JSON", Some(""), Some("invalid_json")))?;
    let members =
        |value: Raw<'_>| value.members().map(|(name, _)| name.into_owned()).collect::<Vec<_>>();
    let known: &[&str] = match deep.get_string("object").as_deref() {
        Some("trace") => &["object", "id", "workflow_name", "group_id", "metadata"],
        Some("trace.span") => &[
            "object",
            "id",
            "trace_id",
            "parent_id",
            "started_at",
            "ended_at",
            "span_data",
            "error",
            "metadata",
        ],
        _ => {
            return Err(Refusal::new(
                400,
                "Invalid value: '%.object'.",
                Some("object"),
                Some("invalid_value"),
            ));
        }
    };
    if let Some(name) = members(deep).iter().find(|name| !known.contains(&name.as_str())) {
        return Err(Refusal::unknown(name));
    }
    if deep.get_string("object").as_deref() == Some("trace") {
        for (name, value) in deep.get("metadata").into_iter().flat_map(Raw::members) {
            if value.string().is_none() {
                let said = "Invalid type for '%': expected a string.";
                return Err(Refusal::new(
                    400,
                    said,
                    Some(&format!("metadata.{name}")),
                    Some("invalid_type"),
                ));
            }
        }
        return Ok(());
    }
    match deep.get("span_data") {
        Some(data) => check_data(data),
        None => Err(Refusal::new(
            400,
            "Missing '%'.",
            Some("span_data"),
            Some("missing_required_parameter"),
        )),
    }
}

/// Returns the members of `span_data` by its type.
fn known_of(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "agent" => &["name", "handoffs", "tools", "output_type"],
        "generation" => &["input", "output", "model", "model_config", "usage"],
        "response" => &["response_id"],
        "function" => &["name", "input", "output", "mcp_data"],
        "handoff" => &["from_agent", "to_agent"],
        "guardrail" => &["name", "triggered"],
        "custom" => &["name", "data"],
        "mcp_tools" => &["server", "result"],
        "transcription" => &["input", "output", "model", "model_config"],
        "speech" => &["input", "output", "model", "model_config", "first_content_at"],
        "speech_group" | "speech-group" => &["input"],
        _ => return None,
    })
}

fn check_data(data: Raw<'_>) -> Result<(), Refusal> {
    let kind = data.get_string("type").unwrap_or_default();
    let Some(known) = known_of(&kind) else {
        return Err(Refusal::new(
            400,
            "Invalid value: '%'.",
            Some("span_data.type"),
            Some("invalid_value"),
        ));
    };
    for (name, value) in data.members() {
        if name != "type" && !known.contains(&&*name) {
            return Err(Refusal::unknown(&format!("span_data.{name}")));
        }
        let size = |value: Raw<'_>| {
            let mut text = Vec::new();
            spanferry::support::json::write_shortest(&mut text, value.text());
            text.len()
        };
        if ["input", "output"].contains(&&*name) && FIELD_BYTES_MAX < size(value) {
            // This refusal has no code; only the message identifies it.
            let said = "Invalid '%': data payload too large. Expected a JSON value under 100KB.";
            return Err(Refusal::new(400, said, Some(&format!("span_data.{name}")), None));
        }
        if name == "usage" {
            let unknown = value
                .members()
                .find(|(name, _)| !["input_tokens", "output_tokens", "details"].contains(&&**name));
            if let Some((name, _)) = unknown {
                return Err(Refusal::unknown(&format!("span_data.usage.{name}")));
            }
        }
    }
    Ok(())
}

/// Parses an item.
pub(crate) fn tree(item: &str) -> Value {
    serde_json::from_str(item).unwrap()
}
