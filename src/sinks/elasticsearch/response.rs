//! Answers become classes, document by document. Pure.
//!
//! A whole answer:
//!
//! | answer | what becomes of the request |
//! |---|---|
//! | 200 with as many items as were sent | each item is judged alone, whatever `errors` says |
//! | 200 with another number of items, or that cannot be read | again: documents have ids |
//! | 400 | halves: one bad action line fails the whole request |
//! | 413 | too large: less from now on, and halves |
//! | 429, 503 | throttled |
//! | 401, 402, 403, 404, 405, redirects, web pages | stop: an operator has to mend it |
//! | 408, 502, 504, 500, no answer | again |
//! | 500 because of the end of a line | fault: some times, then halves |
//!
//! An item: [`Class`]. Elasticsearch 7 to 9 and OpenSearch 1 to 3 differ in a status here and there, seldom in `error.type`.

use std::borrow::Cow;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::sinks::http::classify::StatusClass;
use crate::sinks::http::{Response, shortened};
use crate::sinks::{RejectClass, Report};

/// What an answer to a bulk request needs to have. `failure_store` says of a document that it was set aside although its status
/// is 201.
pub(super) const FILTER_PATH: &str = "errors,items.*.status,items.*.error.type,items.*.error.reason,\
     items.*._seq_no,items.*.failure_store";

/// What a bulk answer says of one document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Answer<'a> {
    /// The status; 0 where there is none.
    pub(super) status: u16,
    /// `error.type`; empty without an error.
    pub(super) error: Cow<'a, str>,
    /// `error.reason`. It may quote payload.
    pub(super) reason: Cow<'a, str>,
    /// Whether it is the first document of its index.
    pub(super) is_first: bool,
    pub(super) is_set_aside: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// `create`: there must be none yet.
    Create,
    /// `index`: it takes the place of what is there.
    Index,
    /// `update`: part of one that is there.
    Update,
    /// `index` under a condition.
    Conditional,
}

impl Action {
    pub(super) fn opening(self) -> &'static [u8] {
        match self {
            Self::Create => b"{\"create\":{\"_index\":",
            Self::Index | Self::Conditional => b"{\"index\":{\"_index\":",
            Self::Update => b"{\"update\":{\"_index\":",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    /// It is there.
    Stored,
    /// Somebody else's version is there.
    Conflict,
    /// There is nothing to update.
    Missing,
    /// It is not where it can be searched, but in the failure store. Sending it again would put it there again.
    SetAside,
    Retry,
    Throttled,
    Stop,
    /// There is no index for it; it may help to make one.
    NoIndex,
    /// The document was refused for what is in it.
    Refused,
}

impl Class {
    /// Whether sending the same again would change nothing.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Stored | Self::Conflict | Self::Missing | Self::SetAside | Self::Refused => true,
            Self::Retry | Self::Throttled | Self::Stop | Self::NoIndex => false,
        }
    }
}

/// Reads the answer to a bulk request of so many documents: one for each, or what all share.
pub(super) fn read(response: &Response, documents: usize) -> Result<Vec<Answer<'_>>, Report> {
    let status = response.reason();
    if response.status.is_success() {
        let is_page = response.media_type() == "text/html";
        if is_page && response.status != StatusCode::NO_CONTENT {
            let reason = format!("{status}, but with a web page: this is no bulk endpoint");
            return Err(Report::hold(reason));
        }
        let reason = match items(&response.body) {
            Some(items) if items.len() == documents && !response.is_cut => {
                return Ok(items);
            }
            Some(items) => {
                format!("the answer names {} documents, sent were {documents}", items.len())
            }
            None => "the answer to a bulk request cannot be read".to_owned(),
        };
        return Err(Report::down(None, reason));
    }
    let (error, reason) = error_of(&response.body);
    let brief = || explained(&status, &error, "");
    Err(match response.class() {
        _ if error == BLOCK => Report::hold(explained(&status, &error, &reason)),
        StatusClass::Stop => Report::hold(explained(&status, &error, &reason)),
        StatusClass::TooLarge => Report::split(RejectClass::TooLarge, status, response.answer()),
        // Elasticsearch 7.0 answers a broken action line like that.
        StatusClass::Fault if error.contains("e_o_f_exception") => {
            Report::fault(brief(), response.answer())
        }
        StatusClass::Fault | StatusClass::Taken => Report::down(None, brief()),
        other => other.report(brief(), || response.answer()),
    })
}

/// What an answer says of a document that was sent like this.
pub(super) fn judge(answer: &Answer<'_>, action: Action) -> Class {
    if answer.is_set_aside {
        return Class::SetAside;
    }
    let error: &str = &answer.error;
    match (answer.status, error) {
        (200..=299, _) => Class::Stored,
        (_, BLOCK) => Class::Stop,
        (409, _) => match action {
            // Another version that is newer.
            Action::Index => Class::Stored,
            // Somebody else changed it meanwhile; the change is not in it.
            Action::Update => Class::Retry,
            Action::Create | Action::Conditional => Class::Conflict,
        },
        (404, "document_missing_exception") => Class::Missing,
        (404, "") if action == Action::Update => Class::Missing,
        (_, "index_not_found_exception") if answer.reason.contains("data stream") => Class::Stop,
        (_, "index_not_found_exception") => Class::NoIndex,
        (_, "index_closed_exception" | "invalid_index_name_exception" | "security_exception") => {
            Class::Stop
        }
        (_, "illegal_argument_exception") if is_about_the_index(&answer.reason) => Class::Stop,
        // An index that was made for another `rotation`, which no document fits.
        _ if answer.reason.contains(FIELD_ALIAS) => Class::Stop,
        (429, _) => Class::Throttled,
        (401..=403, _) => Class::Stop,
        // Imitations say no more than that.
        (404, _) => Class::NoIndex,
        (0 | 408 | 500..=599, _) => Class::Retry,
        _ => Class::Refused,
    }
}

/// What an operator needs to know of an answer, without payload text. Reasons of errors about privileges, indices and blocks
/// name these; all others may quote the document and are left out.
pub(super) fn explain(answer: &Answer<'_>, class: &Class) -> String {
    if answer.reason.contains(FIELD_ALIAS) {
        return "the index was made for another `rotation` and takes no such documents; set `rotation` back, or give a new \
                `index_prefix`"
            .to_owned();
    }
    let status = format!("status {}", answer.status);
    let is_safe = matches!(class, Class::Stop | Class::NoIndex);
    explained(&status, &answer.error, if is_safe { &answer.reason } else { "" })
}

pub(super) fn kept(answer: &Answer<'_>) -> String {
    shortened(&format!("{} {}: {}", answer.status, answer.error, answer.reason))
}

/// The error of an answer's body: its type and reason. What is wrong as a whole may say nothing of why, so the innermost cause is said
/// too: "template ... is invalid" because of an "unknown field [`data_stream`]" is how Elasticsearch 7.17 without x-pack says it.
pub(super) fn error_of(body: &[u8]) -> (String, String) {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = answer.get("error").unwrap_or(&Value::Null);
    if let Some(text) = error.as_str() {
        return ("error".to_owned(), text.to_owned());
    }
    let said = |error: &Value, name| {
        error.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let reason = said(error, "reason");
    let cause =
        std::iter::successors(error.get("caused_by"), |cause| cause.get("caused_by")).last();
    let cause = cause.map(|cause| said(cause, "reason")).filter(|cause| !reason.contains(&**cause));
    let reason = cause.map_or_else(|| reason.clone(), |cause| format!("{reason}: {cause}"));
    (said(error, "type"), reason)
}

fn explained(status: &str, error: &str, reason: &str) -> String {
    match (error, reason) {
        ("", _) => status.to_owned(),
        (error, "") => format!("{status}: {error}"),
        (error, reason) => format!("{status}: {error}: {}", shortened(reason)),
    }
}

/// A block of an index or of the cluster: a full disk, read-only. It passes, or an operator lifts it.
const BLOCK: &str = "cluster_block_exception";

/// Errors that say how an index is set up, not what is in the document.
fn is_about_the_index(reason: &str) -> bool {
    const PHRASES: &[&str] = &[
        "data stream",
        "write index",
        "no write alias",
        "hidden index",
        "maximum normal shards open",
    ];
    PHRASES.iter().any(|phrase| reason.contains(phrase))
}

/// Elasticsearch and OpenSearch say it of a value for a field that only names another one.
const FIELD_ALIAS: &str = "Cannot write to a field alias [";

// === Reading ===

fn items(body: &[u8]) -> Option<Vec<Answer<'_>>> {
    #[derive(Deserialize)]
    struct Bulk<'a> {
        #[serde(borrow, default)]
        items: Vec<Item<'a>>,
    }
    let bulk: Bulk<'_> = serde_json::from_slice(body).ok()?;
    let items = bulk.items.into_iter();
    Some(items.map(|item| item.index.map(Answer::from).unwrap_or_default()).collect())
}

/// `{"index": {...}}`, whatever the action was: Quickwit answers `index` to a `create`.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default, alias = "create", alias = "update", alias = "delete")]
    index: Option<Said<'a>>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(default)]
    status: u16,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(default, rename = "_seq_no")]
    number: Option<i64>,
    #[serde(borrow, default)]
    failure_store: Option<&'a RawValue>,
}

impl<'a> From<Said<'a>> for Answer<'a> {
    fn from(said: Said<'a>) -> Self {
        let (error, reason) = said.error.map(error_parts).unwrap_or_default();
        let store = said.failure_store.map_or("", RawValue::get);
        let is_set_aside = store == "\"used\"" && (200..300).contains(&said.status);
        Self { status: said.status, error, reason, is_first: said.number == Some(0), is_set_aside }
    }
}

/// The type and reason of an error. Old and odd servers say only a text.
fn error_parts(error: &RawValue) -> (Cow<'_, str>, Cow<'_, str>) {
    #[derive(Deserialize)]
    struct Parts<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        reason: Option<Cow<'a, str>>,
    }
    if error.get().starts_with('"') {
        let text = serde_json::from_str::<String>(error.get()).unwrap_or_default();
        return (Cow::Borrowed("error"), Cow::Owned(text));
    }
    let parts = serde_json::from_str::<Parts<'_>>(error.get());
    parts
        .map(|said| (said.kind.unwrap_or_default(), said.reason.unwrap_or_default()))
        .unwrap_or_default()
}
