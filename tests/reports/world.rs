//! A daemon with three sinks: a file, a Langfuse and an OTLP backend.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::case::Request;
use super::fake::Fake;
use super::process::{Config, Daemon, POLL_EVERY, Place};
use super::receiver::Receiver;
use super::seen::Seen;

/// What has not been delivered by then never will be.
const DELIVERY_MAX: Duration = Duration::from_mins(1);
/// A sink gets corrections of a span when its trace has been quiet for ten seconds; on a busy machine it takes longer.
const QUIET_MAX: Duration = Duration::from_secs(20);
/// Time between two readings of the sinks while they are incomplete.
const READ_EVERY: Duration = Duration::from_millis(100);
/// Maximum time of an orderly stop.
const END_MAX: Duration = Duration::from_secs(30);

/// The daemon and its backends.
pub(crate) struct World {
    daemon: Daemon,
    langfuse: Fake,
    otlp: Receiver,
    dir: tempfile::TempDir,
}

/// The answer to a client.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl World {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (langfuse, otlp) = (Fake::start().await, Receiver::default());
        let place = Place::new(dir.path());
        let sinks = [
            ("lines", format!("type = \"file\"\npath = '{}'", lines(dir.path()).display())),
            ("langfuse", format!("type = \"langfuse\"\n{}", langfuse.options())),
            ("otlp", format!("type = \"otlp\"\nendpoint = {:?}", otlp.http().await)),
        ];
        let mut tables = String::new();
        for (name, options) in sinks {
            writeln!(tables, "[sinks.{name}]\n{options}\nbatch = {{ age_max = \"50ms\" }}")
                .unwrap();
        }
        place.configure(&Config { tables, ..Config::default() }).unwrap();
        let command = place.command(Path::new(env!("CARGO_BIN_EXE_spanferry"))).unwrap();
        match Daemon::start(&place, command).await {
            Ok(daemon) => Self { daemon, langfuse, otlp, dir },
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends a request over a separate connection.
    pub(crate) async fn post(&self, request: &Request) -> Answer {
        let address = self.daemon.place.http;
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut send, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut head = hyper::Request::post(&request.path).header("host", address.to_string());
        for (name, value) in &request.headers {
            head = head.header(name, value);
        }
        let body = Full::new(Bytes::from(request.body.clone()));
        let answer = send.send_request(head.body(body).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Answer { status, body: String::from_utf8_lossy(&body).into_owned() }
    }

    /// Waits until every sink has delivered everything.
    pub(crate) async fn settled(&self) {
        let begun = Instant::now();
        loop {
            let status = self.daemon.place.ask("/status").unwrap_or_default();
            let status: Value = serde_json::from_str(&status).unwrap_or_default();
            let sinks = status["sinks"].as_array().cloned().unwrap_or_default();
            if sinks.len() == 3 && sinks.iter().all(|sink| sink["pending"] == 0) {
                return;
            }
            let said = self.daemon.place.said();
            assert!(begun.elapsed() < DELIVERY_MAX, "not delivered: {status}\n{said}");
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Waits until the sinks satisfy this, but not forever: the test then reports what is missing.
    pub(crate) async fn until(&self, is_so: impl Fn(&Seen) -> bool) {
        let begun = Instant::now();
        while begun.elapsed() < QUIET_MAX && !is_so(&self.read()) {
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    /// Stops the daemon in an orderly way; returns the final contents of the sinks.
    pub(crate) async fn stop(self) -> Seen {
        let Self { daemon, langfuse, otlp, dir } = self;
        let place = daemon.place.clone();
        let ended = daemon.terminate(END_MAX).await.unwrap();
        assert!(ended.is_some_and(|status| status.success()), "{}", place.said());
        assert_eq!(langfuse.lost(), Vec::<String>::new());
        read(dir.path(), &langfuse, &otlp)
    }

    fn read(&self) -> Seen {
        read(self.dir.path(), &self.langfuse, &self.otlp)
    }
}

fn lines(dir: &Path) -> std::path::PathBuf {
    dir.join("lines.jsonl")
}

fn read(dir: &Path, langfuse: &Fake, otlp: &Receiver) -> Seen {
    let text = fs::read_to_string(lines(dir)).unwrap_or_default();
    let messages = langfuse.posts().into_iter().map(|post| post.message);
    let requests = otlp.got().into_iter().map(|got| got.request);
    Seen::new(&text, messages, requests)
}
