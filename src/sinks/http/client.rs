//! The client: sends one request and returns the complete answer, within a timeout.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::classify::{StatusClass, classify, describe};
use super::{RequestError, TlsOptions};
use crate::sinks::BuildError;
use crate::support::base64;
use crate::support::forwarding::{self, SENDER_HEADER};

/// The client's limits. Everything is bounded.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Whether to offer only HTTP/2, also without TLS, as gRPC requires. Otherwise it is HTTP/1.1 without TLS, and with TLS whichever
    /// version the backend prefers.
    pub is_http2_only: bool,
    /// The longest time for a request, from the first byte sent to the last byte received.
    pub timeout: Duration,
    /// The timeout for connecting.
    pub connect_timeout: Duration,
    /// The most idle connections per host.
    pub idle_connections_max: usize,
    /// The most bytes that are kept of an answer; the rest is not read.
    pub response_bytes_max: usize,
    /// The trusted authorities, and the client certificate.
    pub tls: TlsOptions,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            is_http2_only: false,
            // The OTLP exporters' default, which backends expect.
            timeout: Duration::from_secs(10),
            // Long enough for several retries of a lost SYN (1 s, 3 s), but well below the total timeout.
            connect_timeout: Duration::from_secs(5),
            // A lane's usual number of concurrent requests.
            idle_connections_max: 10,
            // Answers are short. Only bulk answers name each item, in about 300 bytes.
            response_bytes_max: 8 << 20,
            tls: TlsOptions::default(),
        }
    }
}

/// A request that can be sent repeatedly with the same bytes.
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The address, with scheme and host.
    pub uri: Uri,
    /// The headers. Credentials are marked sensitive ([`secret_header`]).
    pub headers: HeaderMap,
    /// The body, compressed if so configured.
    pub body: Bytes,
}

impl Request {
    /// Creates a GET request.
    pub fn get(uri: Uri, headers: HeaderMap) -> Self {
        Self { method: Method::GET, uri, headers, body: Bytes::new() }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body is payload, and a query may contain a key.
        write!(out, "{} {} ({} bytes)", self.method, self.uri.path(), self.body.len())
    }
}

/// An answer.
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or the beginning of one that exceeded [`ClientOptions::response_bytes_max`].
    pub body: Bytes,
    /// Whether the body was truncated.
    pub is_cut: bool,
    /// The trailers, in which gRPC reports the status.
    pub trailers: HeaderMap,
}

impl Response {
    /// Classifies the status. No API answers a request with a web page.
    pub fn class(&self) -> StatusClass {
        if self.is_web_page() { StatusClass::Stop } else { classify(self.status, &self.headers) }
    }

    /// Describes the status.
    pub fn reason(&self) -> String {
        let page = ", but with a web page: this is not the backend's address";
        let more = if self.is_web_page() { page } else { "" };
        format!("{}{more}", describe(self.status, &self.headers))
    }

    fn is_web_page(&self) -> bool {
        self.status.is_success() && self.media_type() == "text/html"
    }

    /// Returns the media type of the body, in lowercase and without parameters.
    pub fn media_type(&self) -> String {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let value = value.unwrap_or_default().split(';').next().unwrap_or_default();
        value.trim().to_ascii_lowercase()
    }

    /// Returns the backend's text, shortened for a dead letter. It may quote payload.
    pub fn answer(&self) -> String {
        shortened(&String::from_utf8_lossy(&self.body))
    }
}

/// Shortens a backend's text for a dead letter; an error is a sentence.
pub fn shortened(text: &str) -> String {
    text.chars().take(2_000).collect()
}

impl fmt::Debug for Response {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body may quote payload.
        write!(out, "{} ({} bytes)", self.status, self.body.len())
    }
}

/// Sends requests and pools connections. Clones are cheap and share the pool.
#[derive(Debug, Clone)]
pub struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    response_bytes_max: usize,
}

/// Returns a header value that is never printed.
pub fn secret_header(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns the `authorization` header of a user and a password.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::text(format!("{user}:{password}").as_bytes()))
}

impl Client {
    /// Reads the certificates that the options name, without connecting.
    pub fn new(options: &ClientOptions) -> Result<Self, BuildError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(options.connect_timeout));
        tcp.set_keepalive(Some(KEEPALIVE));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(options.timeout + options.connect_timeout));
        let https =
            HttpsConnectorBuilder::new().with_tls_config(options.tls.config()?).https_or_http();
        let https = if options.is_http2_only {
            https.enable_http2().wrap_connector(tcp)
        } else {
            https.enable_all_versions().wrap_connector(tcp)
        };
        let inner = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(options.idle_connections_max)
            .http2_only(options.is_http2_only)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .http1_max_buf_size(HTTP1_READ_BYTES_MAX)
            .build(https);
        Ok(Self { inner, timeout: options.timeout, response_bytes_max: options.response_bytes_max })
    }

    /// Sends a request once and reads the complete answer.
    pub async fn send(&self, request: &Request) -> Result<Response, RequestError> {
        let mut outgoing = hyper::Request::new(Full::new(request.body.clone()));
        *outgoing.method_mut() = request.method.clone();
        *outgoing.uri_mut() = request.uri.clone();
        *outgoing.headers_mut() = request.headers.clone();
        outgoing.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        let sender = HeaderValue::from_static(forwarding::first_header());
        outgoing.headers_mut().entry(SENDER_HEADER).or_insert(sender);
        let connection = capture_connection(&mut outgoing);
        let exchange = async {
            let incoming =
                self.inner.request(outgoing).await.map_err(|error| RequestError::of(&error))?;
            self.read(incoming).await
        };
        if let Ok(answer) = tokio::time::timeout(self.timeout, exchange).await {
            return answer;
        }
        // Requests share an HTTP/2 connection, so one that does not answer must not get the next request, too.
        if let Some(connected) = connection.connection_metadata().as_ref() {
            connected.poison();
        }
        Err(RequestError::Timeout(self.timeout))
    }

    async fn read(&self, incoming: hyper::Response<Incoming>) -> Result<Response, RequestError> {
        let (head, mut body) = incoming.into_parts();
        let mut kept = BytesMut::new();
        let (mut is_cut, mut trailers) = (false, HeaderMap::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| RequestError::Broken(error.to_string()))?;
            match frame.into_data() {
                Ok(data) => {
                    let room = self.response_bytes_max.saturating_sub(kept.len());
                    kept.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
                    if room < data.len() {
                        is_cut = true;
                        break;
                    }
                }
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        let (status, headers, body) = (head.status, head.headers, kept.freeze());
        Ok(Response { status, headers, body, is_cut, trailers })
    }
}

/// The client's name.
const AGENT: &str = concat!("spanferry/", env!("CARGO_PKG_VERSION"));

/// The idle timeout is shorter than that of common load balancers (AWS 60 s, nginx 75 s), so a request seldom meets a closed connection.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// The interval of probes on an idle connection, so that NAT tables keep it and a dead peer is noticed.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The most bytes in an answer's headers, many times what common servers send.
const HEADER_BYTES_MAX: u32 = 64 << 10;

/// The HTTP/1.1 read buffer, in bytes. Headers must fit into it; bodies are consumed as they arrive.
const HTTP1_READ_BYTES_MAX: usize = 128 << 10;
