//! The operator's commands over HTTP, and who may give them.
//!
//! The admin port is on loopback, where every page in a browser on the same machine can reach it too. And it may listen everywhere,
//! in a container, without a key. So a command is taken only
//! * from a peer on this machine: others see health and figures, not payloads, and change nothing;
//! * for a `Host` that is an address or `localhost`: a page whose name was rebound to 127.0.0.1 has another;
//! * without an `Origin` of another place, and as a POST of `application/json`, which a page cannot send to another origin without
//!   asking first, and nobody answers that.
//!
//! The answer is one JSON object a line, [`Reply`]: of a replay `{"working": ...}` each second, and of everything `{"done": ...}` or
//! `{"error": ...}`. A caller that hangs up ends its replay.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::View;
use crate::operate::{
    Command, CommandError, DropRequest, ListRequest, Operator, ReloadRequest, ReplayEntriesRequest,
    ReplayJournalRequest, Reply, ShowRequest,
};

/// A command names some entries; this is thousands of them.
const COMMAND_BYTES_MAX: usize = 64 << 10;

pub(super) fn routes() -> Router<Arc<View>> {
    let routes = route::<ListRequest>(Router::new());
    let routes = route::<DropRequest>(route::<ShowRequest>(routes));
    let routes = route::<ReloadRequest>(routes);
    let routes = route::<ReplayJournalRequest>(route::<ReplayEntriesRequest>(routes));
    routes.layer(DefaultBodyLimit::max(COMMAND_BYTES_MAX))
}

fn route<C: Command>(routes: Router<Arc<View>>) -> Router<Arc<View>> {
    let handle = async |State(view): State<Arc<View>>,
                        ConnectInfo(peer): ConnectInfo<SocketAddr>,
                        headers: HeaderMap,
                        body: Bytes| {
        match admitted(peer, &headers).and_then(|()| read::<C>(&body)) {
            Ok(command) => carry_out(&view.operator, command).await,
            Err(denied) => deny(denied),
        }
    };
    routes.route(C::PATH, post(handle))
}

fn read<C: Command>(body: &[u8]) -> Result<C, Denied> {
    let read = serde_json::from_slice(body);
    read.map_err(|problem| denied(&CommandError::Mistake(problem.to_string())))
}

// === Who may ===

/// Why a command is not carried out.
type Denied = (StatusCode, String);

fn denied(error: &CommandError) -> Denied {
    let status = match error {
        CommandError::Mistake(_) => StatusCode::BAD_REQUEST,
        CommandError::NoEntry(_) => StatusCode::NOT_FOUND,
        CommandError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        CommandError::Busy | CommandError::Refused(_) => StatusCode::CONFLICT,
        CommandError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

fn deny((status, why): Denied) -> Response {
    (status, one_line(&Reply::<()>::Error(why))).into_response()
}

fn admitted(peer: SocketAddr, headers: &HeaderMap) -> Result<(), Denied> {
    let forbidden = |why: &str| Err((StatusCode::FORBIDDEN, why.to_owned()));
    if !peer.ip().to_canonical().is_loopback() {
        return forbidden("commands are taken from the same machine only: run spanferry there");
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if !is_address(host) {
        return forbidden("commands are taken for an address or localhost only, not for a name");
    }
    if text(header::ORIGIN).is_some_and(|origin| origin != format!("http://{host}")) {
        return forbidden("commands are not taken from pages of another origin");
    }
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a command is application/json".to_owned(),
        ));
    }
    Ok(())
}

/// Whether a `Host` is an address or `localhost`, with or without a port.
fn is_address(host: &str) -> bool {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

// === Answers ===

async fn carry_out<C: Command>(operator: &Arc<Operator>, command: C) -> Response {
    if C::IS_REPLAY {
        return replay(operator, command);
    }
    match operator.carry_out(command, drop).await {
        Ok(answer) => one_line(&Reply::Done(answer)).into_response(),
        Err(error) => deny(denied(&error)),
    }
}

fn replay<C: Command>(operator: &Arc<Operator>, command: C) -> Response {
    // One line at a time: who reads slowly holds up words, not the replay, which says less then.
    let (lines, read) = mpsc::channel(1);
    let operator = Arc::clone(operator);
    // The body is dropped when the caller hangs up, and the replay with it.
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let tell = |working| drop(lines.try_send(line(&Reply::<C::Answer>::Working(working))));
        let last = match operator.carry_out(command, tell).await {
            Ok(answer) => Reply::Done(answer),
            Err(error) => Reply::Error(error.to_string()),
        };
        lines.send(line(&last)).await.ok();
    }));
    let body = stream::unfold((read, task), async |(mut read, task)| {
        let line: String = read.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), (read, task)))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}

fn one_line<T: Serialize>(reply: &Reply<T>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], line(reply))
}

fn line<T: Serialize>(reply: &Reply<T>) -> String {
    serde_json::to_string(reply).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(peer: &str, headers: &[(&'static str, &str)]) -> u16 {
        let headers = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        admitted(peer.parse().unwrap(), &headers)
            .map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn commands_are_taken_from_this_machine_and_never_from_a_page() {
        let json = ("content-type", "application/json; charset=utf-8");
        let host = ("host", "127.0.0.1:13133");
        for (peer, headers, expected) in [
            ("127.0.0.1:5", vec![host, json], 200),
            ("[::1]:5", vec![("host", "[::1]:13133"), json], 200),
            ("[::ffff:127.0.0.1]:5", vec![("host", "localhost"), json], 200),
            ("127.0.0.1:5", vec![host, json, ("origin", "http://127.0.0.1:13133")], 200),
            ("10.0.0.9:5", vec![host, json], 403),
            ("127.0.0.1:5", vec![("host", "rebound.example:13133"), json], 403),
            ("127.0.0.1:5", vec![("host", "localhost.example"), json], 403),
            ("127.0.0.1:5", vec![json], 403),
            ("127.0.0.1:5", vec![host, json, ("origin", "https://page.example")], 403),
            ("127.0.0.1:5", vec![host, json, ("origin", "null")], 403),
            ("127.0.0.1:5", vec![host], 415),
            ("127.0.0.1:5", vec![host, ("content-type", "text/plain")], 415),
        ] {
            assert_eq!(asked(peer, &headers), expected, "{peer} {headers:?}");
        }
    }

    #[test]
    fn a_misspelt_selection_does_not_mean_everything() {
        assert!(read::<DropRequest>(br#"{"wich":{}}"#).is_err());
        assert!(read::<DropRequest>(br#"{"which":{"reasn":"400"}}"#).is_err());
        let read = read::<DropRequest>(br#"{"which":{"reason":"400"},"ids":[1]}"#);
        let which = crate::operate::Which { reason: Some("400".to_owned()), ..Default::default() };
        assert_eq!(read.unwrap(), DropRequest { which, ids: vec![1], ..DropRequest::default() });
    }
}
