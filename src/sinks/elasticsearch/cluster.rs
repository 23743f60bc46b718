//! The endpoints of one cluster: the order in which they are tried, and how long a failed one is avoided.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use tokio::time::Instant;

use super::options::Settings;
use super::response::{error_of, explained};
use crate::sinks::http::classify::StatusClass;
use crate::sinks::http::{Client, ClientOptions, Request, RequestError, Response};
use crate::sinks::{BuildError, Report};
use crate::support::lock::lock;

/// Sends requests to the least busy endpoint.
#[derive(Debug)]
pub(super) struct Cluster {
    client: Client,
    headers: HeaderMap,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    base: String,
    /// Its reference count is one more than its number of requests, so a cancelled request no longer counts either.
    in_flight: Arc<()>,
    /// Until when it is avoided, because it failed.
    rests_until: Mutex<Option<Instant>>,
}

/// Why the backend did not fulfil a request, without payload text.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct ClusterError {
    pub(super) why: Why,
    pub(super) reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It is unreachable, fails, or does not know the key: a retry may succeed.
    Away,
    /// The key lacks a privilege.
    Forbidden,
    /// The resource does not exist.
    Missing,
    /// It rejects the request as invalid.
    Refused,
}

impl ClusterError {
    pub(super) fn away(reason: impl Into<String>) -> Self {
        Self { why: Why::Away, reason: reason.into() }
    }

    /// Returns the report for a delivery.
    pub(super) fn report(self) -> Report {
        match self.why {
            Why::Away => Report::down(None, self.reason),
            Why::Forbidden | Why::Missing | Why::Refused => Report::hold(self.reason),
        }
    }
}

/// A report of why nothing can be delivered now: the next attempt may succeed.
impl From<Report> for ClusterError {
    fn from(held: Report) -> Self {
        Self::away(held.pace.reason().unwrap_or_default())
    }
}

/// How long an endpoint is avoided after a failure, if there are others: long compared to a timeout, and short enough that a recovered node
/// is soon used again.
const REST: Duration = Duration::from_secs(30);
/// The longest answer, in bytes. A bulk answer has 100 bytes for each stored document, and more for each error.
const RESPONSE_BYTES_MAX: usize = 32 << 20;

impl Cluster {
    /// Reads certificates, without connecting.
    pub(super) fn new(settings: &Settings) -> Result<Self, BuildError> {
        let endpoint = |uri: &Uri| Endpoint {
            base: uri.to_string().trim_end_matches('/').to_owned(),
            in_flight: Arc::default(),
            rests_until: Mutex::default(),
        };
        let client = settings.options.connection.client();
        Ok(Self {
            client: Client::new(&ClientOptions {
                response_bytes_max: RESPONSE_BYTES_MAX,
                ..client
            })?,
            headers: settings.headers.clone(),
            endpoints: settings.endpoints.iter().map(endpoint).collect(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Sends a request with JSON and returns a successful answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Response, ClusterError> {
        let answer = self.send(method, path, HeaderMap::new(), body).await;
        let response = answer.map_err(|failure| ClusterError::away(failure.to_string()))?;
        let (error, reason) = error_of(&response.body);
        let why = match (response.class(), response.status) {
            (StatusClass::Taken, _) => return Ok(response),
            // Elasticsearch and OpenSearch use this status for some mapping conflicts, such as "the [enabled] parameter can't be updated".
            // Which of several conflicts is reported first varies between starts of a server.
            (StatusClass::Fault, _) if error == "mapper_exception" => Why::Refused,
            (StatusClass::TooLarge | StatusClass::Malformed, _) => Why::Refused,
            (StatusClass::Stop, StatusCode::FORBIDDEN) => Why::Forbidden,
            // If the key is unknown now, its privileges are unknown, too.
            (StatusClass::Stop, status) if status != StatusCode::UNAUTHORIZED => Why::Missing,
            _ => Why::Away,
        };
        Err(ClusterError { why, reason: explained(&response.reason(), &error, &reason) })
    }

    /// Sends a request and returns any answer. Tries the endpoints until one can answer: the least busy first, and recently failed ones
    /// last. A request may be sent twice, because documents have ids.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        more_headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Result<Response, RequestError> {
        let (body, mut headers) = (body.into(), self.headers.clone());
        headers.extend(more_headers);
        if !body.is_empty() {
            // A multi search has one query per line, and a bulk request one document.
            let is_lines = path.ends_with("/_msearch") || path.starts_with("/_bulk");
            let kind = if is_lines { "application/x-ndjson" } else { "application/json" };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let now = Instant::now();
        let mut endpoints: Vec<&Endpoint> = self.endpoints.iter().collect();
        endpoints.sort_by_cached_key(|endpoint| {
            let rests_until = lock(&endpoint.rests_until).filter(|until| now < *until);
            (rests_until, Arc::strong_count(&endpoint.in_flight))
        });
        let mut last = Err(RequestError::Connect("there is no endpoint".to_owned()));
        for endpoint in endpoints {
            let Ok(uri) = format!("{}{path}", endpoint.base).parse::<Uri>() else {
                return Err(RequestError::Connect("the address cannot be read".to_owned()));
            };
            let (method, headers, body) = (method.clone(), headers.clone(), body.clone());
            let _in_flight = Arc::clone(&endpoint.in_flight);
            last = self.client.send(&Request { method, uri, headers, body }).await;
            let works =
                last.as_ref().is_ok_and(|answer| !matches!(answer.status.as_u16(), 502..=504));
            *lock(&endpoint.rests_until) = (!works).then(|| Instant::now() + REST);
            // Otherwise another endpoint may succeed.
            if works {
                break;
            }
        }
        last
    }
}
