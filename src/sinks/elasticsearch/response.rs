//! Classifies answers, document by document. Pure.
//!
//! The complete answer:
//!
//! | answer | result of the request |
//! |---|---|
//! | 200 with as many items as were sent | each item is judged alone, whatever `errors` says |
//! | 200 with another number of items, or unreadable | retry: documents have ids |
//! | 400 | halves: one invalid action line fails the complete request |
//! | 413 | too large: smaller requests from now on, and halves |
//! | 429, 503 | throttled |
//! | 401, 402, 403, 404, 405, redirects, web pages | stop: an operator must fix it |
//! | 408, 502, 504, no answer | retry |
//! | 500 | fault: some retries, then halves |
//!
//! Items: a [`Class`], by [`ERRORS`] and status. Elasticsearch 7 to 9 and OpenSearch 1 to 3 differ in few statuses, and seldom in
//! `error.type`.

use crate::sinks::Report;
use crate::sinks::http::classify::StatusClass;
use crate::sinks::http::{Response, shortened};
use crate::support::json::raw::Raw;

/// The members of a bulk answer that are needed. `failure_store` marks a document that went to the failure store although its status is
/// 201.
pub(super) const FILTER_PATH: &str = "errors,items.*.status,items.*.error.type,items.*.error.reason,\
     items.*._seq_no,items.*.failure_store";

/// The answer for one document of a bulk request.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The status; 0 if missing.
    pub(super) status: u16,
    /// `error.type`; empty without an error.
    pub(super) error: String,
    /// `error.reason`. It may quote payload.
    pub(super) reason: String,
    /// Whether it is the first document of its index.
    pub(super) is_first: bool,
    pub(super) is_set_aside: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// `create`: no document may exist yet.
    Create,
    /// `index`: replaces an existing document.
    Index,
    /// `update`: changes a part of an existing document.
    Update,
    /// `index` with a condition.
    Conditional,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The document is stored.
    Stored,
    /// Another writer's version is stored.
    Conflict,
    /// There is no document to update.
    Missing,
    /// The document is in the failure store, where searches do not find it. Sending it again would put it there again.
    SetAside,
    Retry,
    /// The server failed, perhaps because of the document.
    Fault,
    Throttled,
    Stop,
    /// The index does not exist; creating it may help.
    NoIndex,
    /// The document was rejected because of its contents.
    Refused,
}

/// A block of an index or the cluster (full disk, read-only). It passes, or an operator removes it.
const BLOCK: &str = "cluster_block_exception";
/// Errors about the setup of an index, or the contents of the document.
const ILLEGAL: &str = "illegal_argument_exception";
/// The reason for a value in an alias field: the index was created for another `rotation`, and rejects every document.
const FIELD_ALIAS: &str = "Cannot write to a field alias [";

/// Errors of documents that are more specific than their status: type (any if empty), a part of the reason, and the class. The first match
/// counts.
const ERRORS: &[(&str, &str, Class)] = &[
    (BLOCK, "", Class::Stop),
    ("document_missing_exception", "", Class::Missing),
    ("index_not_found_exception", "data stream", Class::Stop),
    ("index_not_found_exception", "", Class::NoIndex),
    ("index_closed_exception", "", Class::Stop),
    ("invalid_index_name_exception", "", Class::Stop),
    ("security_exception", "", Class::Stop),
    (ILLEGAL, "data stream", Class::Stop),
    (ILLEGAL, "write index", Class::Stop),
    (ILLEGAL, "no write alias", Class::Stop),
    (ILLEGAL, "hidden index", Class::Stop),
    (ILLEGAL, "maximum normal shards open", Class::Stop),
    ("", FIELD_ALIAS, Class::Stop),
];

/// Reads the answer to a bulk request of this many documents: one result for each, or a common report.
pub(super) fn read(response: &Response, documents: usize) -> Result<Vec<Answer>, Report> {
    let (status, class) = (response.reason(), response.class());
    if class == StatusClass::Taken {
        let reason = match items(&response.body) {
            Some(items) if items.len() == documents && !response.is_cut => return Ok(items),
            Some(items) => {
                format!("the answer has {} documents, but {documents} were sent", items.len())
            }
            None => "the answer to a bulk request cannot be read".to_owned(),
        };
        return Err(Report::down(None, reason));
    }
    let (error, reason) = error_of(&response.body);
    Err(match class {
        class if class == StatusClass::Stop || error == BLOCK => {
            Report::hold(explained(&status, &error, &reason))
        }
        other => other.report(explained(&status, &error, ""), || response.answer()),
    })
}

/// Classifies the answer for a document that was sent with this action.
pub(super) fn judge(answer: &Answer, action: Action) -> Class {
    let Answer { status, error, reason, .. } = answer;
    if answer.is_set_aside {
        return Class::SetAside;
    }
    if (200..300).contains(status) {
        return Class::Stored;
    }
    let fits = |kind: &str, part: &str| (kind.is_empty() || error == kind) && reason.contains(part);
    if let Some((_, _, class)) = ERRORS.iter().find(|(kind, part, _)| fits(kind, part)) {
        return *class;
    }
    match (status, action) {
        // A newer version exists.
        (409, Action::Index) => Class::Stored,
        (409, Action::Create | Action::Conditional) => Class::Conflict,
        // Another writer changed the document meanwhile, without this change.
        (409, Action::Update) | (0 | 408 | 501..=599, _) => Class::Retry,
        (500, _) => Class::Fault,
        // Compatible servers give no type.
        (404, Action::Update) if error.is_empty() => Class::Missing,
        (404, _) => Class::NoIndex,
        (429, _) => Class::Throttled,
        (401..=403, _) => Class::Stop,
        _ => Class::Refused,
    }
}

/// Explains an answer to an operator, without payload text. Errors about privileges, indices and blocks name only these; other reasons may
/// quote the document and are omitted.
pub(super) fn explain(answer: &Answer, class: Class) -> String {
    if answer.reason.contains(FIELD_ALIAS) {
        return "the index was made for another `rotation` and takes no such documents; set `rotation` back, or give a new \
                `index_prefix`"
            .to_owned();
    }
    let is_safe = matches!(class, Class::Stop | Class::NoIndex);
    let reason = if is_safe { &*answer.reason } else { "" };
    explained(&format!("status {}", answer.status), &answer.error, reason)
}

pub(super) fn kept(answer: &Answer) -> String {
    shortened(&format!("{} {}: {}", answer.status, answer.error, answer.reason))
}

/// Joins what is known of an error.
pub(super) fn explained(status: &str, error: &str, reason: &str) -> String {
    match (error, reason) {
        ("", _) => status.to_owned(),
        (error, "") => format!("{status}: {error}"),
        (error, reason) => format!("{status}: {error}: {}", shortened(reason)),
    }
}

// === Reading ===

fn items(body: &[u8]) -> Option<Vec<Answer>> {
    let bulk = Raw::parse(std::str::from_utf8(body).ok()?)?;
    let answer = |item: Raw<'_>| {
        // `{"index": {...}}`, whatever the action was: Quickwit answers `index` to a `create`.
        let item = item.members().next().map(|(_, item)| item.object()).unwrap_or_default();
        let number = |name| item.get(name).and_then(Raw::count);
        let status = number("status").and_then(|it| u16::try_from(it).ok()).unwrap_or_default();
        let (error, reason) = item.get("error").map(parts_of).unwrap_or_default();
        let is_set_aside = item.get_string("failure_store").is_some_and(|store| store == "used");
        Answer { status, error, reason, is_first: number("_seq_no") == Some(0), is_set_aside }
    };
    Some(bulk.get("items").into_iter().flat_map(Raw::elements).map(answer).collect())
}

/// Returns the type and reason of the error in an answer's body; empty if there is none.
pub(super) fn error_of(body: &[u8]) -> (String, String) {
    let answer = std::str::from_utf8(body).ok().and_then(Raw::parse);
    answer.and_then(|answer| answer.get("error")).map(parts_of).unwrap_or_default()
}

/// Returns the type and reason of an error. The outer reason may not tell the cause, so the innermost cause is added: Elasticsearch 7.17
/// without x-pack says that "template ... is invalid" because of an unknown field `data_stream`. Old and compatible servers return only
/// a text.
fn parts_of(error: Raw<'_>) -> (String, String) {
    if let Some(text) = error.string() {
        return ("error".to_owned(), text.into_owned());
    }
    let said = |error: Raw<'_>, name| error.get_string(name).unwrap_or_default().into_owned();
    let mut reason = said(error, "reason");
    let causes = std::iter::successors(error.get("caused_by"), |cause| cause.get("caused_by"));
    let cause = causes.last().map(|cause| said(cause, "reason")).unwrap_or_default();
    if !reason.contains(&cause) {
        reason = format!("{reason}: {cause}");
    }
    (said(error, "type"), reason)
}
