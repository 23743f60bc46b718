//! What changes items: `redact` and `set`. Pure.

use std::ops::Range;

use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeValue;

use crate::span::{Item, Source};
use crate::support::options::position;
use crate::support::problem::Problem;

/// Makes other items of items.
#[derive(Debug)]
pub(super) struct Rewrite;

/// What the items of one request have in common and is rewritten once.
#[derive(Debug, Default)]
pub(super) struct Shared {}

impl Rewrite {
    /// The actions that are rewriting.
    pub(super) const ACTIONS: [&str; 2] = ["redact", "set"];

    /// Reads the value of `redact` or `set`; what is wrong is a problem, and then there is none.
    pub(super) fn read(
        action: &str,
        value: &Spanned<DeValue<'_>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let at: Range<usize> = position(&value.span());
        let what = format!("`{action}` is not there yet");
        problems.push(Problem { at: Some(at), what, hint: None });
        None
    }

    #[expect(clippy::unused_self, reason = "nothing is rewritten yet")]
    /// The item as it is to be; `None` where nothing of it changes.
    pub(super) fn apply(
        &self,
        _source: &Source,
        _item: &Item,
        _shared: &mut Shared,
    ) -> Option<Item> {
        None
    }

    /// The schema of an action's value.
    pub(super) fn schema(_action: &str) -> Value {
        json!({ "type": "object" })
    }
}
