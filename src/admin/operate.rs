//! Operator commands over HTTP.
//!
//! The answer is one JSON object per line, [`Reply`]: for a replay, `{"working": ...}` each second, and for every command, `{"done": ...}`
//! or `{"error": ...}`. A client that hangs up ends its replay.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::View;
use super::access::{CHALLENGE, Denied};
use crate::operate::{
    Command, CommandError, DeliveryRequest, DropRequest, ListRequest, Operator, ReloadRequest,
    ReplayEntriesRequest, ReplayJournalRequest, Reply, ShowRequest, StatsRequest, TraceRequest,
    TracesRequest, VerifyRequest,
};

/// Maximum size of a command. It names entries, and this is enough for thousands.
const COMMAND_BYTES_MAX: usize = 64 << 10;
/// Time limit for a command's body; no real client is slower.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(10);

type Seen = State<Arc<View>>;

pub(super) fn routes() -> Router<Arc<View>> {
    let routes = look::<StatsRequest>(look::<TracesRequest>(Router::new()));
    look::<VerifyRequest>(look::<TraceRequest>(routes))
        .route(ListRequest::PATH, post(command::<ListRequest>))
        .route(ShowRequest::PATH, post(command::<ShowRequest>))
        .route(DropRequest::PATH, post(command::<DropRequest>))
        .route(ReplayEntriesRequest::PATH, post(command::<ReplayEntriesRequest>))
        .route(ReplayJournalRequest::PATH, post(command::<ReplayJournalRequest>))
        .route(DeliveryRequest::PATH, post(command::<DeliveryRequest>))
        .route(ReloadRequest::PATH, post(command::<ReloadRequest>))
}

/// Commands that change nothing are also available as GET, with their fields as a query.
fn look<C: Command>(routes: Router<Arc<View>>) -> Router<Arc<View>> {
    routes.route(C::PATH, post(command::<C>).get(query::<C>))
}

async fn command<C: Command>(State(view): Seen, request: Request) -> Result<Response, Denied> {
    carry_out(&view.operator, read::<C>(&body(&view, request).await?)?).await
}

async fn query<C: Command>(State(view): Seen, request: Request) -> Result<Response, Denied> {
    view.access.now().may_ask(request.extensions().get(), request.headers())?;
    let read = Query::<C>::try_from_uri(request.uri());
    let Query(command) = read.map_err(|problem| CommandError::Mistake(problem.body_text()))?;
    carry_out(&view.operator, command).await
}

/// Reads the body of a request from an authorized caller.
pub(super) async fn body(view: &View, request: Request) -> Result<Bytes, Denied> {
    view.access.now().may_command(request.extensions().get(), request.headers())?;
    let reading = timeout(COMMAND_TIME_MAX, to_bytes(request.into_body(), COMMAND_BYTES_MAX));
    let (status, why) = match reading.await {
        Ok(Ok(body)) => return Ok(body),
        Ok(Err(_)) => (StatusCode::PAYLOAD_TOO_LARGE, "the command is too large"),
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the command's body was not sent in time"),
    };
    Err(Denied(status, why.to_owned()))
}

fn read<C: Command>(body: &[u8]) -> Result<C, CommandError> {
    serde_json::from_slice(body).map_err(|problem| CommandError::Mistake(problem.to_string()))
}

// === Answers ===

impl From<CommandError> for Denied {
    fn from(error: CommandError) -> Self {
        let status = match error {
            CommandError::Mistake(_) => StatusCode::BAD_REQUEST,
            CommandError::NoEntry(_) | CommandError::NoTrace(_) => StatusCode::NOT_FOUND,
            CommandError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            CommandError::Busy | CommandError::Refused(_) | CommandError::NoIndex => {
                StatusCode::CONFLICT
            }
            CommandError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let Self(status, why) = self;
        let mut response = (status, json_line(line(&Reply::<()>::Error(why)))).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        response
    }
}

async fn carry_out<C: Command>(operator: &Arc<Operator>, command: C) -> Result<Response, Denied> {
    if C::IS_REPLAY {
        return Ok(replay(operator, command));
    }
    let answer = operator.carry_out(command, drop).await?;
    // A large trace takes tens of milliseconds to write and to free.
    let line = spawn_blocking(move || line(&Reply::Done(answer))).await;
    Ok(json_line(line.map_err(|_| CommandError::Stopping)?).into_response())
}

fn replay<C: Command>(operator: &Arc<Operator>, command: C) -> Response {
    // One line at a time: a slow client misses progress lines, but does not slow down the replay.
    let (lines, read) = mpsc::channel(1);
    let operator = Arc::clone(operator);
    // If the client hangs up, the body is dropped, and the replay with it.
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

fn json_line(line: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], line)
}

fn line<T: Serialize>(reply: &Reply<T>) -> String {
    serde_json::to_string(reply).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_selection_does_not_mean_everything() {
        assert!(read::<DropRequest>(br#"{"wich":{}}"#).is_err());
        assert!(read::<DropRequest>(br#"{"which":{"reasn":"400"}}"#).is_err());
        let read = read::<DropRequest>(br#"{"which":{"reason":"400"},"ids":[1]}"#);
        let which = crate::operate::Which { reason: Some("400".to_owned()), ..Default::default() };
        assert_eq!(read.unwrap(), DropRequest { which, ids: vec![1], ..DropRequest::default() });
    }

    #[test]
    fn a_query_says_the_same_as_a_body() {
        fn both<C: Command + PartialEq + std::fmt::Debug>(query: &str, body: &str) {
            let uri = format!("/?{query}").parse().unwrap();
            let Query(asked) = Query::<C>::try_from_uri(&uri).unwrap();
            assert_eq!(asked, read::<C>(body.as_bytes()).unwrap());
        }
        both::<TracesRequest>("", "{}");
        both::<TracesRequest>(
            "filter=agent%3A%22a+b%22%20dur:%3E2s&from=2h&limit=5&since=9&before=trace_1",
            r#"{"filter":["agent:\"a b\" dur:>2s"],"from":"2h","limit":5,"since":9,"before":"trace_1"}"#,
        );
        both::<StatsRequest>("by=tool&filter=x", r#"{"by":"tool","filter":"x"}"#);
        both::<TraceRequest>(
            "id=12345678901234567890123456789012&span=0000000000000001&as=otlp-json",
            r#"{"id":"12345678901234567890123456789012","span":"0000000000000001","as":"otlp-json"}"#,
        );
        for misspelt in ["/?fliter=x", "/?limit=many", "/?which=x"] {
            assert!(Query::<TracesRequest>::try_from_uri(&misspelt.parse().unwrap()).is_err());
        }
        assert!(read::<TracesRequest>(br#"{"fliter":"x"}"#).is_err());
        let nothing = br#"{"filter":null,"from":null,"limit":null}"#;
        assert_eq!(read::<TracesRequest>(nothing).unwrap(), TracesRequest::default());
        let problem = read::<StatsRequest>(br#"{"filter":5}"#).unwrap_err().to_string();
        assert!(problem.starts_with("a filter is a string, or a list of strings"), "{problem}");
    }
}
