//! What a sink is there for at all: its options `only` and `except`, as the rules that they stand for. Pure.

use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use super::condition::Condition;
use super::read::DEPTH_MAX;
use super::reading::Reading;
use super::{Action, Rule};
use crate::support::options::position;
use crate::support::problem::Problem;

/// The option that says what a sink gets.
pub const ONLY: &str = "only";
/// The option that says what it does not get.
pub const EXCEPT: &str = "except";

impl Rule {
    /// Reads one of the two options. Nothing that a rule keeps comes past it: what is another's must not get here. What cannot be asked
    /// of an item, as of a trace object what it takes a span to know, does not hold for it.
    pub fn of_option(
        option: &str,
        value: &Spanned<DeValue<'_>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<Self>> {
        let condition = Reading { problems }.group(value, DEPTH_MAX)?;
        let condition = match option {
            ONLY => Condition::Unless(Box::new(condition)),
            _ => condition,
        };
        Some(Arc::new(Self {
            name: option.to_owned(),
            at: Some(position(&value.span())),
            before_journal: false,
            is_of_traces: false,
            condition: Some(condition),
            action: Action::Route(Vec::new()),
        }))
    }

    /// Whether it is one of them: what it fails on may be another's, so it does not get here. It is in the journal for a replay.
    pub(super) fn is_of_option(&self) -> bool {
        matches!(&self.action, Action::Route(to) if to.is_empty())
    }

    /// Whether it asks for nothing but who sent a request and how: that costs nothing, and no rule changes it.
    pub fn asks_who_sent(&self) -> bool {
        self.condition.as_ref().is_some_and(Condition::is_of_sender)
    }
}
