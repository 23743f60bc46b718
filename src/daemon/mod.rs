//! Builds the parts in order, runs them, and drains.
//!
//! [`Daemon::build`] first reads the certificates and binds the sockets, so that a port in use is reported before anything is touched. Then
//! it opens the journals and creates the lanes. [`Daemon::run`] serves until it is told to stop, or until a vital task ends:
//!
//! | task | if it ends |
//! |---|---|
//! | a receiver or admin | the daemon stops in order: it could receive nothing, or could not be observed |
//! | the journal | it is poisoned: the daemon exits immediately with an error; the next start recovers |
//! | a lane | it does not end: after a panic it continues from its cursor, and health is degraded |
//! | a reload, or the watch for changes | they are part of the main task |
//!
//! In the meantime, it handles reloads one after the other (`reload.rs`), which clients request or the watch triggers (`watch.rs`).

mod lanes;
mod listeners;
mod offline;
mod plan;
mod reload;
mod stores;
mod watch;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout_at};
use tracing::{error, info, warn};

use crate::admin::{Access, Push, View};
use crate::config::{JournalMode, Loaded};
use crate::feed::Feed;
use crate::index::{Index, Kept};
use crate::journal::Health;
use crate::operate::{Asked, Reloads};
use crate::pipeline::Lane;
use crate::receivers::Receivers;
use crate::support::address::Address;
use crate::support::stop::Stop;
use crate::telemetry::Metrics;
use lanes::{Running, Workshop};
use listeners::{ADMIN, GRPC, HTTP, Listeners, Socket};
use reload::{Encryption, Serving, encryption, policy, receivers_of};
use stores::Stores;
use watch::Watch;

#[cfg(test)]
mod parts_tests;
#[cfg(test)]
mod reload_tests;

pub use listeners::addresses;
pub use offline::{Offline, who_has_it};
pub use reload::SetLog;

/// A daemon with its sockets bound and its journals open, ready to run.
pub struct Daemon {
    sockets: Vec<Socket>,
    lanes: Vec<Lane>,
    serving: Serving,
    reloads: Reloads,
    asked: mpsc::Receiver<Asked>,
    push: Option<Push>,
}

/// The addresses of a daemon, with the ports assigned for port 0.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// OTLP over HTTP, and the Agents SDK's ingest.
    pub http: Address,
    /// OTLP over gRPC.
    pub grpc: Address,
    /// Health, metrics, status.
    pub admin: Address,
}

/// Interval at which the daemon checks its journal's health and lets it remove old segments.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Daemon {
    /// Binds, opens and creates everything, but serves nothing yet. A reload calls `set_log`.
    pub async fn build(loaded: Loaded, set_log: SetLog) -> anyhow::Result<Self> {
        let encryption = encryption(&loaded.config)?;
        let sockets = listeners::bind(&loaded.config, None).await?;
        let stores = Stores::open(&loaded.config)?;
        Self::over((loaded, set_log), (sockets, encryption), stores)
    }

    fn over(
        (loaded, set_log): (Loaded, SetLog),
        (sockets, [tls, admin_tls]): (Vec<Socket>, Encryption),
        stores: Stores,
    ) -> anyhow::Result<Self> {
        let bytes = stores.feed.journal().recovery().cut_bytes;
        if bytes > 0 {
            warn!(bytes, "after a hard stop, cut off a torn tail that was never acknowledged");
        }
        let metrics = Metrics::default();
        let (keys, refusing) = (Arc::default(), Stop::default());
        let workshop = Workshop { stores, keys, metrics };
        let stores = &workshop.stores;
        let (made, lanes) = workshop.make_all(&loaded.config)?;
        let (reloads, asked) = Reloads::new();
        let access = Access::default();
        access.set(policy(&loaded.config, admin_tls));
        let settings = receivers_of(&loaded.config, tls, &workshop);
        let (intake, metrics) = (stores.feed.intake(), workshop.metrics.clone());
        let receivers = Receivers::new(settings, intake, metrics, refusing.clone());
        let mut operator = stores.operator(lanes.clone(), &loaded.config)?;
        operator.reloads = Some(reloads.clone());
        let admin = &loaded.config.admin;
        let kept = Kept { traces: admin.traces, agents: admin.agent_metrics };
        operator.index = Index::keeping(kept, Arc::clone(&loaded.config.prices));
        let view = Arc::new(View {
            feed: stores.feed.clone(),
            operator: Arc::new(operator),
            mode: match loaded.config.journal.mode {
                JournalMode::Disk => "disk",
                JournalMode::Memory => "memory",
            },
            lanes: lanes.clone(),
            metrics: workshop.metrics.clone(),
            refusing,
            receivers,
            access,
            refused_reload: Mutex::default(),
            started: Instant::now(),
        });
        let push = loaded.config.telemetry.otlp.as_ref();
        let push = push.map(|to| Push::new(&to.endpoint, &to.headers, to.interval.0));
        let push = push.transpose().context("[telemetry.otlp]")?;
        let serving = Serving {
            loaded: Arc::new(loaded),
            workshop,
            view,
            listeners: Listeners::default(),
            admin: Listeners::default(),
            lanes: Running::new(lanes),
            set_log,
        };
        Ok(Self { sockets, lanes: made, serving, reloads, asked, push })
    }

    /// Returns the effective configuration.
    pub fn loaded(&self) -> &Loaded {
        &self.serving.loaded
    }

    /// Returns its addresses.
    pub fn addresses(&self) -> anyhow::Result<Addresses> {
        let of = |option| {
            let socket = self.sockets.iter().find(|(bound, _)| *bound == option);
            let (_, listener) = socket.with_context(|| format!("{option} is not bound"))?;
            Ok::<_, anyhow::Error>(listener.address()?)
        };
        Ok(Addresses { http: of(HTTP)?, grpc: of(GRPC)?, admin: of(ADMIN)? })
    }

    /// Returns a handle to request reloads.
    pub fn reloads(&self) -> Reloads {
        self.reloads.clone()
    }

    /// Returns what admin shows.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.serving.view)
    }

    /// Serves until `stop` is signalled, then drains. An error means that the process must exit with an error.
    pub async fn run(self, stop: Stop) -> anyhow::Result<()> {
        let Self { sockets, lanes, mut serving, mut asked, push, .. } = self;
        for lane in lanes {
            serving.lanes.start(lane);
        }
        // The task ends with this set.
        let mut telling = JoinSet::new();
        if let Some(push) = push {
            telling.spawn(push.run(Arc::clone(&serving.view)));
        }
        let feed = serving.view.feed.clone();
        // Must start before the first request.
        let lacks = serving.view.metrics.understanding().clone();
        telling.spawn(serving.view.operator.index.clone().follow(feed.clone(), lacks));
        for socket in sockets {
            serving.serve(socket);
        }
        serving.consume(&Arc::clone(&serving.loaded).config);
        let ended = tokio::select! {
            // Nothing can be guaranteed any more, and tasks that wait for the disk may never end, so nothing is drained.
            reason = poisoned(&feed) => {
                return Err(anyhow::anyhow!("the journal is poisoned: {reason}"));
            }
            ended = serve(&mut serving, &mut asked, &stop) => ended,
        };
        // Refuses pending reload requests.
        drop(asked);
        let config = &serving.loaded.config;
        info!(grace = ?config.drain_grace, "stopping: requests are accepted a little longer, then refused");
        if ended.is_ok() {
            sleep(config.drain_grace).await;
        }
        serving.view.refusing.stop();
        serving.listeners.close();
        let by = Instant::now() + config.shutdown_timeout;
        timeout_at(by, serving.listeners.closed()).await.ok();
        serving.lanes.drain(by).await;
        // Admin runs until here, so that the drain can be observed.
        serving.admin.close();
        timeout_at(by + LOOK_EVERY, serving.admin.closed()).await.ok();
        report_pending(&serving.view);
        let operator = Arc::clone(&serving.view.operator);
        let journals = tokio::task::spawn_blocking(move || operator.close());
        journals.await.context("closing the journals")?;
        ended
    }
}

/// Handles one reload after the other, until `stop` is signalled or a vital task ends. A reload that has begun is completed: lanes that it
/// replaces have handed over then.
async fn serve(
    serving: &mut Serving,
    asked: &mut mpsc::Receiver<Asked>,
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut watch = Watch::new();
    loop {
        tokio::select! {
            biased;
            () = stop.stopped() => return Ok(()),
            died = serving.listeners.one_died() => anyhow::bail!("a receiver panicked: {died}"),
            died = serving.admin.one_died() => anyhow::bail!("admin died: {died}"),
            Some((what, answer)) = asked.recv() => {
                answer.send(serving.reload(what).await).ok();
            }
            what = watch.changed(&serving.loaded, &serving.view) => {
                // The result is in the log.
                serving.reload(what).await.ok();
            }
        }
    }
}

/// Waits until the journal is poisoned; returns the reason.
async fn poisoned(feed: &Feed) -> String {
    let mut ticks = interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        if let Health::Poisoned(reason) = feed.journal().health() {
            return reason;
        }
        let journal = feed.journal().clone();
        // This may remove files, which blocks.
        tokio::task::spawn_blocking(move || journal.remove_old()).await.ok();
    }
}

fn report_pending(view: &View) {
    let end = view.feed.journal().end();
    for lane in view.lanes.all() {
        let pending = end.items.saturating_sub(lane.status.safe(view.feed.journal()).mark.items);
        let (sink, is_kept) = (&lane.status.sink, view.mode != "memory");
        if pending > 0 && is_kept {
            let what = "not everything was delivered; the rest is in the journal and will be delivered after the next start";
            warn!(sink, pending, "{what}");
        } else if pending > 0 {
            error!(
                sink,
                pending,
                "not everything was delivered; the rest is lost with the journal, which is in memory"
            );
        }
    }
    info!(accepted = end.items, "stopped");
}

#[cfg(test)]
mod tests {
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
        let loaded = config::load(&request, &Environment::of_process()).unwrap();
        let config = &loaded.config;
        let disk = FaultyStorage::default();
        let (dead_letters, quarantine) = stores::set_aside(None).unwrap();
        let (journal, own) = (config.journal.options(), quarantine.clone());
        let feed =
            Feed::open(&config.feed_options(), &journal, Arc::new(disk.clone()), own).unwrap();
        let intake = feed.intake();
        let sockets = listeners::bind(config, None).await.unwrap();
        let daemon = Daemon::over(
            (loaded, Box::new(|_| ())),
            (sockets, [None, None]),
            Stores { feed, dead_letters, quarantine },
        )
        .unwrap();
        let running = tokio::spawn(daemon.run(Stop::default()));
        intake.accept(arrival(&[item("waits")])).await.unwrap();
        disk.fail_syncs();
        intake.accept(arrival(&[item("is refused")])).await.unwrap_err();
        let ended = tokio::time::timeout(Duration::from_mins(1), running).await;
        let problem = ended.expect("it does not drain").unwrap().unwrap_err();
        assert!(problem.to_string().contains("poisoned"), "{problem}");
    }
}
