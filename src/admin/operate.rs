//! The operator's commands over HTTP, and who may give them.
//!
//! The admin port is on loopback, where every page in a browser on the same machine can reach it too. And it may listen everywhere,
//! in a container, without a key. So a command is taken only
//! * from a peer on this machine: others see health and figures, not payloads, and change nothing;
//! * for a `Host` that is an address or `localhost`: a page whose name was rebound to 127.0.0.1 has another;
//! * without an `Origin` of another place, and as a POST of `application/json`, which a page cannot send to another origin without
//!   asking first, and nobody answers that.
//!
//! Replays answer with one JSON object a line: `{"working": ...}` each second, then `{"done": ...}` or `{"error": ...}`. A caller
//! that hangs up ends its replay.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::interval;

use super::desk::SAY_EVERY;
use super::{Answer, Command, Desk, Refused, View, Working};
use crate::pipeline::Progress;

/// A command names some letters; this is thousands of them.
const COMMAND_BYTES_MAX: usize = 64 << 10;

/// Where each command goes, and how it is read.
const COMMANDS: &[(&str, Read)] = &[
    ("/api/v1/dead-letters/list", |body| Ok(Command::List(read(body)?))),
    ("/api/v1/dead-letters/show", |body| Ok(Command::Show(read(body)?))),
    ("/api/v1/dead-letters/drop", |body| Ok(Command::Drop(read(body)?))),
    ("/api/v1/dead-letters/replay", |body| Ok(Command::ReplayLetters(read(body)?))),
    ("/api/v1/replay", |body| Ok(Command::ReplayJournal(read(body)?))),
];

type Read = fn(&[u8]) -> Result<Command, Refused>;

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|problem| Refused::Mistake(problem.to_string()))
}

pub(super) fn routes() -> Router<Arc<View>> {
    let mut routes = Router::new();
    for &(path, read) in COMMANDS {
        let handle = async move |State(view): State<Arc<View>>,
                                 ConnectInfo(peer): ConnectInfo<SocketAddr>,
                                 headers: HeaderMap,
                                 body: Bytes| {
            match admitted(peer, &headers).and_then(|()| read(&body).map_err(Into::into)) {
                Ok(command) => carry_out(&view.desk, command).await,
                Err(denied) => denied.into_response(),
            }
        };
        routes = routes.route(path, post(handle));
    }
    routes.layer(DefaultBodyLimit::max(COMMAND_BYTES_MAX))
}

impl Command {
    /// Where it is sent, and what.
    pub fn request(&self) -> (&'static str, serde_json::Result<Vec<u8>>) {
        match self {
            Self::List(request) => ("/api/v1/dead-letters/list", serde_json::to_vec(request)),
            Self::Show(request) => ("/api/v1/dead-letters/show", serde_json::to_vec(request)),
            Self::Drop(request) => ("/api/v1/dead-letters/drop", serde_json::to_vec(request)),
            Self::ReplayLetters(request) => {
                ("/api/v1/dead-letters/replay", serde_json::to_vec(request))
            }
            Self::ReplayJournal(request) => ("/api/v1/replay", serde_json::to_vec(request)),
        }
    }

    fn takes_long(&self) -> bool {
        matches!(self, Self::ReplayLetters(_) | Self::ReplayJournal(_))
    }
}

// === Who may ===

/// Why a request is not even read.
#[derive(Debug, PartialEq, Eq)]
struct Denied {
    status: StatusCode,
    why: String,
}

impl Denied {
    fn because(status: StatusCode, why: &str) -> Self {
        Self { status, why: why.to_owned() }
    }
}

impl From<Refused> for Denied {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::Mistake(_) => StatusCode::BAD_REQUEST,
            Refused::NoLetter(_) => StatusCode::NOT_FOUND,
            Refused::Busy => StatusCode::CONFLICT,
            Refused::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, why: refused.to_string() }
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.why }).to_string() + "\n";
        (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

fn admitted(peer: SocketAddr, headers: &HeaderMap) -> Result<(), Denied> {
    if !peer.ip().to_canonical().is_loopback() {
        return Err(Denied::because(
            StatusCode::FORBIDDEN,
            "commands are taken from the same machine only: run spanferry there",
        ));
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if !is_address(host) {
        return Err(Denied::because(
            StatusCode::FORBIDDEN,
            "commands are taken for an address or localhost only, not for a name",
        ));
    }
    if text(header::ORIGIN).is_some_and(|origin| origin != format!("http://{host}")) {
        return Err(Denied::because(
            StatusCode::FORBIDDEN,
            "commands are not taken from pages of another origin",
        ));
    }
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Denied::because(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a command is application/json",
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

async fn carry_out(desk: &Arc<Desk>, command: Command) -> Response {
    if command.takes_long() {
        return replay(desk, command);
    }
    let (progress, _) = watch::channel(Progress::default());
    match desk.run(command, &progress).await {
        Ok(answer) => super::json(&answer),
        Err(refused) => Denied::from(refused).into_response(),
    }
}

/// Ends its task when it is dropped, which the server does when the caller hangs up.
struct Leash(AbortHandle);

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn replay(desk: &Arc<Desk>, command: Command) -> Response {
    // One line at a time: who reads slowly holds up words, not the replay, which says less then.
    let (lines, read) = mpsc::channel(1);
    let task = tokio::spawn(narrated(Arc::clone(desk), command, lines));
    let leash = Leash(task.abort_handle());
    let body = stream::unfold((read, leash), async |(mut read, leash)| {
        let line: String = read.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), (read, leash)))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}

async fn narrated(desk: Arc<Desk>, command: Command, lines: mpsc::Sender<String>) {
    let (progress, seen) = watch::channel(Progress::default());
    let running = desk.run(command, &progress);
    let mut running = std::pin::pin!(running);
    let mut ticks = interval(SAY_EVERY);
    ticks.tick().await;
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended,
            _ = ticks.tick() => {
                let working = Working { progress: seen.borrow().clone(), problems: desk.problems() };
                lines.try_send(json!({ "working": working }).to_string() + "\n").ok();
            }
        }
    };
    let last = match ended {
        Ok(answer) => last_line(&answer),
        Err(refused) => json!({ "error": refused.to_string() }),
    };
    lines.send(last.to_string() + "\n").await.ok();
}

fn last_line(answer: &Answer) -> serde_json::Value {
    json!({ "done": answer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{
        DropRequest, ListRequest, ReplayJournalRequest, ReplayLettersRequest, ShowRequest,
    };

    fn asked(peer: &str, headers: &[(&'static str, &str)]) -> u16 {
        let headers = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        admitted(peer.parse().unwrap(), &headers)
            .map_or_else(|denied| denied.status.as_u16(), |()| 200)
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
    fn every_command_is_read_from_what_it_is_sent_as() {
        for command in [
            Command::List(ListRequest::default()),
            Command::Show(ShowRequest::default()),
            Command::Drop(DropRequest::default()),
            Command::ReplayLetters(ReplayLettersRequest::default()),
            Command::ReplayJournal(ReplayJournalRequest::default()),
        ] {
            let (path, body) = command.request();
            let (_, read) = COMMANDS.iter().find(|(known, _)| *known == path).unwrap();
            assert_eq!(read(&body.unwrap()), Ok(command));
        }
        assert_eq!(COMMANDS.len(), 5);
        let (_, read) = COMMANDS[2];
        assert!(read(br#"{"wich":{}}"#).is_err(), "a misspelt selection must not mean everything");
    }
}
