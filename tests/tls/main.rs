//! The real binary over TLS and Unix sockets: certificates that change under load or break, vendors that push from outside, tenants, and
//! operators with keys.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may panic, and read files and the environment"
)]

#[path = "../../src/support/tests/authority.rs"]
mod authority;
#[path = "../process/mod.rs"]
mod process;

mod operators;
mod rotation;
mod vendors;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use authority::Authority;
use process::{Config, Daemon, Place};

/// The path of the binary.
const PROGRAM: &str = env!("CARGO_BIN_EXE_spanferry");

/// A daemon with TLS, in its own directory.
struct World {
    authority: Authority,
    daemon: Daemon,
    _dir: tempfile::TempDir,
}

impl World {
    /// Starts a daemon and waits until it is ready; `receivers` extends its table, `tls` the table with the certificate.
    async fn new(receivers: &str, tls: &str) -> Self {
        let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
        authority.renew("localhost");
        let place = Place::new(dir.path());
        let files = authority.options().trim_end().replace('\n', ", ");
        let receivers = format!("{receivers}\ntls = {{ {files}{tls} }}");
        let tables = "[sinks.lines]\ntype = 'file'\npath = 'lines.jsonl'\n".to_owned();
        place.configure(&Config { receivers, tables, ..Config::default() }).unwrap();
        let command = place.command(Path::new(PROGRAM)).unwrap();
        let daemon = Daemon::start(&place, command).await.unwrap();
        Self { authority, daemon, _dir: dir }
    }

    fn place(&self) -> &Place {
        &self.daemon.place
    }

    fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.place().ask(path).unwrap()).unwrap()
    }

    /// Returns the file's lines once the sink has everything.
    async fn lines(&self) -> Vec<serde_json::Value> {
        while self.json("/status")["sinks"][0]["pending"] != 0 {
            tokio::time::sleep(process::POLL_EVERY).await;
        }
        let text = std::fs::read_to_string(self.place().dir.join("lines.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs the binary in a directory, without this machine's environment.
fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.current_dir(dir).env_clear().stdin(Stdio::null()).args(arguments);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}
