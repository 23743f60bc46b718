//! An in-process backend. It treats documents, versions, order, size and `filter_path` like a real one, and fails on demand.
//! Statuses and error types are those of real servers; see the table of transcripts in `answers.rs`.

mod search;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Map, Value as Json, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// A server on its own port.
pub(crate) struct Fake {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

/// How the server differs from a usual one.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a habit of its own")]
pub(crate) struct Manner {
    /// The answer to `GET /`.
    pub(super) root: Json,
    /// Whether it behaves like Quickwit: only `create`, no ids, no filter, no templates, no updates.
    pub(super) is_quickwit: bool,
    /// The largest body, in bytes after decompression.
    pub(super) content_bytes_max: usize,
    /// Whether it closes the connection on a larger one.
    pub(super) resets_large: bool,
    /// Whether the first document creates its index.
    pub(super) makes_indices: bool,
    /// The time after which a document can be found.
    pub(super) refresh: Duration,
    /// Whether answers contain `_seq_no`.
    pub(super) has_seq: bool,
    /// Whether documents may be read.
    pub(super) may_read: bool,
    /// Whether other indices may be read, so that a request is accepted, and each of its parts denied.
    pub(super) may_read_others: bool,
    /// Whether the key is known at all.
    pub(super) is_authorized: bool,
    /// Field types that it rejects in templates.
    pub(super) unknown_types: Vec<&'static str>,
    /// Whether templates may be installed.
    pub(super) may_manage: bool,
    /// Whether indices may be created directly.
    pub(super) may_make: bool,
    /// The end of the path and a part of the body of requests that it refuses.
    pub(super) refused: Option<(&'static str, String)>,
    /// How much of one bulk request it accepts; `None` for everything.
    pub(super) room: Option<Room>,
}

/// A write queue that is shorter than the number of a request's parts. A request is split by shard, and the parts are queued in a
/// fixed order. Parts without room get a 429.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Shards of each index.
    pub(super) shards: u64,
    /// The number of a request's parts that have room.
    pub(super) parts: usize,
    /// The seed of the order.
    pub(super) order: u64,
}

impl Room {
    /// Returns the position of a document's part in the order.
    fn place(self, index: &str, id: &str) -> u64 {
        let hash = |value: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            value(&mut hasher);
            hasher.finish()
        };
        let shard = hash(&|hasher| id.hash(hasher)) % self.shards;
        hash(&|hasher| (self.order, index, shard).hash(hasher))
    }

    /// Returns the parts of a request that have room.
    fn taken(self, body: &str) -> BTreeSet<u64> {
        let places = body.lines().step_by(2).map(|action| {
            let action: Json = serde_json::from_str(action).unwrap();
            let metadata = action.as_object().unwrap().values().next().unwrap();
            self.place(metadata["_index"].as_str().unwrap(), metadata["_id"].as_str().unwrap())
        });
        places.collect::<BTreeSet<_>>().into_iter().take(self.parts).collect()
    }
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            root: json!({"version": {"number": "8.15.0"}, "tagline": "You Know, for Search"}),
            is_quickwit: false,
            content_bytes_max: 100 << 20,
            resets_large: false,
            makes_indices: true,
            refresh: Duration::ZERO,
            has_seq: true,
            may_read: true,
            may_read_others: false,
            is_authorized: true,
            unknown_types: Vec::new(),
            may_manage: true,
            may_make: true,
            refused: None,
            room: None,
        }
    }
}

/// A fault of one bulk request.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// The complete request gets this answer, and nothing is stored.
    Whole(u16, Json),
    /// Every n-th line, starting with the first, gets this answer and is not stored.
    Items(usize, u16, Json),
    /// Everything is stored, and the answer is truncated to its first half.
    Cut,
    /// Everything is stored, and the answer names one document more.
    Extra,
    /// Everything is stored, and the connection is closed.
    Reset,
    /// Everything works.
    None,
}

#[derive(Debug, Default)]
struct State {
    manner: Manner,
    indices: BTreeMap<String, BTreeMap<String, Doc>>,
    /// Mappings of indices that were created directly or from a template. The others are guessed.
    mappings: BTreeMap<String, Json>,
    installed: BTreeMap<String, Json>,
    faults: VecDeque<Fault>,
    poison: Vec<&'static str>,
    next_seq: u64,
    log: Vec<Seen>,
    generated: u64,
}

#[derive(Debug, Clone)]
struct Doc {
    source: Json,
    seq: u64,
    /// The first write since it was last searchable.
    at: Instant,
    /// The version that is found until this one is searchable.
    before: Option<Json>,
}

impl Doc {
    /// Returns the version that a search finds.
    fn found(&self, refresh: Duration, now: Instant) -> Option<&Json> {
        if self.at + refresh <= now { Some(&self.source) } else { self.before.as_ref() }
    }
}

/// A received request.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: hyper::HeaderMap,
    /// The decompressed body.
    pub(super) body: Bytes,
}

impl Fake {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { manner, ..State::default() }));
        let served = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&served);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                tokio::spawn(async move {
                    // A connection that a test has closed is not a failure.
                    auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        Self { address, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes the next bulk requests fail, in this order.
    pub(super) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// Rejects documents that contain this text, unless it is in `raw_json`.
    pub(super) fn poison(&self, text: &'static str) {
        self.state().poison.push(text);
    }

    pub(super) fn manner(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.state().manner);
    }

    pub(crate) fn docs(&self, index: &str) -> BTreeMap<String, Json> {
        let state = self.state();
        let docs = state.indices.get(index).into_iter().flatten();
        docs.map(|(id, doc)| (id.clone(), doc.source.clone())).collect()
    }

    pub(super) fn delete(&self, index: &str, id: &str) {
        self.state().indices.get_mut(index).unwrap().remove(id).unwrap();
    }

    /// Deletes an index with its mapping.
    pub(super) fn delete_index(&self, index: &str) {
        let mut state = self.state();
        state.indices.remove(index).unwrap();
        state.mappings.remove(index);
    }

    /// Installs a user's part of a template.
    pub(super) fn install(&self, path: &str, body: Json) {
        self.state().installed.insert(path.to_owned(), body);
    }

    /// Deletes all templates.
    pub(super) fn delete_templates(&self) {
        self.state().installed.retain(|path, _| !path.contains("template"));
    }

    /// Returns an index's mapping; `None` if it was guessed.
    pub(super) fn mapping(&self, index: &str) -> Option<Json> {
        self.state().mappings.get(index).cloned()
    }

    pub(super) fn installed(&self) -> BTreeMap<String, Json> {
        self.state().installed.clone()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state().log.clone()
    }

    pub(super) fn bulks(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path.contains("/_bulk")).collect()
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: hyper::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Reset> {
    let (head, body) = request.into_parts();
    let raw = body.collect().await.map_err(|_| Reset)?.to_bytes();
    let body = if head.headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&raw[..]).read_to_end(&mut plain).unwrap();
        Bytes::from(plain)
    } else {
        raw
    };
    let seen = Seen {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers,
        body,
    };
    let mut state = state.lock().unwrap();
    state.log.push(seen.clone());
    let (status, json) = state.answer(&seen)?;
    let mut text = json.to_string();
    if let Some(cut) = json.get("cut").and_then(Json::as_str) {
        text = cut.to_owned();
    }
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    let headers = response.headers_mut();
    headers.insert("content-type", "application/json".parse().unwrap());
    Ok(response)
}

/// Closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed")]
struct Reset;

type Answer = (u16, Json);

fn error(status: u16, kind: &str, reason: &str) -> Answer {
    (status, json!({"error": {"type": kind, "reason": reason}, "status": status}))
}

impl State {
    fn answer(&mut self, seen: &Seen) -> Result<Answer, Reset> {
        let path = seen.path.split('?').next().unwrap();
        let is_large = self.manner.content_bytes_max < seen.body.len();
        if is_large && self.manner.resets_large {
            return Err(Reset);
        }
        if is_large {
            return Ok((413, json!({})));
        }
        if !self.manner.is_authorized {
            return Ok(error(401, "security_exception", "unable to authenticate user"));
        }
        if let Some((end, part)) = &self.manner.refused
            && path.ends_with(end)
            && String::from_utf8_lossy(&seen.body).contains(part)
        {
            return Ok(error(400, "illegal_argument_exception", "refused"));
        }
        if path.ends_with("/_bulk") {
            return self.bulk(seen);
        }
        if self.manner.is_quickwit && path != "/" {
            return Ok(error(404, "", "Route not found"));
        }
        Ok(match (seen.method.as_str(), path) {
            ("GET", "/") => (200, self.manner.root.clone()),
            (_, path) if path.ends_with("/_mget") => self.mget(path, &seen.body),
            (_, path) if path.ends_with("search") && !self.manner.may_read => {
                let reason = format!("action [indices:data/read{path}] is unauthorized");
                error(403, "security_exception", &reason)
            }
            (_, path) if path.ends_with("/_msearch") => {
                let lines = seen.body.split(|byte| *byte == b'\n');
                let asked = lines.skip(1).step_by(2);
                let answers: Vec<Json> = asked.map(|body| self.search(path, body)).collect();
                (200, json!({ "responses": answers }))
            }
            ("PUT", path) if path.ends_with("/_mapping") => self.put_mapping(path, &seen.body),
            ("GET", path) if path.ends_with("/_mapping") => {
                let index = path.trim_matches('/').split('/').next().unwrap();
                match self.mappings.get(index) {
                    Some(mapping) => (200, json!({ index: { "mappings": mapping } })),
                    None => error(404, "index_not_found_exception", "no such index"),
                }
            }
            ("POST", path) if path.starts_with("/_index_template/_simulate_index/") => {
                let mapping = self.composed(path.rsplit('/').next().unwrap());
                (200, json!({ "template": { "mappings": mapping } }))
            }
            ("POST", path) if path.ends_with("/_rollover") => {
                error(400, "illegal_argument_exception", "rollover target is not an alias")
            }
            ("HEAD", path) => match self.indices.get(path.trim_matches('/')) {
                Some(_) => (200, json!({})),
                None => (404, json!({})),
            },
            ("POST", "/_security/user/_has_privileges") => {
                (200, json!({"has_all_requested": true}))
            }
            ("GET", path) => match self.installed.get(path) {
                Some(body) => (200, json!({ "found": [body] })),
                None => (404, json!({})),
            },
            ("PUT", path) => self.put(path, &seen.body),
            _ => error(405, "", "method not allowed"),
        })
    }

    fn put(&mut self, path: &str, body: &[u8]) -> Answer {
        let body: Json = serde_json::from_slice(body).unwrap();
        if path.starts_with("/_") {
            if !self.manner.may_manage {
                let reason = "action [cluster:admin/component_template/put] is unauthorized";
                return error(403, "security_exception", reason);
            }
            let text = body.to_string();
            let kinds = &self.manner.unknown_types;
            if let Some(kind) = kinds.iter().find(|kind| text.contains(&format!("\"{kind}\""))) {
                let reason = format!("No handler for type [{kind}] declared on field [attributes]");
                return error(400, "mapper_parsing_exception", &reason);
            }
            let timestamp = &body["template"]["mappings"]["properties"]["@timestamp"]["type"];
            let template = self.installed.get("/_index_template/agent-traces-spans");
            let is_stream = template.is_some_and(|template| template["data_stream"].is_object());
            if path.contains("spans@mappings") && is_stream && timestamp == "alias" {
                let reason = "data stream timestamp field [@timestamp] is of type [alias]";
                return error(400, "illegal_argument_exception", reason);
            }
            self.installed.insert(path.to_owned(), body);
            return (200, json!({"acknowledged": true}));
        }
        let index = path.trim_start_matches('/');
        if self.indices.contains_key(index) {
            return error(400, "resource_already_exists_exception", "already exists");
        }
        if !self.manner.may_make {
            let reason = "action [indices:admin/create] is unauthorized";
            return error(403, "security_exception", reason);
        }
        self.indices.insert(index.to_owned(), BTreeMap::new());
        self.mappings.insert(index.to_owned(), body["mappings"].clone());
        self.installed.insert(path.to_owned(), body);
        (200, json!({"acknowledged": true}))
    }

    /// Adds fields to an index. Existing fields keep their types.
    fn put_mapping(&mut self, path: &str, body: &[u8]) -> Answer {
        let target = path.trim_matches('/').split('/').next().unwrap();
        let named = |name: &&String| {
            target.strip_suffix('*').map_or(*name == target, |of| name.starts_with(of))
        };
        let index = self.indices.keys().find(named).cloned().unwrap_or_default();
        let body: Json = serde_json::from_slice(body).unwrap();
        if !self.indices.contains_key(&index) {
            return error(404, "index_not_found_exception", "no such index");
        }
        let Some(mapping) = self.mappings.get_mut(&index) else {
            // Observed with Elasticsearch 7.17; other conflicts are 400.
            let reason = "the [enabled] parameter can't be updated for the object mapping [input]";
            return error(500, "mapper_exception", reason);
        };
        for (name, field) in body["properties"].as_object().unwrap() {
            let known = &mapping["properties"][name];
            if !known.is_null() && known["type"] != field["type"] {
                let reason =
                    format!("mapper [{name}] cannot be changed from type {}", known["type"]);
                return error(400, "illegal_argument_exception", &reason);
            }
        }
        *mapping = body;
        (200, json!({"acknowledged": true}))
    }

    /// Creates an index for its first document, from its template if it has one.
    fn make_index(&mut self, index: &str) {
        self.indices.insert(index.to_owned(), BTreeMap::new());
        let named = |prefix: &str| index == prefix || index.starts_with(&format!("{prefix}-"));
        let templates =
            self.installed.keys().filter_map(|path| path.strip_prefix("/_index_template/"));
        let prefix = templates.filter(|of| named(of)).max_by_key(|of| of.len());
        let mapping = prefix.map(|prefix| self.composed(prefix));
        if let Some(mapping) = mapping {
            self.mappings.insert(index.to_owned(), mapping);
        }
    }

    /// Returns the mapping that an index gets from its template.
    fn composed(&self, prefix: &str) -> Json {
        let part = |name: &str| {
            let path = format!("/_component_template/{prefix}@{name}");
            self.installed.get(&path).map(|part| part["template"]["mappings"].clone())
        };
        let mut mapping = part("mappings").unwrap_or_default();
        if let Some(custom) = part("custom").filter(|custom| !custom.is_null()) {
            merge(&mut mapping, custom);
        }
        mapping
    }

    // === Bulk ===

    fn bulk(&mut self, seen: &Seen) -> Result<Answer, Reset> {
        let fault = self.faults.pop_front().unwrap_or(Fault::None);
        if let Fault::Whole(status, body) = fault {
            return Ok((status, body));
        }
        if !seen.body.ends_with(b"\n") {
            let reason = "The bulk request must be terminated by a newline [\\n]";
            return Ok(error(400, "illegal_argument_exception", reason));
        }
        let text = String::from_utf8(seen.body.to_vec()).unwrap();
        let room = self.manner.room.map(|room| (room, room.taken(&text)));
        let mut lines = text.lines();
        let mut items = Vec::new();
        while let Some(action) = lines.next() {
            let action: Json = serde_json::from_str(action).unwrap();
            let (op, metadata) = action.as_object().unwrap().iter().next().unwrap();
            let known = ["_index", "_id", "if_seq_no", "if_primary_term", "retry_on_conflict"];
            if metadata.as_object().unwrap().keys().any(|key| !known.contains(&key.as_str())) {
                return Ok(error(400, "illegal_argument_exception", "unknown parameter"));
            }
            let id = metadata["_id"].as_str().map(str::to_owned);
            if id.as_ref().is_some_and(|id| 512 < id.len()) {
                return Ok(error(400, "action_request_validation_exception", "id is too long"));
            }
            let source = lines.next().unwrap();
            let number = items.len();
            let is_left_out = room.as_ref().is_some_and(|(room, taken)| {
                let index = metadata["_index"].as_str().unwrap();
                !taken.contains(&room.place(index, id.as_deref().unwrap()))
            });
            let (status, body) = match &fault {
                _ if is_left_out => error(429, "es_rejected_execution_exception", "queue is full"),
                Fault::Items(every, status, body) if number.is_multiple_of(*every) => {
                    (*status, json!({ "error": body }))
                }
                _ => self.apply(op, metadata, id, source),
            };
            let mut item = body.as_object().unwrap().clone();
            item.insert("status".to_owned(), status.into());
            let op = if self.manner.is_quickwit { "index" } else { op };
            items.push(json!({ op: item }));
        }
        let answer = if self.manner.is_quickwit || !seen.path.contains("filter_path") {
            json!({"took": 1, "errors": false, "items": items})
        } else {
            json!({"errors": false, "items": items.iter().map(filtered).collect::<Vec<_>>()})
        };
        match fault {
            Fault::Cut => {
                let text = answer.to_string();
                Ok((200, json!({ "cut": text.split_at(text.len() / 2).0 })))
            }
            Fault::Extra => {
                items.push(json!({"index": {"status": 201}}));
                Ok((200, json!({ "items": items })))
            }
            Fault::Reset => Err(Reset),
            _ => Ok((200, answer)),
        }
    }

    fn apply(&mut self, op: &str, metadata: &Json, id: Option<String>, text: &str) -> Answer {
        let index = metadata["_index"].as_str().unwrap().to_owned();
        if self.manner.is_quickwit {
            if op == "update" {
                return error(400, "", "unknown variant");
            }
            return self.insert(&index, None, serde_json::from_str(text).unwrap(), true);
        }
        if !self.indices.contains_key(&index) {
            if !self.manner.makes_indices {
                let reason = format!("no such index [{index}]");
                return error(404, "index_not_found_exception", &reason);
            }
            self.make_index(&index);
        }
        let mut source: Json = match serde_json::from_str(text) {
            Ok(source) => source,
            Err(_) => return error(400, "mapper_parsing_exception", "failed to parse"),
        };
        let mut looked_at = source.clone();
        looked_at.as_object_mut().unwrap().remove("raw_json");
        let looked_at = looked_at.to_string();
        if self.poison.iter().any(|poison| looked_at.contains(poison)) {
            let reason = format!("failed to parse field in {looked_at}");
            return error(400, "document_parsing_exception", &reason);
        }
        let is_alias = |name: &&String| {
            self.mappings.get(&index).is_some_and(|m| m["properties"][*name]["type"] == "alias")
        };
        if let Some(name) = source.as_object().unwrap().keys().find(is_alias) {
            let reason = format!("Cannot write to a field alias [{name}].");
            return error(400, "document_parsing_exception", &reason);
        }
        let known = id.as_ref().and_then(|id| self.indices[&index].get(id)).cloned();
        let conflict = || error(409, "version_conflict_engine_exception", "version conflict");
        match (op, known) {
            ("create", Some(_)) => conflict(),
            ("index", known) if metadata.get("if_seq_no").is_some() => {
                let wanted = metadata["if_seq_no"].as_u64();
                if known.map(|doc| doc.seq) == wanted {
                    self.insert(&index, id, source, false)
                } else {
                    conflict()
                }
            }
            ("update", Some(doc))
                if metadata["if_seq_no"].as_u64().is_some_and(|seq| seq != doc.seq) =>
            {
                conflict()
            }
            ("update", Some(mut doc)) => {
                merge(&mut doc.source, source["doc"].take());
                self.insert(&index, id, doc.source, false)
            }
            ("update", None) if source["upsert"].is_object() => {
                self.insert(&index, id, source["upsert"].take(), true)
            }
            ("update", None) => error(404, "document_missing_exception", "document missing"),
            (_, known) => self.insert(&index, id, source, known.is_none()),
        }
    }

    fn insert(&mut self, index: &str, id: Option<String>, source: Json, is_new: bool) -> Answer {
        self.generated += 1;
        let id = id.unwrap_or_else(|| format!("generated-{}", self.generated));
        // A new index counts from 0.
        let is_first = self.indices.get(index).is_none_or(BTreeMap::is_empty);
        self.next_seq += 1;
        let seq = if is_first { 0 } else { self.next_seq };
        let (now, refresh) = (Instant::now(), self.manner.refresh);
        let docs = self.indices.entry(index.to_owned()).or_default();
        let known = docs.get(&id);
        let before = known.and_then(|doc| doc.found(refresh, now)).cloned();
        let at = known.map(|doc| doc.at).filter(|at| now < *at + refresh).unwrap_or(now);
        docs.insert(id, Doc { source, seq, at, before });
        let mut answer = json!({"_seq_no": seq, "_primary_term": 1});
        if !self.manner.has_seq {
            answer = json!({});
        }
        if self.manner.is_quickwit {
            answer = json!({ "error": null });
        }
        (if is_new { 201 } else { 200 }, answer)
    }
}

fn filtered(item: &Json) -> Json {
    let (op, said) = item.as_object().unwrap().iter().next().unwrap();
    let kept = ["status", "error", "_seq_no", "_primary_term", "failure_store"];
    let said: Map<_, _> = said
        .as_object()
        .unwrap()
        .iter()
        .filter(|(key, _)| kept.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    json!({ op: said })
}

fn merge(into: &mut Json, from: Json) {
    match (into, from) {
        (Json::Object(into), Json::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Json::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
