//! The client against in-process servers: without and with TLS, well-behaved and not.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION, USER_AGENT};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Response as HyperResponse, StatusCode, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::classify::StatusClass;
use super::*;
use crate::sinks::Pace;
use crate::support::authority::Authority;

type Body = BoxBody<Bytes, Infallible>;

/// A request that a server received.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    version: Version,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

/// A server on its own port that gives every request the same answer.
struct Server {
    uri: Uri,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    async fn start(answer: fn() -> HyperResponse<Body>, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let uri = format!("{scheme}://localhost:{port}/v1/traces").parse().unwrap();
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(secure_and_serve(stream, acceptor.clone(), answer, Arc::clone(&log)));
            }
        });
        Self { uri, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn secure_and_serve(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    answer: fn() -> HyperResponse<Body>,
    log: Arc<Mutex<Vec<Seen>>>,
) {
    let Some(acceptor) = acceptor else { return serve(stream, answer, log).await };
    // A client that does not trust this server disconnects.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    serve(stream, answer, log).await;
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: fn() -> HyperResponse<Body>,
    log: Arc<Mutex<Vec<Seen>>>,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let log = Arc::clone(&log);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (version, method, headers) = (head.version, head.method, head.headers);
            log.lock().unwrap().push(Seen { version, method, headers, body });
            Ok::<_, Infallible>(answer())
        }
    });
    // A client that disconnects does not fail the test.
    auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

fn empty() -> HyperResponse<Body> {
    HyperResponse::new(Full::default().boxed())
}

fn request(uri: &Uri) -> Request {
    let mut headers = HeaderMap::new();
    headers.insert("x-test", HeaderValue::from_static("as given"));
    headers.insert("authorization", secret_header("Bearer hunter2").unwrap());
    let body = Bytes::from_static(b"a prompt");
    Request { method: Method::POST, uri: uri.clone(), headers, body }
}

fn client(options: &ClientOptions) -> Client {
    Client::new(options).unwrap()
}

#[tokio::test]
async fn a_request_arrives_as_given_each_time_it_is_sent() {
    let server = Server::start(empty, None).await;
    let client = client(&ClientOptions::default());
    let request = request(&server.uri);
    for _ in 0..3 {
        assert_eq!(client.send(&request).await.unwrap().status, StatusCode::OK);
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    assert_eq!(seen[0].version, Version::HTTP_11);
    assert_eq!(seen[0].body, "a prompt");
    assert_eq!(seen[0].headers["x-test"], "as given");
    assert_eq!(seen[0].headers[USER_AGENT], concat!("spanferry/", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let redirect = || {
        let mut answer = empty();
        *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/elsewhere"));
        answer
    };
    let server = Server::start(redirect, None).await;
    let answer = client(&ClientOptions::default()).send(&request(&server.uri)).await.unwrap();
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_answer_is_read_up_to_its_limit() {
    let long = || HyperResponse::new(Full::from(vec![b'x'; 100_000]).boxed());
    let server = Server::start(long, None).await;
    let whole = client(&ClientOptions::default()).send(&request(&server.uri)).await.unwrap();
    assert_eq!((whole.body.len(), whole.is_cut), (100_000, false));
    let options = ClientOptions { response_bytes_max: 10_000, ..ClientOptions::default() };
    let cut = client(&options).send(&request(&server.uri)).await.unwrap();
    assert_eq!((cut.body.len(), cut.is_cut), (10_000, true));
}

#[tokio::test]
async fn an_answer_that_does_not_come_or_does_not_end_is_given_up() {
    let endless = || HyperResponse::new(Endless(Some(Bytes::from_static(b"begin"))).boxed());
    let server = Server::start(endless, None).await;
    let timeout = Duration::from_millis(200);
    let options = ClientOptions { timeout, ..ClientOptions::default() };
    for is_http2_only in [false, true] {
        let client = client(&ClientOptions { is_http2_only, ..options.clone() });
        for _ in 0..2 {
            let failure = client.send(&request(&server.uri)).await.unwrap_err();
            assert_eq!(failure, RequestError::Timeout(timeout));
            assert!(matches!(failure.report().pace, Pace::Down { after: None, .. }));
        }
    }
    assert_eq!(server.seen().len(), 4);
}

/// A body of one chunk that never ends.
struct Endless(Option<Bytes>);

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |piece| Poll::Ready(Some(Ok(Frame::data(piece)))))
    }
}

#[tokio::test]
async fn nobody_there_and_a_broken_connection_are_told_apart() {
    let client = client(&ClientOptions::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let half = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
    });
    let failure = client.send(&request(&uri)).await.unwrap_err();
    assert!(matches!(failure, RequestError::Broken(_)), "{failure:?}");
    half.await.unwrap();
    let failure = client.send(&request(&uri)).await.unwrap_err();
    assert!(
        matches!(&failure, RequestError::Connect(why) if why.contains("refused")),
        "{failure:?}"
    );
    assert!(matches!(failure.report().pace, Pace::Down { .. }));
}

async fn read_head(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"a prompt") {
        read.push(stream.read_u8().await.unwrap());
    }
}

#[tokio::test]
async fn a_name_that_is_none_is_named_as_the_trouble() {
    let uri = "http://no..name/".parse().unwrap();
    let failure = client(&ClientOptions::default()).send(&request(&uri)).await.unwrap_err();
    assert!(
        matches!(&failure, RequestError::Connect(why) if why.contains("resolved")),
        "{failure:?}"
    );
}

#[test]
fn neither_bodies_nor_credentials_are_printed() {
    let request = request(&"http://localhost/path?key=hunter3".parse().unwrap());
    let printed = format!("{request:?} {:?}", request.headers);
    assert!(!printed.contains("hunter") && !printed.contains("prompt"), "{printed}");
}

// === TLS ===

impl Authority {
    /// A server with a certificate for this name, which may require one from the client.
    fn server(&self, name: &str, clients: Option<&Self>) -> ServerConfig {
        let (certificate, key) = self.sign(name);
        let chain = vec![certificate.der().clone(), self.issuer.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.issuer.der().clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    fn ca_file(&self) -> TlsOptions {
        TlsOptions { ca_file: Some(self.path("ca.pem")), ..TlsOptions::default() }
    }
}

async fn send_with(tls: TlsOptions, server: &Server) -> Result<StatusCode, RequestError> {
    let client = client(&ClientOptions { tls, ..ClientOptions::default() });
    client.send(&request(&server.uri)).await.map(|answer| answer.status)
}

fn assert_stops(result: Result<StatusCode, RequestError>) {
    let failure = result.unwrap_err();
    assert!(matches!(failure, RequestError::Trust(_)), "{failure:?}");
    assert!(matches!(failure.report().pace, Pace::Hold { .. }), "{failure:?}");
}

#[tokio::test]
async fn only_what_the_named_authority_signed_is_trusted() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server = Server::start(empty, Some(ours.server("localhost", None))).await;
    assert_eq!(send_with(ours.ca_file(), &server).await, Ok(StatusCode::OK));
    assert_eq!(server.seen()[0].version, Version::HTTP_2, "agreed on by ALPN");
    assert_stops(send_with(other.ca_file(), &server).await);
    assert_stops(send_with(TlsOptions::default(), &server).await);
    let server = Server::start(empty, Some(ours.server("elsewhere", None))).await;
    assert_stops(send_with(ours.ca_file(), &server).await);
}

#[tokio::test]
async fn a_pinned_authority_is_trusted_by_its_fingerprint_alone() {
    let ours = Authority::new();
    let server = Server::start(empty, Some(ours.server("localhost", None))).await;
    let digest = Sha256::digest(ours.issuer.der());
    let digits: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    for text in [digits.join(":"), digits.concat().to_lowercase()] {
        let pinned = TlsOptions { ca_fingerprint: Some(text), ..TlsOptions::default() };
        assert_eq!(pinned.check(), []);
        assert_eq!(send_with(pinned, &server).await, Ok(StatusCode::OK));
    }
    let other = TlsOptions { ca_fingerprint: Some("00".repeat(32)), ..TlsOptions::default() };
    assert_stops(send_with(other, &server).await);
    let server = Server::start(empty, Some(ours.server("elsewhere", None))).await;
    let pinned = TlsOptions { ca_fingerprint: Some(digits.concat()), ..TlsOptions::default() };
    assert_stops(send_with(pinned, &server).await);
}

#[tokio::test]
async fn our_own_certificate_is_shown_where_it_is_wanted() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let server = Server::start(empty, Some(servers.server("localhost", Some(&clients)))).await;
    let (certificate, key) = clients.sign("spanferry");
    let tls = TlsOptions {
        cert_file: Some(clients.write("us.pem", &certificate.pem())),
        key_file: Some(clients.write("us.key", &key.serialize_pem())),
        ..servers.ca_file()
    };
    assert_eq!(send_with(tls, &server).await, Ok(StatusCode::OK));
    let failure = send_with(servers.ca_file(), &server).await.unwrap_err();
    assert!(matches!(failure, RequestError::Trust(_) | RequestError::Broken(_)), "{failure:?}");
}

#[test]
fn certificates_that_cannot_be_read_are_said_when_the_sink_is_built() {
    let authority = Authority::new();
    let empty = authority.write("empty.pem", "nothing");
    for path in [PathBuf::from("/nowhere/ca.pem"), empty] {
        let tls = TlsOptions { ca_file: Some(path.clone()), ..TlsOptions::default() };
        let problem = Client::new(&ClientOptions { tls, ..ClientOptions::default() }).unwrap_err();
        assert!(problem.0.contains(path.to_str().unwrap()), "{problem}");
    }
}

#[test]
fn a_web_page_is_no_success_of_any_backend() {
    let page = |status| Response {
        status,
        headers: [(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))]
            .into_iter()
            .collect(),
        body: Bytes::from_static(b"<html>"),
        is_cut: false,
        trailers: HeaderMap::new(),
    };
    assert_eq!(page(StatusCode::OK).class(), StatusClass::Stop);
    assert!(page(StatusCode::OK).reason().contains("web page"));
    // A proxy's page about its backend.
    let busy = page(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(busy.class(), StatusClass::Throttled { after: None });
    assert_eq!(busy.reason(), "HTTP 503 Service Unavailable");
}

#[test]
fn options_that_do_not_fit_together_are_problems() {
    let wrong = TlsOptions {
        ca_file: Some("ca.pem".into()),
        ca_fingerprint: Some("12:34".to_owned()),
        cert_file: Some("us.pem".into()),
        key_file: None,
    };
    assert_eq!(wrong.check().len(), 3);
}

#[test]
fn a_body_is_compressed_to_the_same_bytes_each_time() {
    let body = b"a span is like another span ".repeat(1000);
    for compression in [Compression::Gzip, Compression::Zstd] {
        let once = compression.apply(body.clone()).unwrap();
        assert_eq!(once, compression.apply(body.clone()).unwrap());
        assert!(once.len() < body.len() / 10, "{compression:?} {}", once.len());
    }
    assert_eq!(Compression::None.apply(body.clone()).unwrap(), body);
}
