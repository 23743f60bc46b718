//! A client for every protocol of the daemon: one connection, one request at a time, cheap enough for a load generator.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Place;

/// The protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// `POST /v1/traces/ingest`
    Openai,
    /// `POST /v1/traces`, protobuf
    OtlpHttp,
    /// `POST /v1/traces`, JSON
    OtlpJson,
    /// `TraceService/Export`
    OtlpGrpc,
}

impl Protocol {
    /// Returns its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::OtlpHttp => "otlp-http",
            Self::OtlpJson => "otlp-json",
            Self::OtlpGrpc => "otlp-grpc",
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Openai | Self::OtlpJson => "application/json",
            Self::OtlpHttp => "application/x-protobuf",
            Self::OtlpGrpc => "application/grpc",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Openai => "/v1/traces/ingest",
            Self::OtlpHttp | Self::OtlpJson => "/v1/traces",
            Self::OtlpGrpc => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        }
    }

    /// Returns the address at which a daemon receives it.
    pub(crate) fn address(self, place: &Place) -> SocketAddr {
        match self {
            Self::OtlpGrpc => place.grpc,
            Self::Openai | Self::OtlpHttp | Self::OtlpJson => place.http,
        }
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// Everything was accepted.
    Kept,
    /// Success, but some items were not accepted.
    Partial,
    /// An HTTP status other than success.
    Status(u16),
    /// A gRPC code that is not OK.
    Code(u16),
}

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => out.write_str("kept"),
            Self::Partial => out.write_str("partial success"),
            Self::Status(status) => write!(out, "HTTP {status}"),
            Self::Code(code) => write!(out, "gRPC code {code}"),
        }
    }
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
}

/// One connection. After [`NoAnswer`] it is unusable.
#[derive(Debug)]
pub(crate) struct Client {
    protocol: Protocol,
    address: SocketAddr,
    coding: Option<&'static str>,
    channel: Channel,
}

#[derive(Debug)]
enum Channel {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Channel {
    async fn open(
        protocol: Protocol,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, hyper::Error> {
        let io = TokioIo::new(stream);
        if protocol == Protocol::OtlpGrpc {
            let (send, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(async move { connection.await.ok() });
            return Ok(Self::Http2(send));
        }
        let (send, connection) = http1::handshake(io).await?;
        tokio::spawn(async move { connection.await.ok() });
        Ok(Self::Http1(send))
    }
}

impl Client {
    /// Connects. Bodies are sent as they are; `coding` names their compression.
    pub(crate) async fn connect(
        protocol: Protocol,
        address: SocketAddr,
        coding: Option<&'static str>,
    ) -> Result<Self, NoAnswer> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let channel = Channel::open(protocol, stream).await?;
        Ok(Self { protocol, address, coding, channel })
    }

    /// Connects over TLS to a daemon whose certificate is for `localhost`.
    pub(crate) async fn connect_tls(
        protocol: Protocol,
        address: SocketAddr,
        coding: Option<&'static str>,
        mut config: ClientConfig,
    ) -> Result<Self, NoAnswer> {
        let is_http2 = protocol == Protocol::OtlpGrpc;
        config.alpn_protocols = vec![if is_http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let channel = Channel::open(protocol, stream).await?;
        Ok(Self { protocol, address, coding, channel })
    }

    /// Sends a body and waits for the answer.
    pub(crate) async fn send(&mut self, body: Bytes) -> Result<Answer, NoAnswer> {
        let (request, grpc) = (self.request(body), self.protocol == Protocol::OtlpGrpc);
        let response = match &mut self.channel {
            Channel::Http1(send) => {
                send.ready().await?;
                send.send_request(request).await?
            }
            Channel::Http2(send) => {
                send.ready().await?;
                send.send_request(request).await?
            }
        };
        Ok(if grpc { grpc_answer(response).await? } else { http_answer(response).await? })
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let grpc = self.protocol == Protocol::OtlpGrpc;
        let mut request = Request::post(if grpc {
            format!("http://{}{}", self.address, self.protocol.path())
        } else {
            self.protocol.path().to_owned()
        });
        request = request.header("content-type", self.protocol.content_type());
        if grpc {
            request = request.header("te", "trailers");
        } else {
            request = request.header("host", self.address.to_string());
        }
        if self.protocol == Protocol::Openai {
            request =
                request.header("authorization", "Bearer local").header("openai-beta", "traces=v1");
        }
        if let Some(coding) = self.coding {
            request =
                request.header(if grpc { "grpc-encoding" } else { "content-encoding" }, coding);
        }
        let body = if grpc { frame(&body, self.coding.is_some()) } else { body };
        request.body(Full::new(body)).expect("the parts are valid")
    }
}

/// Prefixes a body with gRPC's five-byte header.
fn frame(body: &[u8], compressed: bool) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + body.len());
    framed.put_u8(u8::from(compressed));
    framed.put_u32(u32::try_from(body.len()).expect("bodies are small"));
    framed.put_slice(body);
    framed.freeze()
}

async fn http_answer(response: Response<Incoming>) -> Result<Answer, NoAnswer> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        return Ok(Answer::Status(status.as_u16()));
    }
    Ok(if says_partial(&body) { Answer::Partial } else { Answer::Kept })
}

async fn grpc_answer(response: Response<Incoming>) -> Result<Answer, NoAnswer> {
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        return Ok(Answer::Status(head.status.as_u16()));
    }
    // An answer without a body has its code in the headers.
    if let Some(code) = grpc_code(&head.headers).filter(|code| *code != 0) {
        return Ok(Answer::Code(code));
    }
    let body = body.collect().await?;
    let code = body.trailers().and_then(grpc_code).unwrap_or(2);
    if code != 0 {
        return Ok(Answer::Code(code));
    }
    let message = body.to_bytes();
    Ok(if says_partial(message.get(5..).unwrap_or_default()) {
        Answer::Partial
    } else {
        Answer::Kept
    })
}

fn grpc_code(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Returns whether an OTLP answer reports anything but full success. A present but empty `partial_success` is full success.
fn says_partial(body: &[u8]) -> bool {
    !matches!(body, b"" | b"\x0a\x00" | b"{}" | br#"{"partialSuccess":{}}"#)
}
