//! Accepts connections and serves HTTP on them: HTTP/1.1, and HTTP/2 with prior knowledge, on the same port.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, interval, sleep, timeout};
use tracing::{debug, error, warn};

use super::listener::{Accepted, Listener, Stream};
use super::tls::HandshakeError;
use super::{Handler, Peer};
use crate::support::backoff::Backoff;
use crate::support::lock::lock;
use crate::support::seldom::Seldom;
use crate::support::stop::Stop;

/// Maximum amount to read from an HTTP/1.1 connection at a time. Bodies are copied out of this buffer, so it is small enough that the
/// buffers of a few busy connections stay in a processor's cache, and large enough for any reasonable request head, which must fit.
const READ_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Time limit for the first request of a connection, and the interval of checks for it.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_mins(3);
const FIRST_REQUEST_POLL: Duration = Duration::from_secs(10);
/// How long a connection may be idle between requests, and how long a request's head may take. Exporters send every five seconds or far
/// less often, and one whose connection was closed loses a retry.
const IDLE_TIMEOUT: Duration = Duration::from_mins(3);
/// After this time without a frame, an HTTP/2 client is pinged.
const PING_EVERY: Duration = Duration::from_mins(2);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum number of concurrent calls on one connection. A Collector opens one connection and many calls.
const STREAMS_MAX: u32 = 256;
/// Flow control windows of a call and of all calls of a connection. They are large enough that a body of agent spans arrives without
/// waiting; the budget of bytes in flight bounds what is actually read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Larger frames mean fewer copies of a body.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Maximum size of a request's headers, including long tokens. Over HTTP/1.1, the read buffer is the limit, and hyper's 100 headers.
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// Maximum number of streams that a client resets before they are processed, and that are reset because of its errors. Clients cancel calls
/// that take too long, but not this many at the same time: <https://nvd.nist.gov/vuln/detail/CVE-2023-44487>.
const RESETS_UNSEEN_MAX: usize = 20;
const RESETS_BY_US_MAX: usize = 256;
/// How often failed handshakes are logged, with their number: any client that can connect can cause them.
const SAY_EVERY: Duration = Duration::from_mins(1);
/// Waits after a failed accept, most often due to a lack of file descriptors.
const ACCEPT_RETRY_FIRST: Duration = Duration::from_millis(10);
const ACCEPT_RETRY_LONGEST: Duration = Duration::from_secs(1);

/// How often a waiting connection checks for one that became idle and can be closed, and how long a finished answer gets to be sent.
const ROOM_POLL: Duration = Duration::from_millis(20);

/// Serves until `stop` is signalled, then finishes the requests in flight and closes their connections. Those that take longer than the
/// limits allow are aborted.
pub async fn serve<H: Handler>(listener: Listener, handler: H, stop: Stop) {
    let mut connections = Connections::default();
    let server = Server {
        handler: handler.clone(),
        protocols: protocols(),
        stop: stop.clone(),
        complaints: Arc::new([Seldom::new(SAY_EVERY), Seldom::new(SAY_EVERY)]),
    };
    let mut backoff = Backoff::new(ACCEPT_RETRY_FIRST, ACCEPT_RETRY_LONGEST);
    let mut looks = interval(FIRST_REQUEST_POLL);
    // A connection that waits for space.
    let mut waiting: Option<Accepted> = None;
    loop {
        let has_room = |_: &mut Accepted| {
            let has_room = connections.make_room(handler.limits().connections_max);
            if !has_room {
                handler.make_room();
            }
            has_room
        };
        if let Some(accepted) = waiting.take_if(has_room) {
            let (in_flight, is_first_awaited, idle_since) = (0, true, Instant::now());
            let watch = Watch::new(Activity { in_flight, is_first_awaited, idle_since }.into());
            connections.add(server.clone().connection(accepted, watch.clone()), watch);
        }
        tokio::select! {
            () = stop.stopped() => break,
            () = connections.ended() => {}
            () = sleep(ROOM_POLL), if waiting.is_some() => {}
            _ = looks.tick() => connections.close_unused(),
            accepted = accept(&listener, &mut backoff), if waiting.is_none() => waiting = Some(accepted),
        }
    }
    drop((listener, waiting));
    let finished = timeout(handler.limits().drain_timeout, connections.all_ended());
    if finished.await.is_err() {
        warn!(
            connections = connections.tasks.len(),
            "connections that did not finish in time are closed"
        );
        connections.tasks.shutdown().await;
    }
}

/// Accepts the next connection; retries after failures.
async fn accept(listener: &Listener, backoff: &mut Backoff) -> Accepted {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                backoff.reset();
                return accepted;
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                sleep(backoff.next_wait()).await;
            }
        }
    }
}

/// The open connections. If there are too many, an idle one is closed for a new one: first the oldest that never had a request, so that
/// clients that only connect do not block others, then the one that has been idle longest.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: HashMap<Id, (AbortHandle, Watch)>,
}

#[derive(Debug)]
struct Activity {
    in_flight: usize,
    is_first_awaited: bool,
    idle_since: Instant,
}

/// The activity of a connection, shared by the connection and the code that chooses which one to close.
type Watch = Arc<Mutex<Activity>>;

/// Counts a request until it is dropped.
struct Busy(Watch);

impl Busy {
    fn new(watch: &Watch) -> Self {
        let mut activity = lock(watch);
        activity.in_flight += 1;
        activity.is_first_awaited = false;
        Self(Arc::clone(watch))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut activity = lock(&self.0);
        activity.in_flight -= 1;
        activity.idle_since = Instant::now();
    }
}

impl Connections {
    fn add(&mut self, served: impl Future<Output = ()> + Send + 'static, watch: Watch) {
        let task = self.tasks.spawn(served);
        self.open.insert(task.id(), (task, watch));
    }

    /// Makes space for one more connection, if necessary by closing an idle one; returns whether there is space.
    fn make_room(&mut self, max: usize) -> bool {
        if self.open.len() < max {
            return true;
        }
        let idle = self.open.iter().filter_map(|(id, (_, watch))| {
            let Activity { in_flight, is_first_awaited, idle_since } = *lock(watch);
            (in_flight == 0).then_some((!is_first_awaited, idle_since, *id))
        });
        let Some((_, since, id)) = idle.min() else { return false };
        // Its first request, or its last answer, may be in transit.
        if since.elapsed() < ROOM_POLL {
            return false;
        }
        if let Some((task, _)) = self.open.remove(&id) {
            task.abort();
        }
        true
    }

    /// Closes connections that waited too long for their first request. No other timeout covers clients that send nothing, or only the
    /// beginning, while the protocol is unknown.
    fn close_unused(&mut self) {
        for (task, watch) in self.open.values() {
            let activity = lock(watch);
            if activity.is_first_awaited && FIRST_REQUEST_TIMEOUT < activity.idle_since.elapsed() {
                task.abort();
            }
        }
    }

    /// Waits for a connection to end, forever if there are none.
    async fn ended(&mut self) {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        self.open.remove(&id);
        if let Err(error) = ended
            && error.is_panic()
        {
            error!(%error, "the code that serves a connection panicked");
        }
    }

    async fn all_ended(&mut self) {
        while !self.tasks.is_empty() {
            self.ended().await;
        }
    }
}

fn protocols() -> auto::Builder<TokioExecutor> {
    let mut protocols = auto::Builder::new(TokioExecutor::new());
    protocols
        .http1()
        // A client that has closed its sending side still reads the answer.
        .half_close(true)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .timer(TokioTimer::new())
        // This timeout also runs while a kept connection is idle, so it is the longer of the two waits.
        .header_read_timeout(IDLE_TIMEOUT);
    protocols
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_UNSEEN_MAX)
        .max_local_error_reset_streams(RESETS_BY_US_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    protocols
}

/// The state shared by the connections of a listener.
#[derive(Clone)]
struct Server<H> {
    handler: H,
    protocols: auto::Builder<TokioExecutor>,
    stop: Stop,
    /// Log limiters for plain HTTP on a TLS port, and for other handshake failures.
    complaints: Arc<[Seldom; 2]>,
}

impl<H: Handler> Server<H> {
    /// Serves one connection until it ends.
    async fn connection(self, accepted: Accepted, watch: Watch) {
        let tls = self.handler.tls();
        let opened = tokio::select! {
            opened = accepted.open(tls.as_ref()) => opened,
            () = self.stop.stopped() => return,
        };
        match opened {
            Ok((stream, peer)) => self.requests(stream, peer, watch).await,
            Err(error) => self.complain(&error),
        }
    }

    async fn requests(self, stream: Box<dyn Stream>, peer: Peer, watch: Watch) {
        let Self { handler, protocols, stop, .. } = self;
        let service = service_fn(move |mut request| {
            let (handler, busy) = (handler.clone(), Busy::new(&watch));
            request.extensions_mut().insert(peer.clone());
            async move {
                let answered = handler.answer(request).await;
                // From here on, the client may read slowly or not at all.
                drop(busy);
                answered
            }
        });
        let io = TokioIo::new(stream);
        let mut served = pin!(protocols.serve_connection(io, service));
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = stop.stopped() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            debug!(error, "a connection ended early");
        }
    }

    /// Logs a failed handshake, with the number of failures since the last log line.
    fn complain(&self, error: &HandshakeError) {
        let [plain, others] = &*self.complaints;
        let (complaints, what) = match error {
            HandshakeError::Plain => {
                (plain, "refused plain HTTP on a TLS port: the client needs an https:// address")
            }
            HandshakeError::Slow | HandshakeError::Failed(_) => {
                (others, "TLS connections failed before they sent anything")
            }
        };
        if let Some(count) = complaints.note() {
            warn!(count, %error, "{what}");
        }
    }
}
