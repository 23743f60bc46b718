//! A plain HTTP client for a node, with JSON bodies.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize as _;
use serde_json::{Value, json};

/// How often and how long a request waits for the shards of a new index to start.
const STARTS_MAX: u32 = 100;
const START_POLL: Duration = Duration::from_millis(100);

/// A client of one node.
pub(crate) struct Client {
    port: u16,
    http: legacy::Client<HttpConnector, Full<Bytes>>,
}

impl Client {
    pub(super) fn new(port: u16) -> Self {
        // A pooled connection would end with the test that opened it, but other tests may use the node.
        let mut http = legacy::Client::builder(TokioExecutor::new());
        Self { port, http: http.pool_max_idle_per_host(0).build_http() }
    }

    /// Sends a GET; `None` without an answer.
    pub(super) async fn try_get(&self, path: &str) -> Option<(u16, Value)> {
        self.send(Method::GET, path, "application/json", Bytes::new()).await.ok()
    }

    /// Returns the contents of a path. Fails the test on anything but success.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.expect(Method::GET, path, &Value::Null).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        self.expect(Method::PUT, path, &body).await
    }

    /// Returns whether the server accepts a PUT.
    pub(crate) async fn takes(&self, path: &str, body: &Value) -> bool {
        let body = body.to_string().into();
        self.send(Method::PUT, path, "application/json", body).await.unwrap().0 == 200
    }

    pub(crate) async fn delete(&self, path: &str) {
        self.expect(Method::DELETE, path, &Value::Null).await;
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.expect(Method::POST, path, &body).await
    }

    /// Writes documents, each with its index and id, and makes them visible. Fails the test unless all are accepted.
    pub(crate) async fn fill<'a>(
        &self,
        documents: impl IntoIterator<Item = (&'a str, &'a str, Value)>,
    ) {
        let mut body = String::new();
        for (index, id, document) in documents {
            let action = json!({ "index": { "_index": index, "_id": id } });
            writeln!(body, "{action}\n{document}").unwrap();
        }
        let sent =
            self.send(Method::POST, "/_bulk?refresh=true", "application/x-ndjson", body.into());
        let (status, answer) = sent.await.unwrap();
        assert!(status == 200 && answer["errors"] == false, "{status} {answer}");
    }

    /// Returns the complete answer to a search.
    pub(crate) async fn search(&self, index: &str, body: Value) -> Value {
        self.post(&format!("/{index}/_search"), body).await
    }

    async fn expect(&self, method: Method, path: &str, body: &Value) -> Value {
        let sent: Bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        for _ in 0..STARTS_MAX {
            let sent = self.send(method.clone(), path, "application/json", sent.clone());
            let (status, answer) = sent.await.unwrap();
            // The shards of a new index may not have started.
            if status != 503 {
                assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
                return answer;
            }
            tokio::time::sleep(START_POLL).await;
        }
        panic!("{method} {path}: 503 for {:?}", START_POLL * STARTS_MAX);
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        media: &str,
        body: Bytes,
    ) -> Result<(u16, Value), Box<dyn std::error::Error>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{path}", self.port))
            .header("content-type", media)
            .body(Full::new(body))?;
        let response = self.http.request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, parse(&body)))
    }
}

/// Parses JSON; invalid JSON becomes null. Nesting is unlimited, since documents hold whatever clients sent.
fn parse(body: &[u8]) -> Value {
    let mut reader = serde_json::Deserializer::from_slice(body);
    reader.disable_recursion_limit();
    Value::deserialize(&mut reader).unwrap_or(Value::Null)
}
