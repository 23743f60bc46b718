//! Not a suite: real servers, installed once from published packages below `target/real-servers/`, for the suites that need them. Each
//! file's module docs describe how its server is installed and started; `tests/README.md` describes how to run with all of them.
//!
//! A server is installed when a test first needs it (`../opt_in.rs`). If the installation fails, so does the test.
#![allow(dead_code, reason = "each suite that includes this folder uses a part of it")]

pub(crate) mod collector;
pub(crate) mod jaeger;
pub(crate) mod kafka;
pub(crate) mod phoenix;
pub(crate) mod prometheus;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tempfile::TempDir;

use crate::opt_in;

/// Time between two polls.
pub(crate) const POLL_EVERY: Duration = Duration::from_millis(20);
/// An answer that takes longer never comes.
const ANSWER_MAX: Duration = Duration::from_mins(1);

/// How to install a server.
pub(crate) struct Recipe {
    /// Its name for opting in.
    pub(crate) name: &'static str,
    /// Its folder below `target/real-servers/`.
    pub(crate) folder: &'static str,
    /// All inputs of the installation, as text: it is repeated if they change.
    pub(crate) source: &'static str,
    /// Whether the installation contains its own path and so works only there. A copy elsewhere is installed again.
    pub(crate) is_bound_to_its_path: bool,
    /// Installs it in its folder.
    pub(crate) make: fn(&Path) -> Result<(), String>,
}

impl Recipe {
    /// Returns the folder of the installed server; `None` if it was not opted in.
    pub(crate) fn have(&self) -> Option<PathBuf> {
        static TRIED: Mutex<Option<HashMap<&'static str, Result<PathBuf, String>>>> =
            Mutex::new(None);
        if !opt_in::wants(self.name) {
            return None;
        }
        // Held during the installation, so that tests that need the same server wait for it.
        let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
        let had =
            tried.get_or_insert_default().entry(self.folder).or_insert_with(|| self.made()).clone();
        drop(tried);
        Some(had.unwrap_or_else(|reason| panic!("{} cannot be made: {reason}", self.name)))
    }

    fn made(&self) -> Result<PathBuf, String> {
        self.made_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target/real-servers"))
    }

    /// Returns the server's folder below this one, and installs the server if it is absent.
    pub(crate) fn made_below(&self, parent: &Path) -> Result<PathBuf, String> {
        let folder = parent.join(self.folder);
        let stamp = folder.join("made-from");
        let made_from = self.made_from(&folder);
        if fs::read_to_string(&stamp).is_ok_and(|known| known == made_from) {
            return Ok(folder);
        }
        let shown = |error: std::io::Error| error.to_string();
        fs::remove_dir_all(&folder).ok();
        fs::create_dir_all(&folder).map_err(shown)?;
        (self.make)(&folder)?;
        fs::write(&stamp, made_from).map_err(shown)?;
        Ok(folder)
    }

    /// Returns the contents of the stamp next to an installed server, which is used again while this is unchanged.
    fn made_from(&self, folder: &Path) -> String {
        if self.is_bound_to_its_path {
            format!("{}\nin {}", self.source, folder.display())
        } else {
            self.source.to_owned()
        }
    }
}

/// Runs an installation command; if it fails, the last line of its errors is the reason.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default().to_owned();
    Err(format!("{command:?} failed: {last}"))
}

/// A running server in its own directory. Killed when dropped.
pub(crate) struct Server {
    process: Child,
    dir: TempDir,
}

impl Server {
    /// Starts a command; its output goes to `said` in the directory.
    pub(crate) fn start(command: &mut Command, dir: TempDir) -> Self {
        let said = File::create(dir.path().join("said")).unwrap();
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        let process = command.current_dir(dir.path()).spawn().unwrap();
        Self { process, dir }
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until these ports accept connections.
    pub(crate) async fn listens(&mut self, ports: &[u16], patience: Duration) {
        let started = Instant::now();
        for port in ports {
            while tokio::net::TcpStream::connect(("127.0.0.1", *port)).await.is_err() {
                let said = || fs::read_to_string(self.dir.path().join("said")).unwrap();
                assert!(self.process.try_wait().unwrap().is_none(), "it ended: {}", said());
                assert!(started.elapsed() < patience, "it does not start: {}", said());
                tokio::time::sleep(POLL_EVERY).await;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Sends a GET; returns the status and the answer, null if that is not JSON.
pub(crate) async fn get(url: &str) -> (u16, Value) {
    ask(Request::get(url).body(Full::default()).unwrap()).await
}

/// Posts JSON.
pub(crate) async fn post(url: &str, body: &Value) -> (u16, Value) {
    let body = Full::from(serde_json::to_vec(body).unwrap());
    ask(Request::post(url).header("content-type", "application/json").body(body).unwrap()).await
}

/// Sends any request.
pub(crate) async fn ask(request: Request<Full<Bytes>>) -> (u16, Value) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let what = format!("{} {}", request.method(), request.uri());
    let answered = async {
        let response = client.request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok::<_, String>((status, serde_json::from_slice(&body.to_bytes()).unwrap_or_default()))
    };
    match tokio::time::timeout(ANSWER_MAX, answered).await {
        Ok(Ok(answer)) => answer,
        failed => panic!("{what}: {failed:?}"),
    }
}
