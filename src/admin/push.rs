//! Sends the metrics of `/metrics` periodically to an OTLP receiver. Failed requests are not retried, because the next one includes their
//! values.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Uri};
use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{info, warn};

use super::{View, metrics};
use crate::sinks::BuildError;
use crate::sinks::http::{Address, Client, ClientOptions, Compression, Request, secret_header};
use crate::support::secret::Secret;
use crate::support::seldom::Seldom;
use crate::support::{clock, process};
use crate::telemetry;

const PATH: &str = "/v1/metrics";
/// Interval of log messages about failures.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// The target of metrics, and the interval.
#[derive(Debug)]
pub struct Push {
    client: Client,
    uri: Uri,
    headers: HeaderMap,
    every: Duration,
}

impl Push {
    /// Reads certificates, but does not connect. The path is added to the address, unless it has it already.
    pub fn new(
        address: &Address,
        headers: &BTreeMap<String, Secret>,
        every: Duration,
    ) -> Result<Self, BuildError> {
        let base = address.reveal().trim_end_matches('/').trim_end_matches(PATH);
        let uri = format!("{base}{PATH}").parse();
        let uri = uri.map_err(|_| BuildError(format!("{address} is not an address")))?;
        let headers = headers.iter().filter_map(|(name, value)| {
            Some((name.parse::<HeaderName>().ok()?, secret_header(value.reveal())?))
        });
        let client = Client::new(&ClientOptions::default())?;
        Ok(Self { client, uri, headers: headers.collect(), every })
    }

    /// Sends metrics until it is dropped. Nothing waits for it.
    pub async fn run(self, view: Arc<View>) {
        let up_ns = clock::nanos(view.started.elapsed());
        let started_ns = clock::unix_now_ns().saturating_sub(up_ns);
        let mut ticks = interval_at(Instant::now() + self.every, self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (complaints, mut is_troubled) = (Seldom::new(SAY_EVERY), false);
        loop {
            ticks.tick().await;
            match self.send(&view, started_ns).await {
                Ok(()) if !std::mem::take(&mut is_troubled) => {}
                Ok(()) => info!("metrics are pushed again"),
                Err(reason) => {
                    is_troubled = true;
                    if complaints.note().is_some() {
                        warn!(
                            reason,
                            "`telemetry.otlp` does not accept metrics; each push is complete, so none are lost once it works"
                        );
                    }
                }
            }
        }
    }

    async fn send(&self, view: &View, started_ns: u64) -> Result<(), String> {
        let page = metrics::text(view, false).map_err(|error| error.to_string())?;
        let between = (started_ns, clock::unix_now_ns());
        let compression = Compression::toward([&self.uri]);
        // Encoding several hundred KB takes too long for a runtime thread.
        let encode = move || {
            let request = telemetry::request(&page, between, process::sender());
            compression.apply(request.encode_to_vec())
        };
        let body = tokio::task::spawn_blocking(encode).await.map_err(|error| error.to_string())?;
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.extend(compression.header().map(|value| (CONTENT_ENCODING, value)));
        let body = body.map_err(|error| error.to_string())?;
        let request = Request { method: Method::POST, uri: self.uri.clone(), headers, body };
        let answer = self.client.send(&request).await.map_err(|failure| failure.to_string())?;
        if answer.status.is_success() { Ok(()) } else { Err(answer.reason()) }
    }
}
