//! The stores, as the suite starts them.

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

/// moto keeps objects in memory; `pip install` takes half a minute.
const MOTO: Recipe = Recipe {
    name: "moto",
    folder: "moto-5.2.5",
    source: "moto[server,s3]==5.2.5",
    is_bound_to_its_path: true,
    make: |folder| {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
        run(Command::new(folder.join("venv/bin/pip")).args(["install", "-q", MOTO.source]))
    },
};

const START_MAX: Duration = Duration::from_secs(30);

/// A running store with a bucket.
pub(crate) struct Store {
    server: Server,
    pub(crate) port: u16,
    pub(crate) keys: (&'static str, &'static str),
    /// Whether objects are files.
    has_files: bool,
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
        Some(Self { server, port, keys, has_files: true })
    }

    /// None where it was not opted in.
    pub(crate) async fn moto() -> Option<Self> {
        let program = MOTO.have()?.join("venv/bin/moto_server");
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port().port());
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let mut server = Server::start(&mut command, dir);
        server.listens(&[port], START_MAX).await;
        let store = Self { server, port, keys: ("any", "any"), has_files: false };
        assert_eq!(store.ask("PUT", BUCKET).await.0, 200);
        Some(store)
    }

    /// The objects below a prefix.
    pub(crate) async fn objects(&self, prefix: &str) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        if self.has_files {
            let data = self.server.dir().join("data").join(BUCKET);
            files(&data.join(prefix), &mut found);
            return found;
        }
        let (_, list) = self.ask("GET", &format!("{BUCKET}?list-type=2&prefix={prefix}/")).await;
        let list = String::from_utf8(list).unwrap();
        assert!(list.contains("<IsTruncated>false"), "{list}");
        for key in list.split("<Key>").skip(1) {
            let key = key.split_once("</Key>").unwrap().0.replace('=', "%3D");
            found.push(self.ask("GET", &format!("{BUCKET}/{key}")).await.1);
        }
        found
    }

    /// Asks without a signature, which moto does not check.
    async fn ask(&self, method: &str, path: &str) -> (u16, Vec<u8>) {
        use http_body_util::{BodyExt as _, Full};
        let uri = format!("http://127.0.0.1:{}/{path}", self.port);
        let request = hyper::Request::builder().method(method).uri(uri);
        let request = request.body(Full::<bytes::Bytes>::default()).unwrap();
        let client =
            hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
                .build_http::<Full<bytes::Bytes>>();
        let response = client.request(request).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }
}

fn files(dir: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            assert!(path.to_string_lossy().ends_with(".jsonl.zst"), "{path:?}");
            found.push(std::fs::read(path).unwrap());
        }
    }
}
