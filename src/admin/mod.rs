//! The operator's interface: health, readiness, metrics, status and commands, on a separate port.
//!
//! | path | answer |
//! |---|---|
//! | `/ui/`; `/` redirects there | the console |
//! | `/health`, `/healthz`, `/` | 200 with JSON; `status` is `ok` or `degraded`; 503 only if nothing can be accepted |
//! | `/livez` | 200 while the runtime and the journal's thread make progress |
//! | `/readyz`, `/ready` | 200 while requests are accepted, even if a sink is down, of which `?verbose` tells |
//! | `/metrics` | `OpenMetrics` text |
//! | `/status` | the same metrics as JSON |
//! | `GET` and `POST /api/v1/traces`, `/api/v1/traces/{show,verify}`, `/api/v1/stats`, `POST /api/v1/traces/delivery` | lists of traces, their contents, and their delivery |
//! | `POST /api/v1/dead-letters/{list,show,replay,drop}`, `POST /api/v1/replay`, `POST /api/v1/reload` | operator commands |
//! | `/mcp` | trace views for language models |
//!
//! `access.rs` decides who may read metrics and give commands; health and readiness are open to everyone who can reach the port.

mod access;
mod mcp;
mod operate;
mod metrics;
mod page;
mod push;
mod status;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::feed::Feed;
use crate::operate::{Operator, RefusedReload};
use crate::pipeline::Lanes;
use crate::receivers::Receivers;
use crate::server::{self, Handler, HangUp, Limits, Listener, Tls, header_text};
use crate::support::stop::Stop;
use crate::telemetry::Metrics;

pub use access::{Access, Policy};
pub use push::Push;
pub use status::{JournalView, SinkView, Status};

/// Everything that admin can access.
#[derive(Debug)]
pub struct View {
    /// The journal and its tail.
    pub feed: Feed,
    /// `disk` or `memory`: the guarantee of an acknowledgement.
    pub mode: &'static str,
    /// The lanes.
    pub lanes: Lanes,
    /// Carries out commands.
    pub operator: Arc<Operator>,
    /// The counters of components.
    pub metrics: Metrics,
    /// Set when requests are no longer accepted.
    pub refusing: Stop,
    /// The receivers.
    pub receivers: Receivers,
    /// Who may read metrics and give commands.
    pub access: Access,
    /// The last reload, if it was refused.
    pub refused_reload: Mutex<Option<RefusedReload>>,
    /// When the daemon started.
    pub started: Instant,
}

/// Enough for probes, a few scrapers, and people.
const CONNECTIONS_MAX: usize = 128;
/// Time limit for answers in flight at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until `stop` is signalled.
pub async fn serve(listener: Listener, view: Arc<View>, stop: Stop) {
    let access = view.access.clone();
    server::serve(listener, Admin { routes: routes(view), access }, stop).await;
}

#[derive(Debug, Clone)]
struct Admin {
    routes: Router,
    access: Access,
}

impl Handler for Admin {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response, HangUp> {
        let answered = self.routes.clone().oneshot(access::with_host(request)).await;
        Ok(answered.unwrap_or_else(|never: Infallible| match never {}))
    }

    fn limits(&self) -> Limits {
        Limits { connections_max: CONNECTIONS_MAX, drain_timeout: DRAIN_TIMEOUT }
    }

    fn tls(&self) -> Option<Tls> {
        self.access.now().tls.clone()
    }
}

fn routes(view: Arc<View>) -> Router {
    let figures = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/status", get(async |State(view): State<Arc<View>>| json(&Status::of(&view))))
        .layer(from_fn_with_state(Arc::clone(&view), look));
    Router::new()
        .route("/", get(front))
        .route("/health", get(health))
        .route("/healthz", get(health))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .route("/ready", get(ready))
        .merge(figures)
        .merge(operate::routes())
        .merge(mcp::routes())
        .merge(page::routes())
        .fallback(async || (StatusCode::NOT_FOUND, DIRECTIONS))
        .with_state(view)
}

const DIRECTIONS: &str =
    "admin answers /ui/ /health /livez /readyz /metrics /status, and /api/v1/...\n";

/// Admits callers that may read metrics.
async fn look(State(view): State<Arc<View>>, request: Request, next: Next) -> Response {
    match view.access.now().may_look(request.extensions().get(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(denied) => denied.into_response(),
    }
}

/// Answers probes as the Collector's `health_check` does; redirects browsers to the console.
async fn front(view: State<Arc<View>>, headers: HeaderMap) -> Response {
    let accepted = header_text(&headers, header::ACCEPT);
    if accepted.is_some_and(|kinds| kinds.contains("text/html")) {
        Redirect::temporary("/ui/").into_response()
    } else {
        health(view).await
    }
}

async fn health(State(view): State<Arc<View>>) -> Response {
    let status = Status::of(&view);
    let code = if status.accepting { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, json(&status.health(&view))).into_response()
}

async fn alive(State(view): State<Arc<View>>) -> Response {
    let stuck = view.feed.journal().stuck_for().filter(|stuck| *stuck > STUCK_MAX);
    probed("alive", stuck.map(|stuck| format!("the journal's thread has been stuck for {stuck:?}")))
}

/// A disk that has not answered for this long is not slow but gone; only a restart can help.
const STUCK_MAX: Duration = Duration::from_secs(30);

async fn ready(State(view): State<Arc<View>>, uri: Uri) -> Response {
    let status = Status::of(&view);
    let answer = probed("ready", status.unready().map(|reason| format!("not ready: {reason}")));
    match uri.query() {
        Some("verbose") => (answer.status(), json(&status.health(&view))).into_response(),
        _ => answer,
    }
}

fn probed(well: &str, problem: Option<String>) -> Response {
    let status = if problem.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, problem.unwrap_or_else(|| well.to_owned()) + "\n").into_response()
}

/// Clients that ask for this format support exemplars; others might reject the whole page.
const EXEMPLARS_IN: &str = "application/openmetrics-text";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn metrics_text(State(view): State<Arc<View>>, headers: HeaderMap) -> Response {
    let accepts =
        |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains(EXEMPLARS_IN));
    let with_exemplars = headers.get_all(header::ACCEPT).iter().any(accepts);
    match metrics::text(&view, with_exemplars) {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn json(value: &impl serde::Serialize) -> Response {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
}
