//! Requests to a daemon on this machine or in this pod, with a time limit and a bounded answer.
//!
//! A daemon listens at an `http://` or `https://` address, or at a Unix socket, followed by a colon and the path:
//! `unix:/run/spanferry/admin.sock:/health`. Its certificate is verified with the system's or the given authorities. On loopback it is not:
//! certificates seldom name loopback, and no one else can be in between.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clap::Args;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerified;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic_types::pb;

use crate::server::Stream;
use crate::sinks::BuildError;
use crate::sinks::http::TlsOptions;
use crate::support::address::UNIX;
use crate::support::verifier::Verifier;

/// Maximum bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Maximum bytes of a line. It holds at most one entry with its payload, as JSON text or base64 of what a receiver accepts (64 MiB by
/// default).
const LINE_BYTES_MAX: usize = 256 << 20;

/// A request to a daemon.
#[derive(Debug, Clone, Default)]
pub(super) struct Question<'a> {
    /// Its address.
    pub(super) url: &'a str,
    /// Its headers.
    pub(super) headers: Vec<(HeaderName, String)>,
    /// Its body, which makes it a POST.
    pub(super) body: Option<Bytes>,
    /// Time limit.
    pub(super) patience: Duration,
    /// The only authorities to trust, except on loopback: a PEM file.
    pub(super) ca: Option<&'a Path>,
}

/// Whom to trust.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct TrustArguments {
    /// A PEM file with the only certificate authorities to trust beyond loopback [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
}

/// The daemon's answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// Returns the body as text for display; for a refusal in protobuf its message.
    pub(super) fn text(&self) -> String {
        let media = self.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        match pb::Status::decode(self.body.clone()) {
            Ok(status) if media == Some(b"application/x-protobuf") => status.message,
            _ => String::from_utf8_lossy(&self.body).trim().to_owned(),
        }
    }
}

/// Appends a path to an address given by the user.
pub(super) fn below(url: &str, path: &str) -> String {
    let url = url.trim_end_matches(['/', ':']);
    let colon = if url.starts_with(UNIX) { ":" } else { "" };
    format!("{url}{colon}{path}")
}

/// Sends one request; an error describes why there is no answer.
pub(super) async fn ask(question: Question<'_>) -> Result<Answer, String> {
    let (url, patience) = (question.url, question.patience);
    let answered = timeout(patience, async {
        let response = send(question).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| broken_off(url, &*error))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    });
    answered.await.unwrap_or_else(|_| Err(slow(url, patience)))
}

/// Sends one request and passes on each line of the answer as it arrives. `patience` limits the wait between lines. Returns the status.
pub(super) async fn ask_for_lines(
    question: Question<'_>,
    mut line: impl FnMut(&[u8]),
) -> Result<StatusCode, String> {
    let (url, patience) = (question.url, question.patience);
    let slow = |_| slow(url, patience);
    let response = timeout(patience, send(question)).await.map_err(slow)??;
    let status = response.status();
    let mut body = response.into_body();
    let mut held = BytesMut::new();
    while let Some(frame) = timeout(patience, body.frame()).await.map_err(slow)? {
        let frame = frame.map_err(|error| broken_off(url, &error))?;
        let Some(mut data) = frame.data_ref().cloned() else { continue };
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            held.extend_from_slice(&data.split_to(end + 1));
            line(&held);
            held.clear();
        }
        held.extend_from_slice(&data);
        if held.len() > LINE_BYTES_MAX {
            return Err(format!("the answer of {url} is too large"));
        }
    }
    if !held.is_empty() {
        line(&held);
    }
    Ok(status)
}

/// Sends the request; returns the answer's head.
async fn send(question: Question<'_>) -> Result<Response<Incoming>, String> {
    let Question { url, headers, body, ca, .. } = question;
    let (stream, host, path) = connect(url, ca).await?;
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::builder().method(method).uri(path);
    if headers.iter().all(|(name, _)| name != HOST) {
        request = request.header(HOST, host);
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(body.unwrap_or_default()));
    let request = request.map_err(|_| format!("{url} {WRONG_ADDRESS}"))?;
    let connected = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.map_err(|error| broken_off(url, &error))?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|error| broken_off(url, &error))
}

pub(super) const WRONG_ADDRESS: &str =
    "is not a daemon's address: write http://HOST:PORT, https://HOST:PORT or unix:/PATH";

/// Connects to the host or the socket of an address. Returns the host for the request, and the path.
async fn connect(
    url: &str,
    ca: Option<&Path>,
) -> Result<(Box<dyn Stream>, String, String), String> {
    if let Some(socket) = url.strip_prefix(UNIX) {
        let (socket, path) = socket.split_once(":/").unwrap_or((socket, ""));
        let stream = UnixStream::connect(socket).await.map_err(|error| broken_off(url, &error))?;
        return Ok((Box::new(stream), "localhost".to_owned(), format!("/{path}")));
    }
    let wrong_address = || format!("{url} {WRONG_ADDRESS}");
    let uri: Uri = url.parse().map_err(|_| wrong_address())?;
    let (authority, is_encrypted) = match (uri.authority(), uri.scheme_str()) {
        (Some(authority), Some("http")) => (authority, false),
        (Some(authority), Some("https")) => (authority, true),
        _ => return Err(wrong_address()),
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(|error| broken_off(url, &error))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    if !is_encrypted {
        return Ok((Box::new(stream), authority.to_string(), path));
    }
    let config = client_config(host, ca)
        .map_err(|problem| format!("cannot send a request to {url}: {problem}"))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong_address())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream = stream.map_err(|error| broken_off(url, &error))?;
    Ok((Box::new(stream), authority.to_string(), path))
}

/// Returns the TLS configuration for this host. On loopback it accepts any certificate whose key the server has.
fn client_config(host: &str, ca: Option<&Path>) -> Result<ClientConfig, BuildError> {
    let ip = host.parse::<IpAddr>();
    let is_loopback = host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback());
    let ca_file = ca.filter(|_| !is_loopback).map(Path::to_owned);
    let mut config = TlsOptions { ca_file, ..TlsOptions::default() }.config()?;
    if is_loopback {
        let provider = Arc::clone(config.crypto_provider());
        let verifier = Verifier::new(provider, |_| Ok(ServerCertVerified::assertion()));
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
    }
    Ok(config)
}

fn slow(url: &str, patience: Duration) -> String {
    format!("{url} did not answer within {patience:?}")
}

/// Describes a failed connection. The innermost cause is the one that a user can fix.
fn broken_off(url: &str, error: &(dyn std::error::Error + 'static)) -> String {
    let innermost = std::iter::successors(Some(error), |cause| cause.source()).last();
    format!("{url} does not answer: {}", innermost.unwrap_or(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_in_protobuf_is_shown_as_its_sentence() {
        let status = pb::Status { code: 16, message: "who?".to_owned(), details: Vec::new() };
        let body = Bytes::from(status.encode_to_vec());
        for (media, shown) in
            [("application/x-protobuf", "who?"), ("text/plain", "\u{8}\u{10}\u{12}\u{4}who?")]
        {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(media))].into_iter().collect();
            let answer = Answer { status: StatusCode::UNAUTHORIZED, headers, body: body.clone() };
            assert_eq!(answer.text(), shown, "{media}");
        }
    }

    #[test]
    fn a_path_can_be_put_behind_every_address() {
        for (url, expected) in [
            ("http://a:1", "http://a:1/x"),
            ("https://a:1/", "https://a:1/x"),
            ("unix:/run/a.sock", "unix:/run/a.sock:/x"),
            ("unix:/run/a.sock:", "unix:/run/a.sock:/x"),
        ] {
            assert_eq!(below(url, "/x"), expected);
        }
    }
}
