//! The options `only` and `except`, which assign items to a sink, as the rules that they stand for. Pure.

use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use super::condition::Condition;
use super::read::DEPTH_MAX;
use super::reading::Reading;
use super::{Action, Rule};
use crate::support::options::position;
use crate::support::problem::Problem;

/// The option that lists what a sink gets.
pub const ONLY: &str = "only";
/// The option that lists what a sink does not get.
pub const EXCEPT: &str = "except";

impl Rule {
    /// Reads one of the two options. `keep` rules do not override it, because one sink's data must not reach another. A condition that
    /// cannot be evaluated for an item, such as a span's field for a trace object, does not hold.
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

    /// Returns whether it stands for one of the options. If it fails on an item, the sink does not get the item, which may be meant for
    /// another; the journal keeps it for a replay.
    pub(super) fn is_of_option(&self) -> bool {
        matches!(&self.action, Action::Route(to) if to.is_empty())
    }

    /// Returns whether it tests only the sender and the receiver: that is cheap, and no rule changes these.
    pub fn asks_who_sent(&self) -> bool {
        self.condition.as_ref().is_some_and(Condition::is_of_sender)
    }
}
