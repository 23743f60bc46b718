//! The store, as the suite starts it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::process::free_port;
use super::servers::{Recipe, Server, run};

pub(crate) const BUCKET: &str = "lake";

/// versitygw keeps objects as files; `go install` takes a minute.
const VERSITYGW: Recipe = Recipe {
    name: "versitygw",
    folder: "versitygw-1.8.0",
    source: "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
    is_bound_to_its_path: false,
    make: |folder| run(Command::new("go").args(["install", VERSITYGW.source]).env("GOBIN", folder)),
};

const START_MAX: Duration = Duration::from_secs(30);

/// A running store with a bucket.
pub(crate) struct Store {
    server: Server,
    pub(crate) port: u16,
    pub(crate) keys: (&'static str, &'static str),
}

impl Store {
    /// None where it was not opted in.
    pub(crate) async fn versitygw() -> Option<Self> {
        let program = VERSITYGW.have()?.join("versitygw");
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port().port());
        std::fs::create_dir_all(dir.path().join("data").join(BUCKET)).unwrap();
        let keys = ("k1234567890", "s1234567890");
        let mut command = Command::new(program);
        command.args(["--port", &format!("127.0.0.1:{port}"), "--quiet", "posix"]);
        command.arg(dir.path().join("data"));
        command.env("ROOT_ACCESS_KEY", keys.0).env("ROOT_SECRET_KEY", keys.1);
        let mut server = Server::start(&mut command, dir);
        server.listens(&[port], START_MAX).await;
        Some(Self { server, port, keys })
    }

    /// The objects below a prefix.
    pub(crate) fn objects(&self, prefix: &str) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        files(&self.server.dir().join("data").join(BUCKET).join(prefix), &mut found);
        found
    }
}

fn files(dir: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            assert!(path.to_string_lossy().ends_with(".jsonl.zst"), "{}", path.display());
            found.push(std::fs::read(path).unwrap());
        }
    }
}
