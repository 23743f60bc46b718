//! A daemon in this process, and a client for it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use spanferry::config::{self, Environment, Request};
use spanferry::daemon::Daemon;
use spanferry::support::stop::Stop;
use tokio::task::JoinHandle;

/// Maximum time to wait for an expected event.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running daemon.
pub(crate) struct Running {
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    stop: Stop,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Starts a daemon with its state in this directory and these lines for `[sinks.openai]`.
    pub(crate) async fn start(dir: &Path, options: &str) -> Self {
        let file = dir.join("spanferry.toml");
        let text = format!(
            "shutdown_timeout = \"3s\"\n\
             [receivers]\nhttp = \"127.0.0.1:0\"\ngrpc = \"127.0.0.1:0\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\
             [journal]\ndir = '{}'\n\
             [sinks.openai]\ntype = \"openai\"\n{options}\n\
             batch = {{ age_max = \"20ms\" }}\nretry = {{ first = \"20ms\", hold = \"100ms\" }}\n",
            dir.join("journal").display()
        );
        std::fs::write(&file, text).unwrap();
        let request = Request { files: vec![file], flags: Vec::new() };
        let loaded = config::load(&request, &Environment::default());
        let loaded = loaded.unwrap_or_else(|report| panic!("{report:?}"));
        let daemon = Daemon::build(loaded, Box::new(|_| ())).await.unwrap();
        let addresses = daemon.addresses().unwrap();
        let stop = Stop::default();
        let task = tokio::spawn(daemon.run(stop.clone()));
        let (http, admin) = (addresses.http.socket().unwrap(), addresses.admin.socket().unwrap());
        Self { http, admin, stop, task }
    }

    /// Posts a body of the ingest format, which must be accepted.
    pub(crate) async fn ingest(&self, headers: &[(&str, &str)], body: impl Into<Bytes>) {
        let status = post(self.http, "/v1/traces/ingest", headers, body.into()).await;
        assert_eq!(status, 204);
    }

    /// Returns the `/status` of the sink.
    pub(crate) async fn sink(&self) -> Value {
        let status: Value = get(self.admin, "/status").await;
        status["sinks"][0].clone()
    }

    /// Waits until nothing is pending; returns the `/status` of the sink.
    pub(crate) async fn settled(&self) -> Value {
        self.until("everything is settled", |sink| sink["pending"] == 0 && sink["accepted"] != 0)
            .await
    }

    /// Waits until the `/status` of the sink satisfies this.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let sink = self.sink().await;
            if is_so(&sink) {
                return sink;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {sink}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns the answer of `/health`.
    pub(crate) async fn health(&self) -> Value {
        get(self.admin, "/health").await
    }

    /// Stops it in an orderly way.
    pub(crate) async fn stop(self) {
        self.stop.stop();
        self.task.await.unwrap().unwrap();
    }
}

/// Posts; returns the status.
pub(crate) async fn post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> u16 {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut request = hyper::Request::post(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Full::new(body)).unwrap()).await.unwrap();
    response.status().as_u16()
}

async fn get(address: SocketAddr, path: &str) -> Value {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let response = client.get(format!("http://{address}{path}").parse().unwrap()).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}
