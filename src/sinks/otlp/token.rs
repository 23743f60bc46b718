//! Exchanges a key for a token that a backend wants instead. It is requested before the first request, and again when it is rejected.
//!
//! AgentOps answers `{"api_key": ...}` with `{"token": ...}`. The token is valid for 30 days or until the customer's plan changes, and is
//! then rejected with 401 (<https://github.com/AgentOps-AI/agentops>, `app/api/agentops/api/{auth.py,routes/v3.py}`).

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method};
use tokio::sync::Mutex;

use crate::sinks::Report;
use crate::sinks::http::classify::StatusClass;
use crate::sinks::http::{Address, Client, Request, Response, secret_header};
use crate::support::json::raw::Raw;
use crate::support::secret::Secret;

/// Where a key is exchanged for a token.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The address of the exchange.
    pub address: Address,
    /// The key.
    pub api_key: Secret,
}

/// The current token. Concurrent requests that need one wait for a single exchange.
#[derive(Debug)]
pub(super) struct Token {
    exchange: Exchange,
    kept: Mutex<Option<HeaderValue>>,
}

impl Token {
    /// Starts without a token.
    pub(super) fn new(exchange: Exchange) -> Self {
        Self { exchange, kept: Mutex::default() }
    }

    /// Returns an `authorization` header other than `refused`. Without a token, returns the report for the request.
    pub(super) async fn authorization(
        &self,
        client: &Client,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Report> {
        let mut kept = self.kept.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| Some(*token) != refused) {
            return Ok(token.clone());
        }
        *kept = None;
        let response = client.send(&self.request()).await.map_err(|failure| failure.report())?;
        Ok(kept.insert(read(&response)?).clone())
    }

    fn request(&self) -> Request {
        let body = serde_json::json!({ "api_key": self.exchange.api_key.reveal() }).to_string();
        Request {
            method: Method::POST,
            uri: self.exchange.address.uri().cloned().unwrap_or_default(),
            headers: HeaderMap::from_iter([(
                CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )]),
            body: Bytes::from(body),
        }
    }
}

fn read(response: &Response) -> Result<HeaderValue, Report> {
    let reason = format!("the backend gave no token for the key: {}", response.reason());
    match response.class() {
        StatusClass::Taken => {
            let answer = std::str::from_utf8(&response.body).ok().and_then(Raw::parse);
            let token = answer.and_then(|answer| answer.get_string("token"));
            token
                .and_then(|token| secret_header(&format!("Bearer {token}")))
                .ok_or_else(|| Report::hold(format!("{reason}, but without a token")))
        }
        // The backend has not seen any of the items.
        StatusClass::Fault => Err(Report::down(None, reason)),
        StatusClass::TooLarge | StatusClass::Malformed => Err(Report::hold(reason)),
        class => Err(class.report(reason, String::new)),
    }
}
