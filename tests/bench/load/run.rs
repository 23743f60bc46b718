//! One measurement: load over some connections, then time to settle, and what both have cost the daemon.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::bodies::{Size, Template, gzip};
use super::procfs::{Cpu, Memory};
use crate::process::client::{Answer, Client, NoAnswer, Protocol};
use crate::process::{self, Place};

/// The load to send.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) protocol: Protocol,
    pub(crate) size: Size,
    pub(crate) connections: usize,
    pub(crate) until: Until,
    /// Requests a second over all connections; without it, as many as are answered.
    pub(crate) pace: Option<f64>,
    pub(crate) gzip: bool,
    /// How to connect if the daemon uses TLS.
    pub(crate) tls: Option<rustls::ClientConfig>,
    /// Minimum time for which CPU time is counted after the load.
    pub(crate) settle: Duration,
}

/// When the load ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Time(Duration),
    Requests(u64),
}

/// The daemon to drive and watch.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) pid: Option<u32>,
    /// The place whose `/metrics` show whether everything was delivered.
    pub(crate) place: Option<Place>,
}

/// The result.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    pub(crate) spans: u64,
    pub(crate) requests: u64,
    pub(crate) body_bytes: u64,
    pub(crate) took: Duration,
    /// Latencies of all answered requests, in ascending order.
    pub(crate) latencies: Vec<Duration>,
    /// CPU time from the start of the load to the end of the settling.
    pub(crate) cpu: Option<Cpu>,
    /// The part of it during the load.
    pub(crate) cpu_under_load: Option<Cpu>,
    pub(crate) memory: Option<Memory>,
    pub(crate) settled: Settled,
    pub(crate) errors: BTreeMap<String, u64>,
}

/// How the settling ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settled {
    pub(crate) took: Duration,
    /// Spans pending at all sinks, if `/metrics` answered.
    pub(crate) pending: Option<f64>,
}

/// Name of the measured sink in a daemon started here.
pub(crate) const MEASURED: &str = "measured";
/// A sink that has not caught up by then never will.
const SETTLE_MAX: Duration = Duration::from_mins(2);
/// How long to wait before a broken connection is opened again.
const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Drives the target, on one thread.
pub(crate) async fn measure(load: &Load, target: &Target) -> Measured {
    let cpu_before = target.pid.and_then(Cpu::of);
    let started = Instant::now();
    let mut connections = JoinSet::new();
    for number in 0..load.connections {
        connections.spawn(drive(load.clone(), target.address, number, started));
    }
    let mut measured = Measured::default();
    for driven in connections.join_all().await {
        measured.add(driven);
    }
    measured.took = started.elapsed();
    measured.spans = measured.requests * load.size.spans_per_request() as u64;
    measured.latencies.sort_unstable();
    let cpu_now = || Some(target.pid.and_then(Cpu::of)?.since(cpu_before?));
    measured.cpu_under_load = cpu_now();
    measured.settled = settle(load.settle, target).await;
    measured.cpu = cpu_now();
    measured.memory = target.pid.and_then(Memory::of);
    measured
}

impl Measured {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.body_bytes += other.body_bytes;
        self.latencies.extend(other.latencies);
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
    }

    /// Returns the latency that this share of requests did not exceed.
    pub(crate) fn latency(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place among at most some million"
        )]
        let place = (share * self.latencies.len() as f64) as usize;
        self.latencies
            .get(place.min(self.latencies.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    /// Returns spans a second.
    pub(crate) fn rate(&self) -> f64 {
        per(self.spans, self.took.as_secs_f64())
    }

    /// Returns microseconds per span.
    pub(crate) fn micros_per_span(&self, time: Duration) -> f64 {
        if self.spans == 0 { f64::NAN } else { per(1, per(self.spans, time.as_secs_f64() * 1e6)) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn per(count: u64, of: f64) -> f64 {
    count as f64 / of
}

/// Sends on one connection until the load ends.
async fn drive(load: Load, address: SocketAddr, number: usize, started: Instant) -> Measured {
    // Ids must be new in every run, or the daemon would take the spans for resends.
    let seed = RandomState::new().build_hasher().finish();
    let mut template = Template::new(load.protocol, load.size, seed);
    let mut measured = Measured::default();
    let mut client = None;
    let mut turn = 0;
    while load.goes_on(started, number, turn) {
        let body = if load.gzip { gzip(&template.next()) } else { template.next() };
        let due = load.due(started, number, turn);
        if let Some(due) = due {
            tokio::time::sleep_until(due.into()).await;
        }
        turn += 1;
        let bytes = body.len() as u64;
        // A paced request that is late because the previous answer was late has waited since it was due.
        let sent = due.unwrap_or_else(Instant::now);
        match send(&mut client, &load, address, body).await {
            Ok(Answer::Kept) => {
                measured.requests += 1;
                measured.body_bytes += bytes;
                measured.latencies.push(sent.elapsed());
            }
            Ok(refused) => *measured.errors.entry(refused.to_string()).or_default() += 1,
            Err(error) => {
                client = None;
                *measured.errors.entry(error.to_string()).or_default() += 1;
                tokio::time::sleep(CONNECT_AGAIN_AFTER).await;
            }
        }
    }
    measured
}

impl Load {
    fn goes_on(&self, started: Instant, number: usize, turn: u64) -> bool {
        match self.until {
            Until::Time(time) => {
                self.due(started, number, turn).unwrap_or_else(Instant::now) < started + time
            }
            Until::Requests(all) => turn * self.connections as u64 + (number as u64) < all,
        }
    }

    /// Returns when a paced request is due: the connections take turns.
    #[expect(clippy::cast_precision_loss, reason = "turns stay far below 2^52")]
    fn due(&self, started: Instant, number: usize, turn: u64) -> Option<Instant> {
        let turn = turn * self.connections as u64 + number as u64;
        Some(started + Duration::from_secs_f64(turn as f64 / self.pace?))
    }
}

async fn send(
    client: &mut Option<Client>,
    load: &Load,
    address: SocketAddr,
    body: bytes::Bytes,
) -> Result<Answer, NoAnswer> {
    if client.is_none() {
        let (protocol, coding) = (load.protocol, load.gzip.then_some("gzip"));
        *client = Some(match &load.tls {
            None => Client::connect(protocol, address, coding).await?,
            Some(tls) => Client::connect_tls(protocol, address, coding, tls.clone()).await?,
        });
    }
    match client {
        Some(client) => client.send(body).await,
        None => unreachable!("it was just connected"),
    }
}

/// Waits for `at_least`, and until `/metrics` shows nothing pending: at the measured sink, or at any sink of a daemon not started here.
async fn settle(at_least: Duration, target: &Target) -> Settled {
    let began = Instant::now();
    tokio::time::sleep(at_least).await;
    let pending = || {
        const PENDING: &str = "spanferry_sink_pending_spans";
        let place = target.place.as_ref()?;
        place.figure_of(PENDING, MEASURED).or_else(|| place.figure(PENDING))
    };
    let mut now = pending();
    while now.is_some_and(|spans| 0.0 < spans) && began.elapsed() < SETTLE_MAX {
        tokio::time::sleep(20 * process::POLL_EVERY).await;
        now = pending();
    }
    Settled { took: began.elapsed(), pending: now }
}
