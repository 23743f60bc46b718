//! Reloads: a new configuration replaces the effective one, completely or not at all.
//!
//! Steps that can fail come first and change nothing: the configuration is read and checked, new sockets are bound, sinks are built as a
//! test, and new ones get a cursor. Then replaced lanes finish their deliveries in flight, within a bound, and their successors continue
//! from their cursors. Lanes of unchanged sinks are not touched, and neither are connections.
//!
//! A crash in between loses nothing. Only cursors and the list of sinks are stored, each saved atomically, and the next start reconciles
//! them with the configuration.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::lanes::{self, Workshop};
use super::listeners::{self, ADMIN, KAFKA, Listeners, Socket};
use super::plan::plan;
use crate::admin::{self, Policy, View};
use crate::config::{Config, Loaded, LogOptions, Paint, Report};
use crate::normalize;
use crate::operate::{CommandError, Rebuilt, RefusedReload, Reloaded, Reread};
use crate::receivers::Settings;
use crate::rules::BeforeJournal;
use crate::server::{self, Tls, TlsOptions};
use crate::support::lock::lock;
use crate::support::{clock, rfc3339};
use crate::telemetry::Figure;

/// Time limit for reading the configuration or saving a cursor: a hanging file system must not block the daemon.
const DISK_MAX: Duration = Duration::from_secs(10);

const RELOADS: Figure = ("reloads", "Reloads of the configuration, by outcome");

/// Changes what is logged.
pub type SetLog = Box<dyn Fn(&LogOptions) + Send + Sync>;

/// The parts of a daemon that a reload changes.
pub(super) struct Serving {
    /// The effective configuration.
    pub(super) loaded: Arc<Loaded>,
    pub(super) workshop: Workshop,
    pub(super) view: Arc<View>,
    pub(super) listeners: Listeners,
    pub(super) admin: Listeners,
    pub(super) lanes: lanes::Running,
    pub(super) set_log: SetLog,
}

impl Serving {
    /// Reads the configuration again, applies it if possible, and logs the result.
    pub(super) async fn reload(&mut self, what: Reread) -> Result<Reloaded, CommandError> {
        let ended = match read(&self.loaded, what).await {
            Ok(new) => self.take(new).await,
            Err(problem) => Err(problem),
        };
        let outcome = match &ended {
            Ok(reloaded) if reloaded.is_unchanged() => "unchanged",
            Ok(_) => "changed",
            Err(_) => "refused",
        };
        match &ended {
            Ok(reloaded) => info!("configuration reloaded: {reloaded}"),
            Err(problem) => error!("configuration not reloaded: {problem}"),
        }
        self.view.metrics.add(RELOADS, &[("outcome", outcome.into())], 1);
        let refused = ended.as_ref().err().map(|problem| RefusedReload {
            at: rfc3339::text(clock::unix_now_ns()),
            problem: problem.in_short(),
            reread: what,
        });
        *lock(&self.view.refused_reload) = refused;
        ended
    }

    /// Applies this configuration, or changes nothing.
    async fn take(&mut self, new: Loaded) -> Result<Reloaded, CommandError> {
        let (new, old) = (Arc::new(new), Arc::clone(&self.loaded));
        let mut plan = plan(&old, &new)?;
        // Lanes that could not be created or have ended are tried again.
        for sink in plan.kept.extract_if(.., |sink| !self.lanes.has(sink)) {
            plan.rebuilt.push(Rebuilt { sink, because_of: vec!["it was not running".to_owned()] });
        }
        if let Some(warnings) = &new.warnings {
            warn!("the configuration:\n\n{}", warnings.render("warning", Paint::Plain));
        }
        if !plan.is_unchanged() {
            let reading = Arc::clone(&new);
            let encryption = on_disk(move |_| encryption(&reading.config)).await?;
            let encryption = encryption.map_err(refused)?;
            let sockets = listeners::bind(&new.config, Some(&old.config)).await.map_err(refused)?;
            self.prepare(&old, &new, &plan).await?;
            // From here on, nothing can be refused.
            self.replace_lanes(&new, &plan).await;
            self.switch((sockets, encryption), &new.config);
            let (index, journal) =
                (self.view.operator.index.clone(), self.view.feed.journal().clone());
            if index.kept().traces && plan.applied.iter().any(|path| path.starts_with("prices")) {
                tokio::task::spawn_blocking(move || index.reprice(&journal));
            }
            if new.config.receivers.kafka != old.config.receivers.kafka {
                self.consume(&new.config);
            }
        }
        self.loaded = new;
        Ok(plan)
    }

    /// Performs the steps that can fail, without changing anything.
    async fn prepare(
        &self,
        old: &Arc<Loaded>,
        new: &Arc<Loaded>,
        plan: &Reloaded,
    ) -> Result<(), CommandError> {
        let (workshop, changed) = (self.workshop.clone(), changed(plan));
        let (old, new, added) = (Arc::clone(old), Arc::clone(new), plan.added.clone());
        let preparing = on_disk(move |is_wanted| {
            let journal = workshop.stores.feed.journal();
            let unknown: Vec<_> =
                added.iter().filter(|sink| journal.cursor(sink).is_none()).collect();
            let prepared = workshop.prepare(&old.config, &new.config, (&changed, &added));
            if prepared.is_err() || !is_wanted() {
                normalize::install(&old.config.attributes);
                workshop.retain(&old.config);
                for sink in unknown {
                    let what = "the cursor of a sink that was not added stays";
                    let forgotten = journal.forget_consumer(sink);
                    forgotten.unwrap_or_else(|problem| warn!(sink, %problem, "{what}"));
                }
            }
            prepared
        });
        preparing.await?.map_err(refused)
    }

    /// Ends replaced and removed lanes, and starts their successors and new ones.
    async fn replace_lanes(&mut self, new: &Arc<Loaded>, plan: &Reloaded) {
        let changed = changed(plan);
        self.lanes.hand_over(&[&changed[..], &plan.removed].concat()).await;
        let (workshop, making) = (self.workshop.clone(), Arc::clone(new));
        let made = on_disk(move |_| {
            let sinks = making.config.sinks.iter().filter(|sink| changed.contains(&sink.name));
            sinks.map(|sink| (sink.name.clone(), workshop.make(sink))).collect::<Vec<_>>()
        });
        let made = made.await.unwrap_or_else(|problem| {
            error!(%problem, "no lane of the changed sinks was started; their data waits in the journal: reload again");
            Vec::new()
        });
        for (sink, made) in made {
            match made {
                Ok(lane) => self.lanes.start(lane),
                // The test build succeeded a moment ago. The next reload tries again.
                Err(problem) => error!(sink, "{problem:#}; the sink's data waits in the journal"),
            }
        }
        self.lanes.show(&new.config.sinks);
        let (workshop, new) = (self.workshop.clone(), Arc::clone(new));
        // If this hangs, the only effect is that the journal keeps more records.
        on_disk(move |_| workshop.retain(&new.config)).await.ok();
    }

    /// Applies new settings to requests, and serves new addresses.
    fn switch(&mut self, (sockets, [tls, admin_tls]): (Vec<Socket>, Encryption), config: &Config) {
        let settings = receivers_of(config, tls, &self.workshop);
        self.view.operator.set_before_journal(settings.before_journal.clone());
        self.view.receivers.set(settings);
        self.view.access.set(policy(config, admin_tls));
        self.view.operator.index.set_prices(Arc::clone(&config.prices));
        for socket in sockets {
            self.serve(socket);
        }
        (self.set_log)(&config.log);
    }

    /// Serves a socket in place of the one with the same option.
    pub(super) fn serve(&mut self, (option, listener): Socket) {
        if let Ok(address) = listener.address() {
            info!(option, %address, "listening");
        }
        if option == ADMIN {
            let view = Arc::clone(&self.view);
            self.admin.run(option, |stop| admin::serve(listener, view, stop));
        } else {
            let receivers = self.view.receivers.clone();
            self.listeners.run(option, |stop| server::serve(listener, receivers, stop));
        }
    }

    /// Consumes the topics of a configuration instead of the previous ones.
    pub(super) fn consume(&mut self, config: &Config) {
        let receivers = self.view.receivers.clone();
        match config.receivers.kafka.clone() {
            Some(kafka) => self.listeners.run(KAFKA, |stop| receivers.consume(kafka, stop)),
            None => self.listeners.end(KAFKA),
        }
    }
}

/// Returns the settings of receivers in a configuration.
pub(super) fn receivers_of(config: &Config, tls: Option<Tls>, workshop: &Workshop) -> Settings {
    let uses_keys = config.sinks.iter().any(|sink| sink.plan.uses_keys());
    Settings {
        options: config.receivers.clone(),
        tls,
        before_journal: BeforeJournal::of(&config.rules, &config.prices).map(Arc::new),
        keys: uses_keys.then(|| Arc::clone(&workshop.keys)),
        sinks: config.sinks.iter().map(|sink| sink.name.clone()).collect(),
    }
}

/// TLS of the receivers, and of admin; `None` for unencrypted connections.
pub(super) type Encryption = [Option<Tls>; 2];

/// Reads the certificates of a configuration. Blocks on the disk.
pub(super) fn encryption(config: &Config) -> anyhow::Result<Encryption> {
    let open = |section, options: &Option<TlsOptions>| {
        let tls = options.as_ref().map(|options| Tls::open(section, options)).transpose();
        tls.map_err(anyhow::Error::msg)
    };
    Ok([open("receivers", &config.receivers.tls)?, open("admin", &config.admin.tls)?])
}

/// Returns the access policy of admin. A Unix socket has no client certificates.
pub(super) fn policy(config: &Config, tls: Option<Tls>) -> Policy {
    let admin = &config.admin;
    let has_authority = admin.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let mut policy = Policy::new(&admin.tokens);
    policy.knows_certificates = admin.listen.socket().is_some() && has_authority;
    policy.is_exposed = admin.listen.is_exposed();
    policy.read_without_token = admin.read_without_token;
    policy.tls = tls;
    policy
}

fn changed(plan: &Reloaded) -> Vec<String> {
    let rebuilt = plan.rebuilt.iter().map(|rebuilt| &rebuilt.sink);
    rebuilt.chain(&plan.added).cloned().collect()
}

async fn read(loaded: &Arc<Loaded>, what: Reread) -> Result<Loaded, CommandError> {
    let origin = loaded.origin.clone();
    let reading = on_disk(move |_| match what {
        Reread::All => origin.read_again(),
        Reread::References => origin.expand_again(),
    });
    let mistakes = |report: Report| report.render("error", Paint::Plain).trim_end().to_owned();
    reading.await?.map_err(|report| CommandError::Invalid(mistakes(report)))
}

/// Runs blocking work and waits for it up to `DISK_MAX`. The work can find out whether someone still waits.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
) -> Result<T, CommandError> {
    let (done, ended) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let result = work(&|| !done.is_closed());
        done.send(result).ok();
    });
    match timeout(DISK_MAX, ended).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) => Err(CommandError::Refused("our own code panicked; see the log".to_owned())),
        Err(_) => {
            Err(CommandError::Refused(format!("the disk did not answer within {DISK_MAX:?}")))
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn refused(problem: anyhow::Error) -> CommandError {
    CommandError::Refused(format!("{problem:#}"))
}
