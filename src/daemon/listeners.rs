//! The sockets: bound before anything is touched, and served until a reload or the end closes them.

use std::collections::BTreeMap;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tracing::warn;

use crate::config::Config;
use crate::server::Listener;
use crate::support::address::Address;
use crate::support::stop::Stop;

/// Where the Agents SDK's ingest and OTLP over HTTP are served.
pub(super) const HTTP: &str = "receivers.http";
/// Where OTLP over gRPC is served.
pub(super) const GRPC: &str = "receivers.grpc";
/// The topics that are consumed.
pub(super) const KAFKA: &str = "receivers.kafka";
/// Where admin is served.
pub(super) const ADMIN: &str = "admin.listen";

/// The option that says where, and the bound socket.
pub(super) type Socket = (&'static str, Listener);

/// The addresses of a configuration, each with its option.
pub fn addresses(config: &Config) -> [(&'static str, &Address); 3] {
    let receivers = &config.receivers;
    [(HTTP, &receivers.http), (GRPC, &receivers.grpc), (ADMIN, &config.admin.listen)]
}

/// Binds the addresses of a configuration that are not among those of another.
pub(super) async fn bind(config: &Config, before: Option<&Config>) -> anyhow::Result<Vec<Socket>> {
    let before: Vec<_> = before.map(addresses).into_iter().flatten().collect();
    let mut sockets = Vec::new();
    for (option, address) in addresses(config) {
        if before.contains(&(option, address)) {
            continue;
        }
        let port = |address: &Address| address.socket().map(|socket| socket.port());
        let is_ours = before.iter().any(|(_, it)| port(it).is_some() && port(it) == port(address));
        let hint = if is_ours {
            "this daemon itself listens on that port: restart it to move it, or set another address"
        } else {
            "is another process listening there? Set another address"
        };
        let listener = Listener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}; {hint} with {option}"))?;
        sockets.push((option, listener));
    }
    Ok(sockets)
}

/// What is served or consumed. Dropped, it is closed at once.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    tasks: JoinSet<Stop>,
    /// What closes the one of an option.
    open: BTreeMap<&'static str, Stop>,
}

impl Listeners {
    /// Runs what an option asks for until it is closed, in the place of what runs for the same option: that is closed, and its requests in
    /// flight are finished.
    pub(super) fn run<F>(&mut self, option: &'static str, run: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = Stop::default();
        let serving = run(stop.clone());
        let closed = stop.clone();
        self.tasks.spawn(async {
            serving.await;
            closed
        });
        if let Some(before) = self.open.insert(option, stop) {
            before.stop();
        }
    }

    /// Closes what runs for an option.
    pub(super) fn end(&mut self, option: &str) {
        self.open.remove(option).iter().for_each(Stop::stop);
    }

    /// Waits for one to end that nobody closed.
    pub(super) async fn one_died(&mut self) -> String {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(stop)) if stop.is_stopped() => {}
                Some(Ok(_)) => return "it ended unexpectedly".to_owned(),
                Some(Err(problem)) => return problem.to_string(),
                None => std::future::pending().await,
            }
        }
    }

    /// Closes all.
    pub(super) fn close(&self) {
        self.open.values().for_each(Stop::stop);
    }

    /// Waits until all that were closed are.
    pub(super) async fn closed(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(problem) = ended {
                warn!(%problem, "a listener panicked while it was closing");
            }
        }
    }
}
