//! Delivers to one address: encodes off the reactor, sends one request after another, and merges the answers into one report.

use std::fmt;
use std::future::Future;
use std::io;
use std::num::NonZero;
use std::sync::LazyLock;
use std::thread;

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method, Uri};
use tokio::sync::Semaphore;

use super::{Address, Body, Client, ClientOptions, Request, RequestError, Response};
use crate::sinks::report::Reports;
use crate::sinks::{BuildError, Delivery, Report};
use crate::span::Item;
use crate::support::forwarding::SENDER_HEADER;

/// An address that deliveries are posted to, with a client and the headers of every request.
pub(in crate::sinks) struct Endpoint {
    client: Client,
    uri: Uri,
    headers: HeaderMap,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A query may contain a key, and headers do.
        write!(out, "Endpoint({})", self.uri.path())
    }
}

impl Endpoint {
    /// Reads certificates, without connecting.
    pub(in crate::sinks) fn new(
        options: &ClientOptions,
        address: &Address,
        headers: HeaderMap,
    ) -> Result<Self, BuildError> {
        let uri = address.uri().cloned();
        let uri = uri.ok_or_else(|| BuildError(format!("{address} is not an address")))?;
        Ok(Self { client: Client::new(options)?, uri, headers })
    }

    /// Creates a request with a body and the delivery's forwarding path.
    pub(in crate::sinks) fn request(&self, delivery: &Delivery, body: Bytes) -> Request {
        let (mut headers, hops) = (self.headers.clone(), delivery.hops());
        // A configured value is never right, because the path is not known beforehand.
        headers.remove(SENDER_HEADER);
        if !hops.is_empty()
            && let Ok(path) = HeaderValue::try_from(hops.header())
        {
            headers.insert(SENDER_HEADER, path);
        }
        Request { method: Method::POST, uri: self.uri.clone(), headers, body }
    }

    /// Sends a request once. Without an answer, returns the report for its items.
    pub(in crate::sinks) async fn send(&self, request: &Request) -> Result<Response, Report> {
        self.client.send(request).await.map_err(|failure: RequestError| failure.report())
    }
}

/// Limits concurrent encoding to the number of processors. More would only hold buffers longer, and after an outage of a backend all lanes
/// encode again at the same moments.
static ENCODING: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(thread::available_parallelism().map_or(1, NonZero::get)));

/// The most bytes to encode or compress on a thread of the reactor: about a quarter of a millisecond of work.
const INLINE_BYTES_MAX: usize = 32 << 10;

/// Encodes a delivery; see [`in_turn`].
pub(in crate::sinks) async fn encode<T: Send + 'static>(
    delivery: &Delivery,
    work: impl FnOnce(&Delivery) -> T + Send + 'static,
) -> io::Result<T> {
    let delivery = delivery.clone();
    in_turn(delivery.bytes(), move || work(&delivery)).await
}

/// Encodes or compresses this many bytes: few on this thread, many on a thread that may block, within the limit of concurrent encoding.
pub(in crate::sinks) async fn in_turn<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if bytes <= INLINE_BYTES_MAX {
        return Ok(work());
    }
    let turn = ENCODING.acquire().await.map_err(io::Error::other)?;
    let working = move || {
        // The work itself holds the permit, because it continues even if its caller stops waiting.
        let _turn = turn;
        work()
    };
    Ok(tokio::task::spawn_blocking(working).await?)
}

/// Writes a delivery, compresses and frames (`seal`) its messages, and sends them in order; `send` gets the number of spans and the body of
/// each. Nothing is sent for a trace object. The attempt ends at the first report that would be the same for the next requests.
pub(in crate::sinks) async fn deliver<Sending>(
    delivery: &Delivery,
    write: impl FnOnce(&Delivery) -> Vec<Body> + Send + 'static,
    seal: impl Fn(Vec<u8>) -> io::Result<Bytes> + Send + 'static,
    send: impl Fn(usize, Bytes) -> Sending,
) -> Report
where
    Sending: Future<Output = Report>,
{
    let ready = move |delivery: &Delivery| -> io::Result<Vec<_>> {
        let sealed = |Body { items, message }| {
            let body = if message.is_empty() { None } else { Some(seal(message)?) };
            Ok((items, body))
        };
        write(delivery).into_iter().map(sealed).collect()
    };
    let requests = match encode(delivery, ready).await.flatten() {
        Ok(requests) => requests,
        Err(error) => return Report::down(None, format!("cannot encode the requests: {error}")),
    };
    let mut reports = Reports::new(delivery.len());
    let mut has_ended = false;
    for (items, body) in requests {
        let is_span = |place: &usize| delivery.item(*place).and_then(Item::as_span).is_some();
        let (spans, others): (Vec<usize>, Vec<usize>) = items.partition(is_span);
        reports.add(others, Report::delivered());
        if let Some(body) = body.filter(|_| !has_ended) {
            let report = send(spans.len(), body).await;
            has_ended = report.ends_attempt();
            reports.add(spans, report);
        }
    }
    reports.finish()
}
