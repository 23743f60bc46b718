//! The daemon as a separate process: its directory, its start, requests to it, and its end. Shared by the suites that drive it from
//! outside; each includes this folder by path and uses a part of it.
#![allow(dead_code, reason = "each suite that includes this folder uses a part of it")]

pub(crate) mod client;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process};

/// Time between two polls.
pub(crate) const POLL_EVERY: Duration = Duration::from_millis(5);
/// On a busy machine, a start with a large journal to recover takes seconds; more than this is a failure.
pub(crate) const START_MAX: Duration = Duration::from_mins(1);
/// Maximum time of an answer of the admin port.
const ADMIN_ANSWER_MAX: Duration = Duration::from_secs(5);

/// A directory and three ports, which stay the same while daemons are killed and started on them.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// The configuration in addition to addresses and directories, as TOML.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// Lines for `[receivers]`.
    pub(crate) receivers: String,
    /// Lines for `[journal]`.
    pub(crate) journal: String,
    /// Entire tables, `[sinks.NAME]` and others.
    pub(crate) tables: String,
}

/// A running daemon. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    pub(crate) place: Place,
}

/// Why a daemon did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("cannot start the process: {0}")]
    Spawn(#[from] io::Error),
    #[error("it ended with {status} before it was ready; it said:\n{said}")]
    Ended { status: ExitStatus, said: String },
    #[error("not ready after {START_MAX:?}; it said:\n{said}")]
    NotReady { said: String },
}

impl Place {
    /// Creates a place in this directory, on free ports.
    ///
    /// The ports are below the range from which the kernel assigns the ports of outgoing connections: a client that keeps connecting to a
    /// dead port inside that range ends up connected to itself.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), http: free_port(), grpc: free_port(), admin: free_port() }
    }

    /// Returns the path of the configuration.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.join("spanferry.toml")
    }

    /// Returns the path of the journal, unless a test configures another one.
    pub(crate) fn journal_dir(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, config: &Config) -> io::Result<()> {
        let mut text = String::new();
        let (http, grpc, admin) = (self.http, self.grpc, self.admin);
        writeln!(text, "[receivers]\nhttp = \"{http}\"\ngrpc = \"{grpc}\"").ok();
        writeln!(text, "{}\n", config.receivers).ok();
        writeln!(text, "[admin]\nlisten = \"{admin}\"\n").ok();
        writeln!(text, "[journal]\ndir = '{}'\n{}\n", self.journal_dir().display(), config.journal)
            .ok();
        text.push_str(&config.tables);
        fs::write(self.config_file(), text)
    }

    /// Returns the command that runs a daemon here; its log is appended to `log` in the directory.
    pub(crate) fn command(&self, program: &Path) -> io::Result<Command> {
        let mut command = Command::new(program);
        command.arg("run").arg("-c").arg(self.config_file());
        self.at_home(&mut command)?;
        Ok(command)
    }

    /// Sets this directory as the command's working directory, and its log for the output.
    pub(crate) fn at_home(&self, command: &mut Command) -> io::Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file())?;
        command.current_dir(&self.dir).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Only the error message matters here, not its origin in the code.
        command.env("RUST_BACKTRACE", "0");
        Ok(())
    }

    /// Returns the last part of the log.
    pub(crate) fn said(&self) -> String {
        const SHOWN_BYTES: usize = 4000;
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(SHOWN_BYTES)..]).into_owned()
    }

    /// Queries the admin port; `None` without a successful answer.
    pub(crate) fn ask(&self, path: &str) -> Option<String> {
        let (status, body) = self.get(path).ok()?;
        (200..300).contains(&status).then_some(body)
    }

    /// Queries the admin port for a media type; `None` without a successful answer.
    pub(crate) fn ask_for(&self, path: &str, accept: &str) -> Option<String> {
        let (status, body) =
            self.request("GET", path, &format!("Accept: {accept}\r\n\r\n")).ok()?;
        (200..300).contains(&status).then_some(body)
    }

    /// Queries the admin port; returns the status and the body.
    pub(crate) fn get(&self, path: &str) -> io::Result<(u16, String)> {
        self.request("GET", path, "")
    }

    /// Sends a command to the admin port; returns the status and the body.
    pub(crate) fn command_over_http(&self, path: &str) -> io::Result<(u16, String)> {
        let body = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        self.request("POST", path, body)
    }

    fn request(&self, method: &str, path: &str, rest: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.admin, ADMIN_ANSWER_MAX)?;
        stream.set_read_timeout(Some(ADMIN_ANSWER_MAX))?;
        let rest = if rest.is_empty() { "\r\n" } else { rest };
        let host = self.admin;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{rest}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        status.map(|status| (status, body.to_owned())).ok_or(io::ErrorKind::InvalidData.into())
    }

    /// Sums a metric of `/metrics` over its labels; `None` without an answer or without the metric.
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        sum_figure(&self.ask("/metrics")?, name)
    }

    /// Returns one sink's value of a metric of `/metrics`.
    pub(crate) fn figure_of(&self, name: &str, sink: &str) -> Option<f64> {
        let metrics = self.ask("/metrics")?;
        let is_of_sink = |line: &&str| line.contains(&format!("sink=\"{sink}\""));
        sum_figure(&metrics.lines().filter(is_of_sink).collect::<Vec<_>>().join("\n"), name)
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }
}

impl Daemon {
    /// Starts a daemon without waiting for it.
    pub(crate) fn spawn(place: &Place, mut command: Command) -> Result<Self, StartError> {
        Ok(Self { child: command.spawn()?, place: place.clone() })
    }

    /// Starts a daemon and waits until it is ready.
    pub(crate) async fn start(place: &Place, command: Command) -> Result<Self, StartError> {
        let mut daemon = Self::spawn(place, command)?;
        daemon.ready().await?;
        Ok(daemon)
    }

    /// Waits until the daemon reports that it is ready.
    pub(crate) async fn ready(&mut self) -> Result<(), StartError> {
        let started = Instant::now();
        while self.place.ask("/readyz").is_none() {
            if let Some(status) = self.child.try_wait()? {
                return Err(StartError::Ended { status, said: self.place.said() });
            }
            if START_MAX < started.elapsed() {
                return Err(StartError::NotReady { said: self.place.said() });
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the exit status if it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// Sends SIGTERM, then waits for the end; `None` if it takes longer than `patience`.
    pub(crate) async fn terminate(mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.wait(patience).await
    }

    /// Waits for the end; `None` if it takes longer than `patience`.
    pub(crate) async fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let asked = Instant::now();
        while asked.elapsed() < patience {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(None)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sums a metric over its labels in a text of `/metrics`.
pub(crate) fn sum_figure(metrics: &str, name: &str) -> Option<f64> {
    let of_name = |line: &str| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    };
    let mut values = metrics.lines().filter_map(of_name).peekable();
    values.peek().is_some().then(|| values.sum())
}

/// Returns a loopback address on which nothing listens.
pub(crate) fn free_port() -> SocketAddr {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Concurrent processes begin at different ports.
    let begin = u16::try_from(std::process::id() * 37 % u32::from(COUNT)).unwrap_or_default();
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (begin.wrapping_add(step)) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
