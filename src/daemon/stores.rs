//! Opens the three journals: of requests, of the quarantine, and of dead letters.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::config::{Config, JournalMode};
use crate::feed::Feed;
use crate::journal::{DirStorage, Journal, MemoryStorage, Options, Storage, WhenFull};
use crate::normalize;
use crate::operate::{Operator, Replays, Store};
use crate::pipeline::Lanes;
use crate::rules::BeforeJournal;

/// Maximum size of the quarantine and of the dead letters, each; the oldest records are evicted.
const ASIDE_BYTES_MAX: u64 = 256 << 20;

/// All three journals. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Stores {
    pub(super) feed: Feed,
    pub(super) dead_letters: Journal<()>,
    pub(super) quarantine: Journal<()>,
}

impl Stores {
    /// Opens them as configured. Attributes are set up first, because opening the journal already reads spans. Blocks on the disk.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let holds = normalize::install(&config.attributes);
        anyhow::ensure!(holds, "[attributes] cannot hold: this process has read spans without it");
        let dir = match config.journal.mode {
            JournalMode::Disk => Some(config.state_dir.as_path()),
            JournalMode::Memory => None,
        };
        let (dead_letters, quarantine) = set_aside(dir)?;
        let (storage, own) = (storage(dir, "journal")?, quarantine.clone());
        let feed = Feed::open(&config.feed_options(), &config.journal.options(), storage, own)?;
        Ok(Self { feed, dead_letters, quarantine })
    }

    /// Returns the operator, which carries out commands.
    pub(super) fn operator(&self, lanes: Lanes, config: &Config) -> anyhow::Result<Operator> {
        let before_journal = BeforeJournal::of(&config.rules, &config.prices).map(Arc::new);
        let (feed, before_journal) = (self.feed.clone(), before_journal.into());
        let set_aside = (self.dead_letters.clone(), self.quarantine.clone());
        operator(&set_aside, Some(Replays { feed, lanes, before_journal }))
    }
}

/// Opens the dead letters and the quarantine in a state directory, or in memory. Blocks on the disk.
pub(super) fn set_aside(dir: Option<&Path>) -> anyhow::Result<(Journal<()>, Journal<()>)> {
    let options = Options {
        bytes_max: ASIDE_BYTES_MAX,
        retain: Duration::MAX,
        when_full: WhenFull::DropOldest,
        ..Options::default()
    };
    let quarantine = Journal::open(&options, storage(dir, "quarantine")?, drop)?;
    let dead_letters = Journal::open(&options, storage(dir, "dead-letter")?, drop)?;
    Ok((dead_letters, quarantine))
}

/// Returns the operator, which carries out commands on these; without lanes, it cannot replay.
pub(super) fn operator(
    (dead_letters, quarantine): &(Journal<()>, Journal<()>),
    replays: Option<Replays>,
) -> anyhow::Result<Operator> {
    let over = |journal: &Journal<()>| {
        Store::open(journal.clone()).context("cannot read the quarantine or the dead letters")
    };
    Ok(Operator::new(over(dead_letters)?, over(quarantine)?, replays))
}

fn storage(dir: Option<&Path>, name: &str) -> anyhow::Result<Arc<dyn Storage>> {
    let Some(dir) = dir.map(|dir| dir.join(name)) else {
        return Ok(Arc::new(MemoryStorage::default()));
    };
    let opened = DirStorage::open(&dir);
    Ok(Arc::new(opened.with_context(|| format!("cannot use the directory {}", dir.display()))?))
}
