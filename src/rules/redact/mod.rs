//! The actions that change items: `redact` and `set`. Pure.
//!
//! An item is never changed in place. Its wire is rewritten, with other texts where the rule requires them and everything else byte for
//! byte, and then decoded as on arrival. So facts, details, sinks and dead letters contain only the new text. An item without anything to
//! change costs one search of its wire.
//!
//! ```text
//! read.rs          reads the configuration        patterns.rs  the table of named patterns
//! fields.rs        selects texts                  checks.rs    tells matches from lookalikes
//! otlp.rs          the texts of OTLP messages     shapes.rs    finds where numbers may be
//! agents_sdk.rs    the texts of the Agents SDK    search.rs    finds all patterns in one text
//! set.rs           sets attributes and facts      text.rs      one text without its matches, JSON in it or not
//! journal.rs       a request before it is written to disk
//! ```

mod checks;
mod fields;
mod journal;
mod agents_sdk;
mod otlp;
mod patterns;
mod read;
mod search;
mod set;
mod shapes;
mod text;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use self::fields::Fields;
use self::otlp::{RESOURCE, SCOPE, SPAN, Walk};
use self::search::Search;
use self::set::Setting;
use self::text::Action;
use crate::normalize::{remade, resource_of, scope_of};
use crate::span::otlp::protobuf;
use crate::span::{Item, Resource, Scope, Text};

pub use fields::FIELDS;
pub use journal::{BeforeJournal, MEMORY_BYTES, MEMORY_RATIO};
pub use patterns::{PATTERNS, Pattern};

/// An action that changes items.
#[derive(Debug)]
pub(super) enum Rewrite {
    Redact(Box<Redaction>),
    Set(Setting),
}

#[derive(Debug)]
pub(in crate::rules) struct Redaction {
    fields: Fields,
    search: Search,
    action: Action,
}

/// What the items of one request share: scopes and resources, each rewritten once per rule, and memory.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The bytes that changed items may take, if they are limited.
    room: Option<usize>,
    scopes: Done<Scope>,
    resources: Done<Resource>,
}

/// The rewritten bytes are not a valid item.
#[derive(Debug)]
pub(super) struct NotAnItem;

/// By rule and address, the originals and their replacements; `None` for those that stay. An original is kept so that its address is not
/// reused.
type Done<T> = HashMap<(*const Rewrite, *const T), (Arc<T>, Option<Arc<T>>)>;

impl Shared {
    pub(super) fn has_room_for(&self, item: &Item) -> bool {
        self.room.is_none_or(|room| item.wire().len() <= room)
    }
}

impl Rewrite {
    /// The actions that rewrite items.
    pub(super) const ACTIONS: [&str; 2] = ["redact", "set"];

    /// Returns the rewritten item; `None` if nothing changes.
    pub(super) fn apply(
        &self,
        item: &Item,
        shared: &mut Shared,
    ) -> Result<Option<Item>, NotAnItem> {
        let scope = item.as_span().and_then(|span| self.scope(&span.scope, shared));
        let wire = match self {
            Self::Redact(redaction) => redaction.wire(item),
            Self::Set(setting) => setting.wire(item),
        };
        if scope.is_none() && wire.is_none() {
            return Ok(None);
        }
        let wire = wire.map_or_else(|| item.wire().clone(), Bytes::from);
        remade(item, wire, scope).map(Some).ok_or(NotAnItem)
    }

    fn scope(&self, scope: &Arc<Scope>, shared: &mut Shared) -> Option<Arc<Scope>> {
        let Shared { scopes, resources, .. } = shared;
        once(scopes, self, scope, || {
            let resource = once(resources, self, &scope.resource, || match self {
                Self::Redact(redaction) => redaction.resource(&scope.resource),
                Self::Set(setting) => setting.resource(&scope.resource),
            });
            let (wire, url) = match self {
                Self::Redact(redaction) => (
                    Walk::new(redaction, &scope.wire).message(SCOPE),
                    redaction.schema_url(&scope.schema_url),
                ),
                Self::Set(_) => (None, None),
            };
            if resource.is_none() && url.is_none() && wire.is_none() {
                return None;
            }
            let resource = resource.unwrap_or_else(|| Arc::clone(&scope.resource));
            let schema_url = url.unwrap_or_else(|| scope.schema_url.clone());
            Some(match wire {
                Some(wire) => scope_of(wire.into(), schema_url, resource),
                None => Scope { resource, schema_url, ..Scope::clone(scope) },
            })
        })
    }
}

/// Rewrites what several items share only once.
fn once<T>(
    done: &mut Done<T>,
    rule: &Rewrite,
    one: &Arc<T>,
    rewrite: impl FnOnce() -> Option<T>,
) -> Option<Arc<T>> {
    let rewritten = || (Arc::clone(one), rewrite().map(Arc::new));
    done.entry((rule, Arc::as_ptr(one))).or_insert_with(rewritten).1.clone()
}

impl Redaction {
    /// Returns the redacted wire; `None` if it stays.
    fn wire(&self, item: &Item) -> Option<Vec<u8>> {
        match item {
            Item::Span(span) if span.is_otlp() => Walk::new(self, &span.wire).message(SPAN),
            Item::Span(_) | Item::Trace(_) => self.agents_sdk(item.wire()),
        }
    }

    fn resource(&self, resource: &Resource) -> Option<Resource> {
        let message = protobuf::resource(resource);
        let (wire, url) =
            (Walk::new(self, &message).message(RESOURCE), self.schema_url(&resource.schema_url));
        if wire.is_none() && url.is_none() {
            return None;
        }
        let wire = wire.unwrap_or_else(|| message.into_owned());
        Some(resource_of(wire.into(), url.unwrap_or_else(|| resource.schema_url.clone())))
    }

    fn schema_url(&self, url: &Text) -> Option<Text> {
        let is_meant = self.fields.are_all && !url.is_empty();
        is_meant.then(|| self.value(b"", url.as_bytes())).flatten().map(text_of)
    }
}

fn text_of(text: Vec<u8>) -> Text {
    Text::try_from(text).unwrap_or_default()
}
