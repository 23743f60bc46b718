//! The sockets: bound before anything else, and served until a reload or the stop closes them.

use std::collections::BTreeMap;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tracing::warn;

use crate::config::Config;
use crate::server::Listener;
use crate::support::address::Address;
use crate::support::stop::Stop;

/// The option for the Agents SDK's ingest and OTLP over HTTP.
pub(super) const HTTP: &str = "receivers.http";
/// The option for OTLP over gRPC.
pub(super) const GRPC: &str = "receivers.grpc";
/// The option for Kafka topics.
pub(super) const KAFKA: &str = "receivers.kafka";
/// The option for admin.
pub(super) const ADMIN: &str = "admin.listen";

/// The option with the address, and the bound socket.
pub(super) type Socket = (&'static str, Listener);

/// Returns the addresses of a configuration, each with its option.
pub fn addresses(config: &Config) -> [(&'static str, &Address); 3] {
    let receivers = &config.receivers;
    [(HTTP, &receivers.http), (GRPC, &receivers.grpc), (ADMIN, &config.admin.listen)]
}

/// Binds the addresses of a configuration that another does not have.
pub(super) async fn bind(config: &Config, before: Option<&Config>) -> anyhow::Result<Vec<Socket>> {
    let before: Vec<_> = before.map(addresses).into_iter().flatten().collect();
    let mut sockets = Vec::new();
    for (option, address) in addresses(config) {
        if before.contains(&(option, address)) {
            continue;
        }
        let hint = if before.iter().any(|(_, ours)| ours.collides_with(address)) {
            "this daemon itself listens there: restart it to move it, or set another address"
        } else {
            "set another address"
        };
        let listener = Listener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}; {hint} with {option}"))?;
        sockets.push((option, listener));
    }
    Ok(sockets)
}

/// Running servers and consumers. Dropping it closes them immediately.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    tasks: JoinSet<Stop>,
    /// Stop signals by option.
    open: BTreeMap<&'static str, Stop>,
}

impl Listeners {
    /// Runs a server or consumer for an option until it is closed. It replaces the current one for the same option, which is closed and
    /// finishes its requests in flight.
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

    /// Closes the one for an option.
    pub(super) fn end(&mut self, option: &str) {
        self.open.remove(option).iter().for_each(Stop::stop);
    }

    /// Waits for one to end without having been closed.
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

    /// Waits until all closed ones have ended.
    pub(super) async fn closed(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(problem) = ended {
                warn!(%problem, "a listener panicked while it was closing");
            }
        }
    }
}
