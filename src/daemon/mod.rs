//! Builds the parts in order, runs them, and drains.
//!
//! [`Daemon::build`] binds the sockets first, so that a port in use is said before anything is touched, then opens the journals and
//! makes the lanes. [`Daemon::run`] serves until it is told to stop, or until something dies that it cannot live without:
//!
//! | task | its death means |
//! |---|---|
//! | a receiver or admin | the daemon stops in order: nothing could be received, or nobody could see it |
//! | the journal | poisoned: the daemon ends at once, loudly; the next start recovers |
//! | a lane | it does not die: after a panic it goes on from its cursor, and health is degraded |

mod lanes;
mod offline;
mod stores;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout_at};
use tracing::{error, info, warn};

use crate::admin::{self, View};
use crate::config::{Config, JournalMode};
use crate::feed::Feed;
use crate::journal::Health;
use crate::pipeline::{Lane, LaneState};
use crate::receivers;
use crate::rules::BeforeJournal;
use crate::span;
use crate::support::keyring::Keyring;
use crate::support::stop::Stop;
use crate::telemetry::{Metrics, Said};
use stores::Stores;

pub use offline::{Offline, OfflineError};

/// A daemon with its sockets bound and its journals open, ready to run.
pub struct Daemon {
    sockets: Sockets,
    stores: Stores,
    lanes: Vec<Lane>,
    keys: Option<Arc<Keyring>>,
    view: Arc<View>,
    config: Config,
}

/// The bound sockets.
struct Sockets {
    http: TcpListener,
    grpc: TcpListener,
    admin: TcpListener,
}

/// Where a daemon listens, with the ports that port 0 became.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// OTLP over HTTP, and the Agents SDK's ingest.
    pub http: SocketAddr,
    /// OTLP over gRPC.
    pub grpc: SocketAddr,
    /// Health, metrics, status.
    pub admin: SocketAddr,
}

/// How often the daemon looks whether its journal is well, and lets it remove what is old.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Daemon {
    /// Binds, opens and makes everything, and serves nothing yet.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let sockets = Sockets::bind(&config).await?;
        let stores = Stores::open(&config)?;
        Self::over(config, sockets, stores)
    }

    fn over(config: Config, sockets: Sockets, stores: Stores) -> anyhow::Result<Self> {
        report_recovery(&stores.feed);
        let uses_keys = config.sinks.iter().any(|sink| sink.plan.uses_keys());
        let keys = uses_keys.then(Arc::default);
        let metrics = Metrics::default();
        let understanding = metrics.understanding().clone();
        span::observe(move |span, facts| understanding.note(span, facts));
        let made = lanes::make(&config, &stores, keys.as_ref(), &metrics)?;
        let view = Arc::new(View {
            feed: stores.feed.clone(),
            operator: Arc::new(stores.operator(&made)?),
            mode: match config.journal.mode {
                JournalMode::Disk => "disk",
                JournalMode::Memory => "memory",
            },
            lanes: made.iter().map(|lane| Arc::clone(lane.status())).collect(),
            metrics,
            refusing: Stop::default(),
            started: Instant::now(),
        });
        Ok(Self { sockets, stores, lanes: made, keys, view, config })
    }

    /// Where it listens.
    pub fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            http: self.sockets.http.local_addr()?,
            grpc: self.sockets.grpc.local_addr()?,
            admin: self.sockets.admin.local_addr()?,
        })
    }

    /// Serves until `stop` is turned, then drains. An error means that the process must end loudly.
    pub async fn run(self, stop: Stop) -> anyhow::Result<()> {
        let Self { sockets, stores, lanes, keys, view, config } = self;
        let (close_receivers, end_lanes, end_admin) =
            (Stop::default(), Stop::default(), Stop::default());
        let deadline = Stop::default();

        let mut lane_tasks = JoinSet::new();
        for lane in lanes {
            lane_tasks.spawn(lane.run(end_lanes.clone(), deadline.clone()));
        }
        let (intake, metrics) = (stores.feed.intake(), view.metrics.clone());
        let before_journal = BeforeJournal::of(&config.rules).map(Arc::new);
        let receivers = receivers::Receivers::new(
            config.receivers,
            before_journal,
            intake,
            metrics,
            keys,
            view.refusing.clone(),
        );
        let mut serving = JoinSet::new();
        for listener in [sockets.http, sockets.grpc] {
            serving.spawn(receivers::serve(listener, receivers.clone(), close_receivers.clone()));
        }
        let mut seeing =
            tokio::spawn(admin::serve(sockets.admin, Arc::clone(&view), end_admin.clone()));
        // It ends with this set.
        let mut telling = JoinSet::new();
        telling.spawn(view.metrics.understanding().clone().tell(Said::log));

        let ended = tokio::select! {
            () = stop.stopped() => Ok(()),
            // Nothing can be promised any more, and what waits for the disk may wait for ever: nothing is drained.
            reason = poisoned(&stores.feed) => {
                return Err(anyhow::anyhow!("the journal is poisoned: {reason}"));
            }
            receiver = serving.join_next() => Err(anyhow::anyhow!("a receiver ended by itself: {receiver:?}")),
            admin = &mut seeing => Err(anyhow::anyhow!("admin ended by itself: {admin:?}")),
        };
        info!(grace = ?config.drain_grace, "stopping: requests are taken a little longer, then refused");
        if ended.is_ok() {
            sleep(config.drain_grace).await;
        }
        view.refusing.stop();
        close_receivers.stop();
        let receivers_closed = async { while serving.join_next().await.is_some() {} };
        let by = Instant::now() + config.shutdown_timeout;
        timeout_at(by, receivers_closed).await.ok();
        end_lanes.stop();
        if timeout_at(by, all_ended(&mut lane_tasks)).await.is_err() {
            deadline.stop();
            all_ended(&mut lane_tasks).await;
        }
        // Admin went on until here, so that the drain can be watched.
        end_admin.stop();
        timeout_at(by + LOOK_EVERY, &mut seeing).await.ok();
        report_pending(&view);
        let journals = tokio::task::spawn_blocking(move || stores.close());
        journals.await.context("closing the journals")?;
        ended
    }
}

impl Sockets {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            http: bind(&config.receivers.http, "receivers.http").await?,
            grpc: bind(&config.receivers.grpc, "receivers.grpc").await?,
            admin: bind(&config.admin.listen, "admin.listen").await?,
        })
    }
}

async fn bind(address: &str, option: &str) -> anyhow::Result<TcpListener> {
    let hint = "is another process listening there? Another address can be set";
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; {hint} with {option}"))
}

/// Waits for the journal to be poisoned; returns why.
async fn poisoned(feed: &Feed) -> String {
    let mut ticks = interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        if let Health::Poisoned(reason) = feed.journal().health() {
            return reason;
        }
        let journal = feed.journal().clone();
        // It may remove files, which blocks.
        tokio::task::spawn_blocking(move || journal.remove_old()).await.ok();
    }
}

async fn all_ended(tasks: &mut JoinSet<LaneState>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(problem) = ended {
            error!(%problem, "a lane died; its data waits in the journal for the next start");
        }
    }
}

fn report_recovery(feed: &Feed) {
    let recovery = feed.journal().recovery();
    if recovery.cut_bytes > 0 {
        warn!(
            bytes = recovery.cut_bytes,
            "cut a torn tail that was never acknowledged, after a hard stop"
        );
    }
}

fn report_pending(view: &View) {
    let end = view.feed.journal().end();
    for lane in &view.lanes {
        let pending = end.items.saturating_sub(lane.cursor().mark.items);
        if pending > 0 {
            warn!(
                sink = lane.sink,
                pending,
                "not everything was delivered; the journal has the rest, and the next start delivers it"
            );
        }
    }
    info!(accepted = end.items, "stopped");
}

#[cfg(test)]
mod tests {
    use super::stores::SetAside;
    use super::*;
    use crate::config::{self, Environment, Request};
    use crate::feed::tests::{arrival, item};
    use crate::journal::tests::faulty::FaultyStorage;

    #[tokio::test]
    async fn a_failed_sync_ends_the_daemon_at_once_also_when_a_sink_is_down() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("spanferry.toml");
        let text = "shutdown_timeout = '1h'\n[receivers]\nhttp = '127.0.0.1:0'\ngrpc = '127.0.0.1:0'\n\
                    [admin]\nlisten = '127.0.0.1:0'\n[journal]\nmode = 'memory'\n\
                    [sinks.down]\ntype = 'otlp'\nendpoint = 'http://127.0.0.1:9'\n";
        std::fs::write(&file, text).unwrap();
        let request = Request { files: vec![file], ..Request::default() };
        let config = config::load(&request, &Environment::of_process()).unwrap().config;
        let disk = FaultyStorage::default();
        let set_aside = SetAside::open(None).unwrap();
        let (journal, quarantine) = (&config.journal.options, set_aside.quarantine.clone());
        let feed = Feed::open(&config.feed, journal, Arc::new(disk.clone()), quarantine).unwrap();
        let intake = feed.intake();
        let sockets = Sockets::bind(&config).await.unwrap();
        let daemon = Daemon::over(config, sockets, Stores { feed, set_aside }).unwrap();
        let running = tokio::spawn(daemon.run(Stop::default()));
        intake.accept(arrival(&[item("waits")])).await.unwrap();
        disk.fail_syncs();
        intake.accept(arrival(&[item("is refused")])).await.unwrap_err();
        let ended = tokio::time::timeout(Duration::from_mins(1), running).await;
        let problem = ended.expect("it does not drain").unwrap().unwrap_err();
        assert!(problem.to_string().contains("poisoned"), "{problem}");
    }
}
