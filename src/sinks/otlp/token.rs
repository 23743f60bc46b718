//! Exchanges a key for a token that a backend wants instead. It is requested before the first request, and again when it is rejected.
//!
//! AgentOps answers `{"api_key": ...}` with `{"token": ...}`. The token is valid for 30 days or until the customer's plan changes, and is
//! then rejected with 401 (<https://github.com/AgentOps-AI/agentops>, `app/api/agentops/api/{auth.py,routes/v3.py}`).

use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::Mutex;

use crate::sinks::http::classify::StatusClass;
use crate::sinks::http::{Address, ClientOptions, Endpoint, Response, secret_header};
use crate::sinks::{BuildError, Delivery, Report};
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
    endpoint: Endpoint,
    api_key: Secret,
    kept: Mutex<Option<HeaderValue>>,
}

impl Token {
    /// Starts without a token.
    pub(super) fn new(exchange: &Exchange, client: &ClientOptions) -> Result<Self, BuildError> {
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let endpoint = Endpoint::new(client, &exchange.address, HeaderMap::from_iter([json]))?;
        Ok(Self { endpoint, api_key: exchange.api_key.clone(), kept: Mutex::default() })
    }

    /// Returns an `authorization` header other than `refused`. Without a token, returns the report for the request.
    pub(super) async fn authorization(
        &self,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Report> {
        let mut kept = self.kept.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| Some(*token) != refused) {
            return Ok(token.clone());
        }
        *kept = None;
        let body = serde_json::json!({ "api_key": self.api_key.reveal() }).to_string();
        let request = self.endpoint.request(&Delivery::default(), body.into());
        let response = self.endpoint.send(&request).await?;
        Ok(kept.insert(read(&response)?).clone())
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
