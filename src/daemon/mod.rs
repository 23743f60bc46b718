//! Builds the parts in order, runs them, and drains.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::info;

use crate::feed::{Feed, FeedOptions};
use crate::journal::{Cursor, DirStorage, Journal, Options};
use crate::pipeline::{
    BatchLimits, DeadLetters, Lane, LaneEnd, LaneOptions, LaneParts, LaneStatus,
};
use crate::receivers::{self, Doors, DoorsParts, ReceiverOptions};
use crate::sinks::file::FileSink;
use crate::support::stop::Stop;
use crate::telemetry::Metrics;

/// Runs until `stop` is turned.
pub async fn run(state_dir: PathBuf, http: TcpListener, stop: Stop) -> anyhow::Result<()> {
    let journal_options = Options::default();
    let open = |name: &str| DirStorage::open(state_dir.join(name)).map(Arc::new);
    let quarantine = Journal::open(&journal_options, open("quarantine")?, |_| ())?;
    let dead_letters =
        DeadLetters::new(Journal::open(&journal_options, open("dead-letter")?, |_| ())?);
    let feed = Feed::open(&FeedOptions::default(), &journal_options, open("journal")?, quarantine)?;
    let journal = feed.journal().clone();
    let cursor =
        journal.cursor("archive")?.unwrap_or(Cursor { mark: journal.end(), ..Cursor::default() });
    let sink = Arc::new(FileSink::open(state_dir.join("traces.jsonl"), &cursor.state)?);
    let lane = Lane::new(LaneParts {
        reader: feed.reader(cursor.mark),
        sink,
        journal,
        dead_letters,
        options: LaneOptions {
            batch: BatchLimits {
                items_max: 1000,
                bytes_max: 4 << 20,
                age_max: Duration::from_millis(200),
            },
            commit_every: Duration::from_secs(1),
            retry_first: Duration::from_millis(250),
            retry_longest: Duration::from_secs(30),
            hold_probe: Duration::from_secs(30),
            when_full: crate::journal::WhenFull::Refuse,
        },
        status: Arc::new(LaneStatus::new("archive".to_owned(), "file", cursor)),
    });
    info!(http = %http.local_addr()?, "listening");
    let (doors, lanes, deadline) = (stop.child(), Stop::default(), Stop::default());
    let mut running: JoinSet<LaneEnd> = JoinSet::new();
    running.spawn(lane.run(lanes.clone(), deadline));
    let open_doors = Doors::new(DoorsParts {
        options: ReceiverOptions::default(),
        intake: feed.intake(),
        metrics: Metrics::default(),
        refusing: doors.clone(),
    });
    receivers::serve(http, open_doors, doors).await;
    lanes.stop();
    running.join_all().await;
    feed.journal().close();
    Ok(())
}
