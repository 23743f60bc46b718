//! The console at `/ui/`: a page and its assets, built from `page/` and embedded in the binary.
//!
//! The browser gets what it shows from the commands of this server, so access is decided there. The page loads nothing from other sites and
//! runs only its own scripts: data from clients appears on it only as text.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use super::View;
use super::access::Denied;

const HTML: &str = "text/html; charset=utf-8";
/// The answer for every address below `/ui/` that is not an asset; the page evaluates the address.
const INDEX: &[u8] = include_bytes!("page/built/index.html");
const PARTS: [(&str, &str, &[u8]); 3] = [
    ("/ui/app.js", "text/javascript; charset=utf-8", include_bytes!("page/built/app.js")),
    ("/ui/app.css", "text/css; charset=utf-8", include_bytes!("page/built/app.css")),
    ("/ui/icon.svg", "image/svg+xml", include_bytes!("page/built/icon.svg")),
];
/// Restrictions on the page in the browser. The browser revalidates on each load, so that it notices upgrades.
const RULES: [(HeaderName, &str); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-cache"),
];

pub(super) fn routes() -> Router<Arc<View>> {
    Router::new()
        .route("/ui", get(async || Redirect::temporary("/ui/")))
        .route("/ui/", get(answer))
        .route("/ui/{*rest}", get(answer))
        .layer(from_fn(async |request: Request, next: Next| {
            (RULES, next.run(request).await).into_response()
        }))
}

async fn answer(State(view): State<Arc<View>>, request: Request) -> Response {
    let peer = request.extensions().get();
    if let Err(Denied(status, why)) = view.access.now().may_open(peer, request.headers()) {
        return (status, [(CONTENT_TYPE, HTML)], off(&why)).into_response();
    }
    let part = PARTS.iter().find(|(name, ..)| *name == request.uri().path());
    let (kind, bytes) = part.map_or((HTML, INDEX), |(_, kind, bytes)| (*kind, *bytes));
    ([(CONTENT_TYPE, kind)], bytes).into_response()
}

/// Returns the page in place of the console. `why` is our own text.
fn off(why: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Spanferry</title>\
         <h1>The console is off</h1><p>{why}.</p></html>\n"
    )
}
