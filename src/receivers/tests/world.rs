//! Receivers on a loopback port, and clients that send exactly what the test says.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rustls::ClientConfig;
use rustls::version::TLS13;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::feed::{Feed, FeedOptions};
use crate::journal::{self, Journal, MemoryStorage, Position};
use crate::normalize::{Decoded, Envelope, decode_record};
use crate::receivers::*;
use crate::server::{self, ClientAuth, Listener, Tls, TlsOptions};
use crate::support::authority::{Authority, connect};
use crate::support::golden::Fixture;

pub(super) const TRACES: &str = "/v1/traces";
pub(super) const INGEST: &str = "/v1/traces/ingest";
pub(super) const RPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub(super) const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
pub(super) const JSON: (&str, &str) = ("content-type", "application/json");
pub(super) const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// Running receivers.
pub(super) struct World {
    pub(super) address: SocketAddr,
    pub(super) receivers: Receivers,
    pub(super) feed: Feed,
    pub(super) metrics: Metrics,
    pub(super) refusing: Stop,
    pub(super) stop: Stop,
    pub(super) served: JoinHandle<()>,
    /// The client's TLS configuration, if TLS is used.
    pub(super) client: Option<ClientConfig>,
}

impl World {
    /// Opens receivers with default settings.
    pub(super) async fn open() -> Self {
        Self::with(ReceiverOptions::default()).await
    }

    /// Opens receivers with these settings.
    pub(super) async fn with(options: ReceiverOptions) -> Self {
        Self::over(options, &journal::Options::default()).await
    }

    /// Opens receivers with these settings and TLS, and a client that may present a certificate with this name.
    pub(super) async fn encrypted(
        mut options: ReceiverOptions,
        client_auth: Option<ClientAuth>,
        shown: Option<&str>,
    ) -> Self {
        let authority = Authority::new();
        authority.renew("localhost");
        let mut tls: TlsOptions = toml::from_str(&authority.options()).expect("options");
        let client_ca = authority.path("ca.pem").display().to_string();
        tls.client_ca = client_auth.is_some().then_some(client_ca);
        tls.client_auth = client_auth;
        options.tls = Some(tls);
        let client = authority.client(&[&TLS13], shown.map(|name| authority.sign(name)));
        Self { client: Some(client), ..Self::with(options).await }
    }

    /// Opens receivers with these settings of the journal.
    pub(super) async fn over(options: ReceiverOptions, journal: &journal::Options) -> Self {
        let storage = || Arc::new(MemoryStorage::default());
        let quarantine =
            Journal::open(&journal::Options::default(), storage(), |_| ()).expect("a quarantine");
        let feed_options =
            FeedOptions { ack_wait: Duration::from_millis(50), ..FeedOptions::default() };
        let feed = Feed::open(&feed_options, journal, storage(), quarantine).expect("a feed");
        let (metrics, refusing, stop) = (Metrics::default(), Stop::default(), Stop::default());
        let tls = options.tls.as_ref().map(|options| Tls::open("receivers", options));
        let tls = tls.transpose().expect("certificates");
        let (intake, refusing_too) = (feed.intake(), refusing.clone());
        let sinks = vec!["lake".to_owned()];
        let settings = Settings { options, tls, sinks, ..Settings::default() };
        let receivers = Receivers::new(settings, intake, metrics.clone(), refusing_too);
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener::bind(&address).await.expect("a port");
        let address = listener.address().expect("an address").socket().expect("a port");
        let served = tokio::spawn(server::serve(listener, receivers.clone(), stop.clone()));
        Self { address, receivers, feed, metrics, refusing, stop, served, client: None }
    }

    /// Sends a request on a new connection.
    pub(super) async fn send(&self, request: Request<Pieces>) -> Answer {
        self.try_send(request).await.expect("an answer")
    }

    /// Sends a request on a new connection; `None` if it is closed without an answer.
    pub(super) async fn try_send(&self, request: Request<Pieces>) -> Option<Answer> {
        match &self.client {
            None => {
                let stream = TcpStream::connect(self.address).await.expect("a connection");
                send_over(stream, request).await
            }
            Some(client) => {
                let mut client = client.clone();
                let protocol = if request.version() == Version::HTTP_2 { "h2" } else { "http/1.1" };
                client.alpn_protocols = vec![protocol.into()];
                send_over(connect(self.address, client).await.ok()?, request).await
            }
        }
    }

    /// Posts a body with these headers.
    pub(super) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.send(post(path, headers, Pieces::whole(body))).await
    }

    /// Calls a gRPC method with a message.
    pub(super) async fn call(&self, path: &str, message: &[u8]) -> Answer {
        let mut request = post(path, &[GRPC, ("te", "trailers")], Pieces::framed(0, message));
        *request.version_mut() = Version::HTTP_2;
        self.send(request).await
    }

    /// Returns everything that is stored.
    pub(super) fn kept(&self) -> Vec<(Envelope, Decoded)> {
        let mut reader = self.feed.journal().read_from(Position(0));
        let mut kept = Vec::new();
        while let Some(record) = reader.next().expect("the journal can be read") {
            kept.push(
                decode_record(&record.payload.expect("a record is whole"))
                    .expect("a record can be read"),
            );
        }
        kept
    }

    /// Returns the numbers of stored and of quarantined items.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.feed.journal().end().items, self.feed.quarantine().end().items)
    }

    /// Returns a metric.
    pub(super) fn figure(&self, name: &str) -> Option<f64> {
        let mut registry = Registry::with_prefix("spanferry");
        self.metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).expect("figures are text");
        let line = text
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Closes the receivers and waits until the last connection is closed.
    pub(super) async fn close(self) {
        self.stop.stop();
        self.served.await.expect("the receivers close");
    }

    /// Sends raw bytes and reads until the connection is closed.
    pub(super) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(bytes).await.expect("bytes can be sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Sends a request on a connection; `None` if it is closed without an answer.
async fn send_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Pieces>,
) -> Option<Answer> {
    let io = TokioIo::new(stream);
    let response = if request.version() == Version::HTTP_2 {
        let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
        let (mut sender, connection) = shaken.expect("HTTP/2");
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    Some(Answer::of(response.ok()?).await)
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
}

impl Answer {
    async fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let collected = body.collect().await;
        let trailers =
            collected.as_ref().ok().and_then(Collected::trailers).cloned().unwrap_or_default();
        let body = collected.map(Collected::to_bytes).unwrap_or_default();
        Self { status: head.status, headers: head.headers, body, trailers }
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the answer is JSON")
    }

    /// Returns the code of a gRPC call, which is in the trailers, or in the headers if there is no message.
    pub(super) fn grpc_status(&self) -> u64 {
        assert_eq!(self.status, StatusCode::OK);
        let in_headers = self.headers.get("grpc-status");
        assert!(in_headers.is_none() || self.body.is_empty(), "an error has no message");
        let value: Option<&HeaderValue> = in_headers.or(self.trailers.get("grpc-status"));
        value.expect("a code").to_str().expect("a code is text").parse().expect("a number")
    }

    /// Returns the message of a gRPC answer without its prefix.
    pub(super) fn message(&self) -> Bytes {
        assert_eq!(self.body[0], 0, "the answer is not compressed");
        assert_eq!(
            u32::from_be_bytes(self.body[1..5].try_into().expect("four bytes")) as usize,
            self.body.len() - 5
        );
        self.body.slice(5..)
    }
}

/// A body that is sent in pieces, with an announced length or chunked.
#[derive(Debug)]
pub(super) struct Pieces {
    left: VecDeque<Bytes>,
    announced: Option<u64>,
    /// Whether the body never ends.
    endless: bool,
}

impl Pieces {
    /// Creates a body with its length.
    pub(super) fn whole(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let announced = Some(body.len() as u64);
        Self { left: [body].into(), announced, endless: false }
    }

    /// Creates a body without its length.
    pub(super) fn chunked(body: &Bytes) -> Self {
        let half = body.len() / 2;
        let left = [body.slice(..half), body.slice(half..)].into();
        Self { left, announced: None, endless: false }
    }

    /// Creates a body that begins and then stops.
    pub(super) fn stalled(body: impl Into<Bytes>) -> Self {
        Self { left: [body.into()].into(), announced: None, endless: true }
    }

    /// Creates a framed gRPC message.
    pub(super) fn framed(flag: u8, message: &[u8]) -> Self {
        let length = u32::try_from(message.len()).expect("a length");
        let frame = [&[flag][..], &length.to_be_bytes(), message].concat();
        Self { announced: None, ..Self::whole(frame) }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.left.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.endless => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// Creates a POST over HTTP/1.1, or over HTTP/2 for gRPC.
pub(super) fn post(path: &str, headers: &[(&str, &str)], body: Pieces) -> Request<Pieces> {
    let version = if headers.contains(&GRPC) { Version::HTTP_2 } else { Version::HTTP_11 };
    over(version, path, headers, body)
}

/// Creates a POST over this version of HTTP.
pub(super) fn over(
    version: Version,
    path: &str,
    headers: &[(&str, &str)],
    body: Pieces,
) -> Request<Pieces> {
    let mut request = Request::builder().method(Method::POST).version(version);
    request = match version {
        Version::HTTP_2 => request.uri(format!("http://localhost{path}")),
        _ => request.uri(path).header("host", "localhost"),
    };
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).expect("a request")
}

/// Creates a captured request in its original form.
pub(super) fn replayed(fixture: &Fixture) -> Request<Pieces> {
    let sidecar = &fixture.sidecar;
    let path = sidecar["path"].as_str().expect("a path");
    let is_frame = fixture.name.ends_with(".grpcframe");
    let is_grpc = is_frame || sidecar["protocol"] == "grpc";
    let body = match (is_grpc, is_frame) {
        (_, true) => Pieces { announced: None, ..Pieces::whole(fixture.body.clone()) },
        (true, false) => Pieces::framed(0, &fixture.body),
        (false, false) if sidecar["chunked"] == true => Pieces::chunked(&fixture.body),
        (false, false) => Pieces::whole(fixture.body.clone()),
    };
    let mut request = Request::builder();
    request = request.method(sidecar["method"].as_str().expect("a method"));
    request = if is_grpc {
        request.version(Version::HTTP_2).uri(format!("http://localhost{path}"))
    } else {
        request.uri(path).header("host", "localhost")
    };
    let mut has_type = false;
    for pair in sidecar["headers"].as_array().expect("headers") {
        let (name, value) = (pair[0].as_str().expect("a name"), pair[1].as_str().expect("a value"));
        let name = name.to_lowercase();
        has_type |= name == "content-type";
        let of_one_hop =
            ["host", "content-length", "transfer-encoding", "connection", "keep-alive"];
        if !of_one_hop.contains(&name.as_str()) {
            request = request.header(name, value);
        }
    }
    if is_grpc && !has_type {
        request = request.header("content-type", "application/grpc");
    }
    request.body(body).expect("a request")
}
