//! Opens the three journals: of requests, of what could not be understood, and of what a sink will never take.

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

/// What is kept in the quarantine and among the dead letters, each; the oldest gives way.
const ASIDE_BYTES_MAX: u64 = 256 << 20;

/// All three. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Stores {
    pub(super) feed: Feed,
    pub(super) set_aside: SetAside,
}

/// What was set aside.
#[derive(Debug, Clone)]
pub(super) struct SetAside {
    pub(super) dead_letters: Journal<()>,
    pub(super) quarantine: Journal<()>,
}

impl Stores {
    /// Opens them as configured, to be read as configured: spans are first read when the journal is open. It blocks on the disk.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let holds = normalize::install(&config.attributes);
        anyhow::ensure!(holds, "[attributes] cannot hold: this process has read spans without it");
        let dir = match config.journal.mode {
            JournalMode::Disk => Some(config.state_dir.as_path()),
            JournalMode::Memory => None,
        };
        let set_aside = SetAside::open(dir)?;
        let (storage, quarantine) = (storage(dir, "journal")?, set_aside.quarantine.clone());
        let feed =
            Feed::open(&config.feed_options(), &config.journal.options(), storage, quarantine)?;
        Ok(Self { feed, set_aside })
    }

    /// Where an operator's commands are carried out.
    pub(super) fn operator(&self, lanes: Lanes, config: &Config) -> anyhow::Result<Operator> {
        let before_journal = BeforeJournal::of(&config.rules, &config.prices).map(Arc::new);
        let (feed, before_journal) = (self.feed.clone(), before_journal.into());
        self.set_aside.operator(Some(Replays { feed, lanes, before_journal }))
    }
}

impl SetAside {
    /// Opens both below a state directory, or in memory. It blocks on the disk.
    pub(super) fn open(dir: Option<&Path>) -> anyhow::Result<Self> {
        let options = Options {
            bytes_max: ASIDE_BYTES_MAX,
            retain: Duration::MAX,
            when_full: WhenFull::DropOldest,
            ..Options::default()
        };
        let quarantine = Journal::open(&options, storage(dir, "quarantine")?, drop)?;
        let dead_letters = Journal::open(&options, storage(dir, "dead-letter")?, drop)?;
        Ok(Self { dead_letters, quarantine })
    }

    /// Where an operator's commands are carried out; without lanes, nothing can be replayed.
    pub(super) fn operator(&self, replays: Option<Replays>) -> anyhow::Result<Operator> {
        let over = |journal: &Journal<()>| {
            Store::open(journal.clone()).context("cannot read the quarantine or the dead letters")
        };
        Ok(Operator::new(over(&self.dead_letters)?, over(&self.quarantine)?, replays))
    }
}

fn storage(dir: Option<&Path>, name: &str) -> anyhow::Result<Arc<dyn Storage>> {
    let Some(dir) = dir.map(|dir| dir.join(name)) else {
        return Ok(Arc::new(MemoryStorage::default()));
    };
    let opened = DirStorage::open(&dir);
    Ok(Arc::new(opened.with_context(|| format!("cannot use the directory {}", dir.display()))?))
}
