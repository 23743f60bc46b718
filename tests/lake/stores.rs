//! The stores that the suite starts.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

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

/// moto keeps objects in memory and checks no signature; `pip install` takes half a minute.
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

/// Azurite is Microsoft's own; `npm install` takes half a minute.
const AZURITE: Recipe = Recipe {
    name: "azurite",
    folder: "azurite-3.35.0",
    source: "azurite@3.35.0",
    is_bound_to_its_path: false,
    make: |folder| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(folder);
        run(npm.arg(AZURITE.source))
    },
};

/// Azurite's account, with the key from its documentation.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const START_MAX: Duration = Duration::from_secs(30);

/// A running store with a bucket.
pub(crate) struct Store {
    /// `None` for a folder.
    server: Option<Server>,
    pub(crate) port: u16,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Versitygw,
    Moto,
    Azurite,
    Folder,
}

pub(crate) const KEYS: (&str, &str) = ("k1234567890", "s1234567890");

impl Store {
    /// `None` if it was not opted in.
    pub(crate) async fn versitygw() -> Option<Self> {
        let program = VERSITYGW.have()?.join("versitygw");
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port().port());
        std::fs::create_dir_all(dir.path().join("data").join(BUCKET)).unwrap();
        let mut command = Command::new(program);
        command.args(["--port", &format!("127.0.0.1:{port}"), "--quiet", "posix"]);
        command.arg(dir.path().join("data"));
        command.env("ROOT_ACCESS_KEY", KEYS.0).env("ROOT_SECRET_KEY", KEYS.1);
        let mut server = Server::start(&mut command, dir);
        server.listens(&[port], START_MAX).await;
        Some(Self { server: Some(server), port, kind: Kind::Versitygw })
    }

    /// `None` if it was not opted in.
    pub(crate) async fn moto() -> Option<Self> {
        let program = MOTO.have()?.join("venv/bin/moto_server");
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port().port());
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let mut server = Server::start(&mut command, dir);
        server.listens(&[port], START_MAX).await;
        let store = Self { server: Some(server), port, kind: Kind::Moto };
        store.send(hyper::Request::put(store.container(""))).await;
        Some(store)
    }

    /// `None` if it was not opted in.
    pub(crate) async fn azurite() -> Option<Self> {
        let program = AZURITE.have()?.join("node_modules/.bin/azurite-blob");
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port().port());
        let mut command = Command::new(program);
        command.args(["--blobPort", &port.to_string(), "--silent", "--inMemoryPersistence"]);
        let mut server = Server::start(&mut command, dir);
        server.listens(&[port], START_MAX).await;
        let store = Self { server: Some(server), port, kind: Kind::Azurite };
        store.make_container().await;
        Some(store)
    }

    /// The store is a folder of each run.
    pub(crate) fn folder() -> Self {
        Self { server: None, port: 0, kind: Kind::Folder }
    }

    /// Returns the address and the credentials for a sink that uses this port.
    pub(crate) fn options(&self, port: u16, prefix: &str) -> String {
        match self.kind {
            Kind::Versitygw | Kind::Moto => format!(
                "url = \"s3://{BUCKET}/{prefix}\"\nendpoint = \"http://127.0.0.1:{port}\"\n\
                 access_key_id = \"{}\"\nsecret_access_key = \"{}\"",
                KEYS.0, KEYS.1,
            ),
            Kind::Azurite => format!(
                "url = \"az://{BUCKET}/{prefix}\"\nendpoint = \"http://127.0.0.1:{port}/{ACCOUNT}\"\n\
                 account = \"{ACCOUNT}\"\naccount_key = \"{ACCOUNT_KEY}\"",
            ),
            Kind::Folder => format!("url = \"file://{prefix}\""),
        }
    }

    /// Returns the objects below a prefix.
    pub(crate) async fn objects(&self, prefix: &str) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        match (&self.server, self.kind) {
            (Some(server), Kind::Versitygw) => {
                files(&server.dir().join("data").join(BUCKET).join(prefix), &mut found);
            }
            (_, Kind::Azurite | Kind::Moto) => {
                let (query, is_all, tag) = match self.kind {
                    Kind::Moto => ("list-type=2", "<IsTruncated>false", "<Key>"),
                    _ => ("restype=container&comp=list", "<NextMarker/>", "<Name>"),
                };
                let list = self.get(&format!("?{query}&prefix={prefix}/")).await;
                let list = String::from_utf8(list).unwrap();
                assert!(list.contains(is_all), "{list}");
                for name in list.split(tag).skip(1) {
                    let name = name.split_once("</").unwrap().0.replace('=', "%3D");
                    found.push(self.get(&format!("/{name}")).await);
                }
            }
            _ => files(Path::new(prefix), &mut found),
        }
        found
    }

    async fn get(&self, rest: &str) -> Vec<u8> {
        let request = hyper::Request::get(self.container(rest)).header("x-ms-version", VERSION);
        // moto returns no object without a signature, which it does not check; Azurite would check it.
        let request = match self.kind {
            Kind::Moto => request.header("authorization", ANY_SIGNATURE),
            _ => request,
        };
        self.send(request).await
    }

    fn container(&self, rest: &str) -> String {
        let account = if self.kind == Kind::Moto { "" } else { "/devstoreaccount1" };
        format!("http://127.0.0.1:{}{account}/{BUCKET}{rest}", self.port)
    }

    /// Creates a publicly readable container. The request is signed according to "Authorize with Shared Key" of Azure Storage.
    async fn make_container(&self) {
        use base64::Engine as _;
        let date = httpdate::fmt_http_date(SystemTime::now());
        let headers = format!(
            "x-ms-blob-public-access:container\nx-ms-date:{date}\nx-ms-version:{VERSION}\n"
        );
        let text = format!(
            "PUT{}{headers}/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container",
            "\n".repeat(12)
        );
        let base64 = base64::engine::general_purpose::STANDARD;
        let key = base64.decode(ACCOUNT_KEY).unwrap();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        let signature = base64.encode(ring::hmac::sign(&key, text.as_bytes()));
        let request = hyper::Request::put(self.container("?restype=container"))
            .header("x-ms-blob-public-access", "container")
            .header("x-ms-date", date)
            .header("x-ms-version", VERSION)
            .header("authorization", format!("SharedKey {ACCOUNT}:{signature}"));
        self.send(request).await;
    }

    async fn send(&self, request: hyper::http::request::Builder) -> Vec<u8> {
        use http_body_util::{BodyExt as _, Full};
        use hyper_util::client::legacy::Client;
        let client = Client::builder(hyper_util::rt::TokioExecutor::new())
            .build_http::<Full<bytes::Bytes>>();
        let answer = client.request(request.body(Full::default()).unwrap()).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes().to_vec();
        assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        body
    }
}

const ANY_SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=any/20261121/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=any";
/// A version of Azure's API that Azurite supports.
const VERSION: &str = "2021-12-02";

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
