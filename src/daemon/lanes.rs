//! Makes a lane for each sink of the configuration.

use std::sync::Arc;

use anyhow::Context as _;
use tracing::{error, warn};

use super::stores::Stores;
use crate::config::Config;
use crate::journal::{Cursor, Journal};
use crate::pipeline::{DeadLetters, Lane, LaneStatus};
use crate::sinks::Parts;
use crate::support::keyring::Keyring;
use crate::telemetry::Metrics;

/// The lanes, each at its sink's cursor.
pub(super) fn make(
    config: &Config,
    stores: &Stores,
    keys: Option<&Arc<Keyring>>,
    metrics: &Metrics,
) -> anyhow::Result<Vec<Lane>> {
    let (feed, journal) = (&stores.feed, stores.feed.journal());
    let dead_letters = DeadLetters::new(stores.set_aside.dead_letters.clone());
    let names: Vec<_> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    journal.retain_consumers(&names);
    for gone in journal.consumers().iter().filter(|consumer| !consumer.is_live) {
        warn!(
            sink = gone.name,
            "this sink is no longer configured; what it had not delivered is kept no longer than for replay"
        );
    }
    let mut lanes = Vec::with_capacity(config.sinks.len());
    for sink in &config.sinks {
        let name = &sink.name;
        let cursor = match journal.cursor(name) {
            Some(cursor) => cursor,
            None => join(journal, name)
                .with_context(|| format!("cannot save a cursor for sink {name}"))?,
        };
        let keys = keys.cloned().unwrap_or_default();
        let figures = metrics.of_sink(name);
        let parts = Parts { name: name.clone(), state: cursor.state.clone(), keys, figures };
        let made = sink.plan.build(parts).with_context(|| format!("cannot make sink {name}"))?;
        let reader = feed.reader(cursor.mark);
        let status = LaneStatus::new(name.clone(), sink.kind.name, cursor);
        let status = Arc::new(status.with_rules(Arc::clone(&sink.rules)));
        let (journal, options) = (journal.clone(), sink.lane.clone());
        lanes.push(Lane::new(reader, made, journal, dead_letters.clone(), options, status));
    }
    Ok(lanes)
}

/// A new sink gets what is accepted from now on. Its cursor is saved at once: after a crash it must not start later than here. Where
/// nobody knows which sinks there were, it may not be new, and gets all that is kept.
fn join<P: Send + 'static>(journal: &Journal<P>, name: &str) -> std::io::Result<Cursor> {
    let is_new = !journal.recovery().consumers_unknown;
    let mark = if is_new { journal.end() } else { journal.start() };
    if !is_new {
        error!(
            sink = name,
            "the journal's list of sinks and the cursor of this one are gone; it gets all that the journal keeps, so nothing is lost and \
             some of it may arrive twice"
        );
    }
    let cursor = Cursor { mark, joined: mark.items, ..Cursor::default() };
    journal.save_cursor(name, &cursor)?;
    Ok(cursor)
}
