//! Listeners with well-behaved and misbehaving clients: the latter do not affect others.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use axum::response::IntoResponse as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper::{StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::listener::Stream;
use super::*;
use crate::support::address::Address;
use crate::support::authority::{Authority, connect};
use crate::support::stop::Stop;

const SOON: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Answers with the version of HTTP and the peer.
#[derive(Debug, Clone)]
struct Echo(Option<Tls>);

impl Handler for Echo {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response, HangUp> {
        let peer: &Peer = request.extensions().get().unwrap();
        let name = peer.certificate.as_deref().unwrap_or("nobody");
        let text = format!("{:?} {} {name}", request.version(), peer.scheme());
        request.into_body().collect().await.ok();
        Ok(text.into_response())
    }

    fn limits(&self) -> Limits {
        Limits { connections_max: 100, drain_timeout: SOON }
    }

    fn tls(&self) -> Option<Tls> {
        self.0.clone()
    }
}

struct World {
    address: SocketAddr,
    tls: Option<Tls>,
    stop: Stop,
    served: JoinHandle<()>,
}

impl World {
    async fn open(options: Option<TlsOptions>) -> Self {
        let tls = options.map(|options| Tls::open("receivers", &options).unwrap());
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address().unwrap().socket().unwrap();
        let stop = Stop::default();
        let served = tokio::spawn(serve(listener, Echo(tls.clone()), stop.clone()));
        Self { address, tls, stop, served }
    }

    async fn plain(&self) -> String {
        let stream = TcpStream::connect(self.address).await.unwrap();
        ask(stream, Version::HTTP_11).await.unwrap().1
    }

    async fn close(self) {
        self.stop.stop();
        self.served.await.unwrap();
    }
}

fn options(authority: &Authority) -> TlsOptions {
    authority.renew("localhost");
    toml::from_str(&authority.options()).unwrap()
}

fn with_clients(authority: &Authority, client_auth: ClientAuth) -> TlsOptions {
    let client_ca = Some(authority.path("ca.pem").display().to_string());
    TlsOptions { client_ca, client_auth: Some(client_auth), ..options(authority) }
}

/// Sends one request on a connection; returns the status and the text.
async fn ask(
    stream: impl Stream + 'static,
    version: Version,
) -> Result<(StatusCode, String), hyper::Error> {
    let request = Request::post("http://localhost/").header("host", "localhost").version(version);
    let request = request.body(Full::new(Bytes::from_static(b"body"))).unwrap();
    let response = if version == Version::HTTP_2 {
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    } else {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    };
    let status = response.status();
    let text = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::test]
async fn both_versions_of_tls_carry_both_versions_of_http() {
    let authority = Authority::new();
    let world = World::open(Some(options(&authority))).await;
    for version in [&TLS12, &TLS13] {
        for (offered, agreed, http) in [
            (&["h2", "http/1.1"][..], "h2", Version::HTTP_2),
            (&["http/1.1"], "http/1.1", Version::HTTP_11),
            (&["http/1.1", "h2"], "h2", Version::HTTP_2),
        ] {
            let mut config = authority.client(&[version], None);
            config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
            let stream = connect(world.address, config).await.unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(session.alpn_protocol(), Some(agreed.as_bytes()));
            assert_eq!(session.protocol_version(), Some(version.version));
            let cipher = format!("{:?}", session.negotiated_cipher_suite());
            assert!(cipher.contains("AES_128_GCM"), "{cipher}");
            let (_, text) = ask(stream, http).await.unwrap();
            assert_eq!(text, format!("{http:?} https nobody"));
        }
    }
    world.close().await;
}

#[tokio::test]
async fn plain_http_where_tls_is_spoken_is_told_so() {
    let authority = Authority::new();
    let world = World::open(Some(options(&authority))).await;
    let large = [&b"POST / HTTP/1.1\r\n\r\n"[..], &*vec![b'x'; 40_000]].concat();
    for sent in [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\n", &large] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut text = String::new();
        timeout(SOON, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("use https://"), "{text}");
    }
    world.close().await;
}

#[tokio::test]
async fn clients_are_known_by_what_their_certificate_calls_them() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (client_auth, shown, expected) in [
        (ClientAuth::Required, Some(authority.sign("shop")), Some("shop")),
        (ClientAuth::Required, None, None),
        (ClientAuth::Required, Some(other.sign("shop")), None),
        (ClientAuth::Optional, Some(authority.sign("shop")), Some("shop")),
        (ClientAuth::Optional, None, Some("nobody")),
        (ClientAuth::Optional, Some(other.sign("shop")), None),
    ] {
        let world = World::open(Some(with_clients(&authority, client_auth))).await;
        let config = authority.client(&[&TLS12, &TLS13], shown);
        // With TLS 1.3 a client learns only when it reads that it was rejected.
        let answer = match connect(world.address, config).await {
            Ok(stream) => ask(stream, Version::HTTP_2).await.ok(),
            Err(_) => None,
        };
        let name = answer.as_ref().and_then(|(_, text)| text.rsplit(' ').next());
        assert_eq!(name, expected, "{client_auth:?}");
        world.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_end_is_cut_off() {
    let authority = Authority::new();
    let world = World::open(Some(options(&authority))).await;
    // Nothing, and the beginning of a record.
    for sent in [&b""[..], &[22, 3, 1]] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        assert_eq!(answer, b"");
    }
    world.close().await;
}

/// Returns the certificate presented to a new connection.
async fn shown(world: &World, authority: &Authority) -> Vec<u8> {
    let stream = connect(world.address, authority.client(&[&TLS13], None)).await.unwrap();
    let (_, session) = stream.get_ref();
    let shown = session.peer_certificates().unwrap()[0].to_vec();
    assert_eq!(ask(stream, Version::HTTP_2).await.unwrap().0, 200);
    shown
}

#[tokio::test]
async fn a_changed_certificate_is_used_for_new_connections_and_running_ones_stay() {
    let authority = Authority::new();
    let world = World::open(Some(options(&authority))).await;
    let config = authority.client(&[&TLS13], None);
    let stream = connect(world.address, config).await.unwrap();
    let (mut running, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let new = authority.renew("localhost");
    let renewed = async {
        while shown(&world, &authority).await != new.as_ref() {
            tokio::time::sleep(POLL_EVERY).await;
        }
    };
    timeout(SOON, renewed).await.unwrap();
    let request = Request::post("/").body(Full::new(Bytes::new())).unwrap();
    assert_eq!(running.send_request(request).await.unwrap().status(), 200);
    assert_eq!(world.tls.as_ref().unwrap().problem(), None);
    world.close().await;
}

#[tokio::test]
async fn a_broken_certificate_leaves_the_old_one_in_use_and_is_said_until_it_is_mended() {
    let authority = Authority::new();
    let world = World::open(Some(options(&authority))).await;
    let tls = world.tls.clone().unwrap();
    let old = shown(&world, &authority).await;
    let key = std::fs::read_to_string(authority.path("server.key")).unwrap();
    let until = async |is_so: &dyn Fn(Option<String>) -> bool| {
        let look = async {
            while !is_so(tls.problem()) {
                tokio::time::sleep(POLL_EVERY).await;
            }
        };
        timeout(SOON, look).await.unwrap();
    };
    let other = authority.sign("localhost").1.serialize_pem();
    for (broken, why) in [(&*other, "cert and key"), ("nothing", "tls.key"), ("", "tls.key")] {
        if broken.is_empty() {
            std::fs::remove_file(authority.path("server.key")).unwrap();
        } else {
            authority.write("server.key", broken);
        }
        until(&|problem| problem.is_some_and(|it| it.contains(why) && it.contains("still in use")))
            .await;
        assert_eq!(shown(&world, &authority).await, old, "{why}");
        authority.write("server.key", &key);
        until(&|problem| problem.is_none()).await;
        assert_eq!(shown(&world, &authority).await, old, "{why}");
    }
    world.close().await;
}

#[tokio::test]
async fn certificates_may_be_text_and_what_cannot_be_used_is_said_without_its_content() {
    let authority = Authority::new();
    let files = options(&authority);
    let text = |name: &str| std::fs::read_to_string(authority.path(name)).unwrap();
    let key = crate::support::secret::Secret::from;
    let good =
        TlsOptions { cert: text("server.crt"), key: key(text("server.key")), ..files.clone() };
    assert_eq!(good.check_files(), Ok(()));
    let world = World::open(Some(good.clone())).await;
    shown(&world, &authority).await;
    world.close().await;
    let secret = "hunter2";
    for (bad, option) in [
        (TlsOptions { cert: "/nowhere".to_owned(), ..good.clone() }, "tls.cert "),
        (TlsOptions { cert: text("server.key"), ..good.clone() }, "tls.cert "),
        (TlsOptions { key: key(secret.to_owned()), ..good.clone() }, "tls.key "),
        (TlsOptions { client_ca: Some("/nowhere".to_owned()), ..good.clone() }, "tls.client_ca "),
        (TlsOptions { client_ca: Some(text("server.key")), ..good.clone() }, "tls.client_ca "),
    ] {
        let problem = bad.check_files().unwrap_err();
        assert!(problem.starts_with(option) && !problem.contains(secret), "{problem}");
        assert!(!format!("{bad:?}").contains(secret));
    }
}

// === Unix sockets ===

fn socket(path: &Path) -> Address {
    format!("unix:{}?mode=0600", path.display()).parse().unwrap()
}

#[tokio::test]
async fn a_unix_socket_is_there_while_somebody_listens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock");
    let listener = Listener::bind(&socket(&path)).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(listener.address().unwrap(), socket(&path));
    let stop = Stop::default();
    // A socket is not encrypted, whatever the ports are.
    let authority = Authority::new();
    let tls = Tls::open("receivers", &options(&authority)).unwrap();
    let served = tokio::spawn(serve(listener, Echo(Some(tls)), stop.clone()));
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let stream = UnixStream::connect(&path).await.unwrap();
        let (_, text) = ask(stream, version).await.unwrap();
        assert_eq!(text, format!("{version:?} http nobody"));
    }
    // The address is in use, so no other listener can have it.
    let taken = Listener::bind(&socket(&path)).await.unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    assert!(UnixStream::connect(&path).await.is_ok());
    stop.stop();
    served.await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn only_a_socket_that_nobody_listens_on_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock");
    // The file of a killed daemon.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let first = Listener::bind(&socket(&path)).await.unwrap();
    // Another daemon replaced the file: it is not removed with this listener.
    std::fs::remove_file(&path).unwrap();
    let second = Listener::bind(&socket(&path)).await.unwrap();
    drop(first);
    assert!(UnixStream::connect(&path).await.is_ok());
    drop(second);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    let problem = Listener::bind(&socket(&path)).await.unwrap_err();
    assert!(problem.to_string().contains("not a socket"), "{problem}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

// === Clients that do not behave ===

#[tokio::test]
async fn too_many_headers_and_too_long_ones_are_431() {
    let world = World::open(None).await;
    let many = "a: b\r\n".repeat(101);
    let long = format!("a: {}\r\n", "b".repeat(70_000));
    let fits = format!("{}long: {}\r\n", "a: b\r\n".repeat(90), "b".repeat(20_000));
    for (headers, status) in [(many, 431), (long, 431), (fits, 200)] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.ok();
        let mut text = [0; 12];
        timeout(SOON, stream.read_exact(&mut text)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&text), format!("HTTP/1.1 {status}"));
    }
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (length, status) in [(70_000, 431), (20_000, 200)] {
        let request = Request::get("http://localhost/").header("long", "b".repeat(length));
        let response = sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await;
        assert_eq!(response.unwrap().status(), status);
    }
    world.close().await;
}

/// Encodes a frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Encodes the head of a request: POST / over http, from the static table of HPACK. Its body follows.
fn head(stream: u32) -> Vec<u8> {
    frame(1, 4, stream, &[0x83, 0x84, 0x86])
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// Reads frames until one of this kind; returns its beginning, and counts those before it.
async fn next(stream: &mut TcpStream, wanted: u8) -> Option<Vec<u8>> {
    loop {
        let mut head = [0; 9];
        timeout(SOON, stream.read_exact(&mut head)).await.unwrap().ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.ok()?;
        if head[3] == wanted {
            return Some(payload);
        }
    }
}

#[tokio::test]
async fn streams_that_are_reset_as_soon_as_they_are_open_end_their_connection_and_no_other() {
    let world = World::open(None).await;
    for _ in 0..10 {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let mut flood = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        for number in 0..1000 {
            flood.extend(head(2 * number + 1));
            flood.extend(frame(RST_STREAM, 0, 2 * number + 1, &8_u32.to_be_bytes()));
        }
        stream.write_all(&flood).await.ok();
        let goodbye = next(&mut stream, GOAWAY).await.expect("GOAWAY");
        // ENHANCE_YOUR_CALM
        assert_eq!(goodbye[4..8], 11_u32.to_be_bytes());
        assert_eq!(world.plain().await, "HTTP/1.1 http nobody");
    }
    world.close().await;
}

#[tokio::test]
async fn calls_beyond_the_most_of_a_connection_are_refused_and_may_be_sent_again() {
    let world = World::open(None).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let mut calls = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for number in 0..300 {
        calls.extend(head(2 * number + 1));
    }
    stream.write_all(&calls).await.unwrap();
    for _ in 256..300 {
        // REFUSED_STREAM
        assert_eq!(next(&mut stream, RST_STREAM).await.unwrap(), 7_u32.to_be_bytes());
    }
    assert_eq!(world.plain().await, "HTTP/1.1 http nobody");
    drop(stream);
    world.close().await;
}

#[tokio::test]
async fn connections_whose_answers_are_not_read_keep_nobody_out() {
    let world = World::open(None).await;
    let mut silent = Vec::new();
    for _ in 0..150 {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        // There is no space for the body of any answer: `SETTINGS_INITIAL_WINDOW_SIZE` is 0.
        let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let call = frame(1, 5, 1, &[0x83, 0x84, 0x86]);
        stream.write_all(&[PREFACE, &no_window, &call].concat()).await.unwrap();
        // It was answered.
        next(&mut stream, 1).await.unwrap();
        silent.push(stream);
    }
    let answer = timeout(SOON, world.plain()).await.unwrap();
    assert_eq!(answer, "HTTP/1.1 http nobody");
    world.stop.stop();
    drop(silent);
    world.close().await;
}

#[tokio::test]
async fn two_thousand_connections_that_say_nothing_keep_nobody_out() {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = rustix::process::Rlimit { current: files.maximum, maximum: files.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted).unwrap();
    let authority = Authority::new();
    let world = World::open(Some(options(&authority))).await;
    let mut silent = Vec::new();
    let mut answered = 0;
    for number in 0..2000 {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let begun = [&b""[..], &[22], &[22, 3, 1, 2, 0, 1]][number % 3];
        stream.write_all(begun).await.unwrap();
        silent.push(stream);
        if number % 100 == 99 {
            let stream = connect(world.address, authority.client(&[&TLS13], None)).await.unwrap();
            let answer = timeout(SOON, ask(stream, Version::HTTP_2)).await.unwrap();
            answered += u32::from(answer.is_ok_and(|(status, _)| status == 200));
        }
    }
    assert_eq!(answered, 20);
    world.close().await;
}
