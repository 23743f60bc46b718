//! A daemon in this process with a Langfuse as its backend.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use spanferry::config::{self, Environment};
use spanferry::daemon::{Addresses, Daemon};
use spanferry::support::stop::Stop;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::fake::Fake;

/// Everything takes seconds at most; roots wait until their trace has been quiet for ten.
const PATIENCE: Duration = Duration::from_mins(1);
const POLL_EVERY: Duration = Duration::from_millis(10);

pub(crate) struct World {
    pub(crate) fake: Fake,
    addresses: Addresses,
    stop: Stop,
    running: JoinHandle<anyhow::Result<()>>,
    client: Client<HttpConnector, Full<Bytes>>,
    _dir: TempDir,
}

impl World {
    /// Starts a daemon whose only sink is Langfuse, with these additional options.
    pub(crate) async fn start(options: &str) -> Self {
        let fake = Fake::start().await;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("spanferry.toml");
        let any_port = "127.0.0.1:0";
        let text = format!(
            "[receivers]\nhttp = {any_port:?}\ngrpc = {any_port:?}\n[admin]\nlisten = {any_port:?}\n\
             [journal]\ndir = '{}'\n[sinks.langfuse]\ntype = \"langfuse\"\n{}{options}",
            dir.path().join("journal").display(),
            fake.options(),
        );
        std::fs::write(&file, text).unwrap();
        let request = config::Request { files: vec![file], ..config::Request::default() };
        let loaded = config::load(&request, &Environment::default())
            .unwrap_or_else(|report| panic!("{report:?}"));
        let daemon = Daemon::build(loaded, Box::new(|_| ())).await.unwrap();
        let addresses = daemon.addresses().unwrap();
        let stop = Stop::default();
        let running = tokio::spawn(daemon.run(stop.clone()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { fake, addresses, stop, running, client, _dir: dir }
    }

    /// Returns the addresses for OTLP over HTTP and the Agents SDK's items, and for gRPC.
    pub(crate) fn doors(&self) -> (SocketAddr, SocketAddr) {
        let Addresses { http, grpc, .. } = &self.addresses;
        (http.socket().unwrap(), grpc.socket().unwrap())
    }

    /// Posts a body of the Agents SDK.
    pub(crate) async fn agents_sdk(&self, body: impl Into<Bytes>) {
        self.sdk_with("", body).await;
    }

    /// Posts it with this key.
    pub(crate) async fn sdk_with(&self, token: &str, body: impl Into<Bytes>) {
        let status = self.post("/v1/traces/ingest", ("application/json", ""), token, body.into());
        assert_eq!(status.await, 204);
    }

    /// Posts a body of an OTLP client.
    pub(crate) async fn otlp(&self, media_type: &str, coding: &str, body: impl Into<Bytes>) {
        assert_eq!(self.post("/v1/traces", (media_type, coding), "", body.into()).await, 200);
    }

    async fn post(
        &self,
        path: &str,
        (media_type, coding): (&str, &str),
        token: &str,
        body: Bytes,
    ) -> u16 {
        let mut request = Request::post(format!("http://{}{path}", self.addresses.http))
            .header("content-type", media_type);
        if !coding.is_empty() {
            request = request.header("content-encoding", coding);
        }
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).unwrap();
        self.client.request(request).await.unwrap().status().as_u16()
    }

    /// Returns the daemon's status of its sink.
    pub(crate) async fn sink(&self) -> Value {
        self.status().await["sinks"][0].clone()
    }

    /// Returns the daemon's status.
    pub(crate) async fn status(&self) -> Value {
        let address: SocketAddr = self.addresses.admin.socket().unwrap();
        let uri = format!("http://{address}/status").parse().unwrap();
        let answer = self.client.get(uri).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    /// Waits until the sink satisfies this.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Value, &Fake) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let sink = self.sink().await;
            if is_so(&sink, &self.fake) {
                return sink;
            }
            assert!(started.elapsed() < PATIENCE, "{what}: {sink}");
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Waits until nothing is pending, and checks that the counts add up.
    pub(crate) async fn settled(&self) -> Value {
        let sink = self.until("pending", |sink, _| sink["pending"] == 0).await;
        let count = |name: &str| sink[name].as_u64().unwrap();
        let gone = count("delivered") + count("dead_lettered") + count("filtered");
        assert_eq!(count("accepted"), gone, "{sink}");
        sink
    }

    pub(crate) async fn stop(self) {
        self.stop.stop();
        self.running.await.unwrap().unwrap();
    }
}
