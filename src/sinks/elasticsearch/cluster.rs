//! The endpoints of one cluster: which of them is asked next, and for how long one that fails is left alone.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use tokio::time::Instant;

use super::options::Settings;
use super::response::error_of;
use crate::sinks::BuildError;
use crate::sinks::http::classify::StatusClass;
use crate::sinks::http::{Client, Failure, Request, Response};
use crate::support::backoff::Backoff;
use crate::support::lock::lock;

/// Sends requests to whichever endpoint is the least busy.
#[derive(Debug)]
pub(super) struct Cluster {
    client: Client,
    headers: HeaderMap,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    base: String,
    /// As many times shared as it has requests, and once more. A request that is given up is no longer in flight either.
    in_flight: Arc<()>,
    rest: Mutex<Rest>,
}

#[derive(Debug)]
struct Rest {
    backoff: Backoff,
    until: Option<Instant>,
}

/// Why the backend did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Obstacle {
    /// It cannot be reached, fails, or does not know the key: it may work later.
    #[error("{0}")]
    Away(String),
    /// The key may not.
    #[error("{0}")]
    Forbidden(String),
    /// It has no such thing.
    #[error("{0}")]
    Missing(String),
    /// It will not take it as it is.
    #[error("{0}")]
    Refused(String),
}

/// The first wait after a failure of an endpoint, where there are others.
const REST_FIRST: Duration = Duration::from_secs(1);
/// The longest: a node that is back should not stay idle for long.
const REST_LONGEST: Duration = Duration::from_mins(1);

impl Cluster {
    /// Reads certificates; connects to nobody.
    pub(super) fn new(settings: &Settings) -> Result<Self, BuildError> {
        let endpoint = |uri: &Uri| Endpoint {
            base: uri.to_string().trim_end_matches('/').to_owned(),
            in_flight: Arc::default(),
            rest: Mutex::new(Rest { backoff: Backoff::new(REST_FIRST, REST_LONGEST), until: None }),
        };
        Ok(Self {
            client: Client::new(&settings.client())?,
            headers: settings.headers.clone(),
            endpoints: settings.endpoints.iter().map(endpoint).collect(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Asks for something, with JSON, and returns an answer that says yes.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Response, Obstacle> {
        let answer = self.ask_plainly(method, path, body).await;
        let response = answer.map_err(|failure| Obstacle::Away(failure.to_string()))?;
        let class = response.class();
        if class == StatusClass::Taken {
            return Ok(response);
        }
        let (status, (error, reason)) = (response.reason(), error_of(&response.body));
        let said = if error.is_empty() { status } else { format!("{status}: {error}: {reason}") };
        match class {
            StatusClass::Taken => Ok(response),
            // Elasticsearch's and OpenSearch's status for some conflicts of mappings, such as "the [enabled] parameter can't be updated".
            // Which of several conflicts is said first differs from one start of a server to the next.
            StatusClass::Fault if error == "mapper_exception" => Err(Obstacle::Refused(said)),
            StatusClass::Retry { .. } | StatusClass::Throttled { .. } | StatusClass::Fault => {
                Err(Obstacle::Away(said))
            }
            StatusClass::TooLarge | StatusClass::Malformed => Err(Obstacle::Refused(said)),
            StatusClass::Stop => Err(match response.status {
                // A key that is not known now says nothing about what it may do when it is.
                StatusCode::UNAUTHORIZED => Obstacle::Away(said),
                StatusCode::FORBIDDEN => Obstacle::Forbidden(said),
                _ => Obstacle::Missing(said),
            }),
        }
    }

    /// The same, whatever the answer says.
    pub(super) async fn ask_plainly(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Response, Failure> {
        let mut headers = HeaderMap::new();
        if body.is_some() {
            // Where an answer to several questions is asked for, each stands on a line.
            let is_lines = path.ends_with("/_msearch");
            let kind = if is_lines { "application/x-ndjson" } else { "application/json" };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        self.send(&method, path, &headers, body.map(Bytes::from).unwrap_or_default()).await
    }

    /// Sends a request to one endpoint after the other until one of them can answer it. Requests may be sent twice: what they
    /// store has an id.
    pub(super) async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response, Failure> {
        let mut tried = vec![false; self.endpoints.len()];
        let mut last = Err(Failure::Connect("there is no endpoint".to_owned()));
        while let Some(at) = self.next(&tried) {
            let Some((endpoint, tried)) = self.endpoints.get(at).zip(tried.get_mut(at)) else {
                break;
            };
            *tried = true;
            let Ok(uri) = format!("{}{path}", endpoint.base).parse::<Uri>() else {
                return Err(Failure::Connect("the address cannot be read".to_owned()));
            };
            let mut all = self.headers.clone();
            all.extend(headers.clone());
            let request = Request { method: method.clone(), uri, headers: all, body: body.clone() };
            let _in_flight = Arc::clone(&endpoint.in_flight);
            last = self.client.send(&request).await;
            if !is_the_endpoints_fault(&last) {
                endpoint.works();
                return last;
            }
            endpoint.failed();
        }
        last
    }

    /// The least busy of those that were not tried; one that failed of late only where there is no other.
    fn next(&self, tried: &[bool]) -> Option<usize> {
        let now = Instant::now();
        let left = self.endpoints.iter().enumerate().zip(tried).filter(|(_, tried)| !**tried);
        left.map(|((at, endpoint), _)| {
            let rests_until = endpoint.rest().until.filter(|until| now < *until);
            (rests_until, Arc::strong_count(&endpoint.in_flight), at)
        })
        .min()
        .map(|(_, _, at)| at)
    }
}

impl Endpoint {
    fn works(&self) {
        let mut rest = self.rest();
        rest.backoff.reset();
        rest.until = None;
    }

    fn failed(&self) {
        let mut rest = self.rest();
        let wait = rest.backoff.next_wait();
        rest.until = Some(Instant::now() + wait);
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        lock(&self.rest)
    }
}

/// Whether another endpoint may do better.
fn is_the_endpoints_fault(answer: &Result<Response, Failure>) -> bool {
    answer.as_ref().map_or(true, |answer| matches!(answer.status.as_u16(), 502..=504))
}
