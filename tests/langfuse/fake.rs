//! A Langfuse in this process: it answers, accepts and loses requests as Langfuse 4.16.0 does.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::mapping::{self, Row};

pub(crate) const PUBLIC_KEY: &str = "pk-lf-1234";
pub(crate) const SECRET_KEY: &str = "sk-lf-5678";
/// `pk-lf-1234:sk-lf-5678` in base64.
const BASIC: &str = "Basic cGstbGYtMTIzNDpzay1sZi01Njc4";

/// The fault of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Its blob storage is down.
    NoStorage,
    /// Its queue is down: it never answers. The request is not kept.
    NoQueue,
    /// Its queue failed just after it kept the request: it never answers either.
    KeptWithoutAnswer,
    /// Its database is down.
    NoDatabase,
    /// Too many requests; the client must wait this many seconds.
    Limited(u64),
    /// The body is too large, whatever its size.
    TooLarge,
    /// The keys were revoked.
    Unauthorized,
    /// No fault.
    Good,
}

/// A request that was kept.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) headers: BTreeMap<String, String>,
    /// As sent.
    pub(crate) body: Bytes,
    /// Decompressed.
    pub(crate) message: Bytes,
}

#[derive(Default)]
struct Kept {
    script: VecDeque<Step>,
    /// Every request, including those that were not kept.
    seen: Vec<Post>,
    posts: Vec<Post>,
    rows: Vec<Row>,
    /// Requests that were answered with 200 and then lost.
    lost: Vec<String>,
    has_revoked_keys: bool,
    /// Keys of additional projects, as sent.
    more_keys: Vec<String>,
    body_bytes_max: Option<usize>,
    /// A span of this name makes its entire request invalid.
    poison: Option<String>,
    version: String,
}

/// A server; clones share its state.
#[derive(Clone)]
pub(crate) struct Fake {
    kept: Arc<Mutex<Kept>>,
    pub(crate) url: String,
}

impl Fake {
    /// Starts to listen.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = Kept { version: "4.16.0".to_owned(), ..Kept::default() };
        let fake = Self { kept: Arc::new(Mutex::new(kept)), url };
        let app = axum::Router::new()
            .route("/api/public/otel/v1/traces", post(traces))
            .route("/api/public/health", get(health))
            .route("/api/public/projects", get(projects))
            .layer(DefaultBodyLimit::disable())
            .with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        fake
    }

    /// Returns the options of a sink that sends here.
    pub(crate) fn options(&self) -> String {
        format!(
            "base_url = {:?}\npublic_key = \"{PUBLIC_KEY}\"\nsecret_key = \"{SECRET_KEY}\"\n",
            self.url
        )
    }

    /// Sets the faults of the next requests; those after them are accepted.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.kept.lock().unwrap().script.extend(steps);
    }

    pub(crate) fn revoke_keys(&self, is_revoked: bool) {
        self.kept.lock().unwrap().has_revoked_keys = is_revoked;
    }

    /// Accepts these keys, as sent, as those of another project.
    pub(crate) fn add_project(&self, basic: &str) {
        self.kept.lock().unwrap().more_keys.push(basic.to_owned());
    }

    pub(crate) fn limit_bodies(&self, bytes_max: usize) {
        self.kept.lock().unwrap().body_bytes_max = Some(bytes_max);
    }

    pub(crate) fn poison(&self, name: &str) {
        self.kept.lock().unwrap().poison = Some(name.to_owned());
    }

    pub(crate) fn set_version(&self, version: &str) {
        version.clone_into(&mut self.kept.lock().unwrap().version);
    }

    /// Returns every row that was written, in order.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.kept.lock().unwrap().rows.clone()
    }

    /// Returns the rows after the database has merged them: for each trace, id and start, the last one written.
    pub(crate) fn merged(&self) -> Vec<Row> {
        let rows = self.rows().into_iter();
        let key = |row: &Row| (row.trace.clone(), row.id.clone(), row.start_ms);
        rows.map(|row| (key(&row), row)).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    pub(crate) fn posts(&self) -> Vec<Post> {
        self.kept.lock().unwrap().posts.clone()
    }

    /// Returns every request, including those that were not kept.
    pub(crate) fn seen(&self) -> Vec<Post> {
        self.kept.lock().unwrap().seen.clone()
    }

    pub(crate) fn lost(&self) -> Vec<String> {
        self.kept.lock().unwrap().lost.clone()
    }

    fn keep(&self, post: Post, request: &ExportTraceServiceRequest) {
        let mut kept = self.kept.lock().unwrap();
        kept.posts.push(post);
        match mapping::rows(request) {
            Ok(rows) => kept.rows.extend(rows),
            // The queue tries six times, and then drops the job.
            Err(reason) => kept.lost.push(reason),
        }
    }
}

fn error(status: u16, message: &str) -> Response {
    let body = json!({ "error": message }).to_string();
    (StatusCode::from_u16(status).unwrap(), [("content-type", "application/json")], body)
        .into_response()
}

async fn traces(State(fake): State<Fake>, headers: HeaderMap, body: Bytes) -> Response {
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let step = fake.kept.lock().unwrap().script.pop_front().unwrap_or(Step::Good);
    if let Some(refused) = refused(&fake, header("authorization"), step) {
        return refused;
    }
    if step == Step::NoDatabase {
        return error(503, "Service unavailable");
    }
    if let Step::Limited(seconds) = step {
        let mut answer = error(429, "Rate limit exceeded");
        answer.headers_mut().insert("retry-after", seconds.to_string().parse().unwrap());
        return answer;
    }
    let media_type = header("content-type");
    if !media_type.contains("application/x-protobuf") {
        return error(400, "Invalid content type");
    }
    match header("x-langfuse-ingestion-version") {
        "" => {}
        text => match text.parse::<u32>() {
            Ok(version) if version <= 4 => {}
            _ => return error(400, "Invalid x-langfuse-ingestion-version"),
        },
    }
    let Some(message) = inflated(header("content-encoding"), &body) else {
        return error(400, "Failed to decompress gzip");
    };
    let pairs = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
    let seen = Post { headers: pairs.collect(), body, message: message.clone() };
    fake.kept.lock().unwrap().seen.push(seen.clone());
    let bytes_max = fake.kept.lock().unwrap().body_bytes_max.unwrap_or(usize::MAX);
    if step == Step::TooLarge || bytes_max < message.len() {
        return error(413, "Payload too large");
    }
    let Ok(request) = ExportTraceServiceRequest::decode(&*message) else {
        return error(400, "Failed to parse OTel Protobuf Trace");
    };
    let spans = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    let mut spans = spans.flat_map(|scope| &scope.spans);
    let poison = fake.kept.lock().unwrap().poison.clone();
    if spans.any(|span| {
        span.trace_id.is_empty() || span.span_id.is_empty() || Some(&span.name) == poison.as_ref()
    }) {
        return error(400, "The entire export was rejected and no spans were ingested");
    }
    if request.resource_spans.is_empty() {
        return ([("content-type", "application/json")], "{}").into_response();
    }
    match step {
        Step::NoStorage => return error(500, "Failed to upload JSON to S3"),
        Step::NoQueue => std::future::pending().await,
        _ => fake.keep(seen, &request),
    }
    if step == Step::KeptWithoutAnswer {
        tokio::time::sleep(Duration::from_mins(10)).await;
    }
    // The job of a queue, also for protobuf: not an ExportTraceServiceResponse.
    let job = json!({
        "name": "otel-ingestion-job", "id": "123", "opts": { "attempts": 6 }, "data": { "payload": {} },
        "stacktrace": [], "returnvalue": null
    });
    ([("content-type", "application/json")], job.to_string()).into_response()
}

/// Decompresses gzip; other encodings stay as they are, and are then invalid messages.
fn inflated(coding: &str, body: &Bytes) -> Option<Bytes> {
    if coding != "gzip" {
        return Some(body.clone());
    }
    let mut out = Vec::new();
    GzDecoder::new(&**body).read_to_end(&mut out).ok()?;
    Some(out.into())
}

/// Returns the refusal of invalid keys; `None` if they are valid.
fn refused(fake: &Fake, given: &str, step: Step) -> Option<Response> {
    if given.starts_with("Bearer ") {
        return Some(error(403, "Access denied - need to use basic auth with secret key"));
    }
    let is_revoked = fake.kept.lock().unwrap().has_revoked_keys || step == Step::Unauthorized;
    let is_known =
        given == BASIC || fake.kept.lock().unwrap().more_keys.iter().any(|key| key == given);
    (!is_known || is_revoked).then(|| error(401, "Invalid credentials"))
}

async fn health(State(fake): State<Fake>) -> Response {
    let version = fake.kept.lock().unwrap().version.clone();
    axum_json(&json!({ "status": "OK", "version": version }))
}

async fn projects(State(fake): State<Fake>, headers: HeaderMap) -> Response {
    let given =
        headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let project = json!({ "data": [{ "id": "p1", "name": "shop" }] });
    refused(&fake, given, Step::Good).unwrap_or_else(|| axum_json(&project))
}

fn axum_json(body: &Value) -> Response {
    ([("content-type", "application/json")], body.to_string()).into_response()
}
