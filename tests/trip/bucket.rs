//! `import` from a store played by the suite: S3's listing and ranges, with answers that fail, stop half-way or come late.

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

use super::World;

/// Objects by their names, and the requests for them.
#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Vec<u8>>,
    asked: Mutex<Vec<String>>,
    /// One answer in this many is wrong, each time in another way.
    fails_each: Option<usize>,
    is_forbidden: bool,
}

impl Bucket {
    async fn serve(self) -> (Arc<Self>, u16) {
        let bucket = Arc::new(self);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().fallback(answer).with_state(Arc::clone(&bucket));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (bucket, port)
    }

    /// Returns the objects that were read, each once.
    fn read(&self) -> Vec<String> {
        let mut all = self.asked.lock().unwrap().clone();
        all.retain(|asked| asked.contains(".jsonl"));
        all.sort();
        all.dedup();
        all
    }

    fn list(&self, prefix: &str) -> Response {
        let objects = self.objects.iter().filter(|(name, _)| name.starts_with(prefix));
        let contents: Vec<_> = objects
            .map(|(name, bytes)| {
                let size = bytes.len();
                format!(
                    "<Contents><Key>{name}</Key><LastModified>2026-11-21T05:15:09.000Z</LastModified><ETag>\"1\"</ETag><Size>{size}</Size></Contents>"
                )
            })
            .collect();
        let contents = contents.concat();
        format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")
            .into_response()
    }
}

async fn answer(State(bucket): State<Arc<Bucket>>, request: Request) -> Response {
    let path = request.uri().path().trim_start_matches("/lake").trim_start_matches('/');
    let path = path.replace("%3D", "=");
    let count = {
        let mut asked = bucket.asked.lock().unwrap();
        asked.push(path.clone());
        asked.len()
    };
    if bucket.is_forbidden {
        return (StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>").into_response();
    }
    let fault =
        bucket.fails_each.filter(|each| count.is_multiple_of(*each)).map(|each| count / each % 3);
    match fault {
        Some(0) => {
            return (StatusCode::SERVICE_UNAVAILABLE, "<Code>SlowDown</Code>").into_response();
        }
        Some(1) => tokio::time::sleep(Duration::from_secs(2)).await,
        _ => {}
    }
    let Some(object) = bucket.objects.get(&path) else {
        let query = request.uri().query().unwrap_or_default();
        let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix="));
        return bucket.list(&prefix.unwrap_or_default().replace("%2F", "/").replace("%3D", "="));
    };
    let range = request.headers()[header::RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap();
    let (from, to) = range.split_once('-').unwrap();
    let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
    let part = object[from..=to].to_vec();
    let mut headers = HeaderMap::new();
    let said = format!("bytes {from}-{to}/{}", object.len());
    headers.insert(header::CONTENT_RANGE, said.parse().unwrap());
    headers.insert(header::ETAG, "\"1\"".parse().unwrap());
    headers.insert(header::LAST_MODIFIED, "Sat, 21 Nov 2026 05:15:09 GMT".parse().unwrap());
    headers.insert(header::CONTENT_LENGTH, part.len().to_string().parse().unwrap());
    let body = if fault == Some(2) {
        let half = part[..part.len() / 2].to_vec();
        let parts = [Ok(half), Err(std::io::Error::other("it stops"))];
        Body::from_stream(futures_util::stream::iter(parts))
    } else {
        Body::from(part)
    };
    (StatusCode::PARTIAL_CONTENT, headers, body).into_response()
}

/// Returns this number of lines of spans, with ids from `first` on, which do not compress to less than several ranges.
fn lines(first: u64, count: u64) -> Vec<u8> {
    let mut random = first;
    let mut line = |number: u64| {
        let text: Vec<_> = (0..100)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                format!("{random:016x}")
            })
            .collect();
        let text = text.concat();
        format!(
            r#"{{"schema_version":2,"record":"span","trace_id":"{number:032x}","span_id":"{number:016x}","name":"n","start_time_unix_nano":1795238109000000000,"attributes":{{"text":"{text}"}}}}"#
        )
    };
    let lines: Vec<_> = (first..first + count).map(&mut line).collect();
    let mut text = lines.join("\n");
    text.push('\n');
    text.into_bytes()
}

const SINKS: &str = r#"
[sinks.lines]
type = "file"
path = "lines.jsonl"

[sinks.other]
type = "file"
path = "other.jsonl"
"#;

impl World {
    /// Imports with the credentials of a sink, or those of the environment.
    async fn import_from(&self, port: u16, has_sink: bool, arguments: &[&str]) -> Output {
        let address = format!("http://127.0.0.1:{port}");
        let sink = format!(
            "[sinks.lake]\ntype = \"object_store\"\nurl = \"s3://lake/elsewhere\"\nendpoint = \"{address}\"\ntimeout = \"1s\"\n\
             access_key_id = \"k\"\nsecret_access_key = \"hush\"\n[sinks.lines]\ntype = \"stdout\"\n"
        );
        fs::write(self.dir.path().join("import.toml"), if has_sink { sink.as_str() } else { "" })
            .unwrap();
        let mut command = self.import(&["-c", "import.toml"]);
        if !has_sink {
            command.env("AWS_ENDPOINT_URL", address).env("AWS_ACCESS_KEY_ID", "k");
            command.env("AWS_SECRET_ACCESS_KEY", "hush").env("AWS_ALLOW_HTTP", "true");
        }
        command.args(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    fn ids(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["span_id"].to_string();
        let mut ids: Vec<_> = text.lines().map(id).collect();
        ids.sort();
        ids
    }
}

fn sums(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("hush"), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn expected(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("\"{number:016x}\"")).collect()
}

/// Returns two hours of a lake, and objects outside of them.
fn hours() -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([
        (
            "a/dt=2026-11-19/hour=05/1.jsonl.zst".to_owned(),
            zstd::bulk::compress(&lines(1, 5), 1).unwrap(),
        ),
        (
            "a/dt=2026-11-21/hour=05/2.jsonl.zst".to_owned(),
            zstd::bulk::compress(&lines(10, 9_000), 1).unwrap(),
        ),
        ("a/dt=2026-11-21/hour=06/3.jsonl".to_owned(), lines(20_000, 10)),
        ("a/dt=2026-11-23/hour=05/4.jsonl".to_owned(), lines(30_000, 1)),
        ("b/5.jsonl".to_owned(), lines(40_000, 1)),
    ])
}

#[tokio::test]
async fn objects_come_out_of_a_store_that_fails_and_each_span_is_there_once() {
    let bucket = Bucket { objects: hours(), fails_each: Some(2), ..Bucket::default() };
    assert!(
        4 << 20 < bucket.objects["a/dt=2026-11-21/hour=05/2.jsonl.zst"].len(),
        "it takes several ranges"
    );
    let (bucket, port) = bucket.serve().await;
    let world = World::new(SINKS).await;
    let arguments = [
        "s3://lake/a",
        "--from",
        "2026-11-21T05:00:00Z",
        "--to",
        "2026-11-21T06:00:00Z",
        "--resume",
        "state",
    ];
    let first = sums(&world.import_from(port, true, &arguments).await);
    assert_eq!(
        (&first["accepted"], &first["sources"], &first["left_out"]),
        (&9_010.into(), &2.into(), &2.into())
    );
    assert_eq!(bucket.read().len(), 2, "{:?}", bucket.read());
    // Objects that were read to their end are not read again.
    bucket.asked.lock().unwrap().clear();
    assert_eq!(sums(&world.import_from(port, true, &arguments).await)["accepted"], 0);
    assert_eq!(bucket.read(), [""; 0]);
    world.settled().await;
    assert_eq!(world.ids("lines.jsonl"), expected((10..9_010).chain(20_000..20_010)));
}

#[tokio::test]
async fn one_object_is_named_as_well_and_goes_to_one_sink_with_the_environments_credentials() {
    let (bucket, port) = Bucket { objects: hours(), ..Bucket::default() }.serve().await;
    let world = World::new(SINKS).await;
    let object = "s3://lake/a/dt=2026-11-21/hour=06/3.jsonl";
    fs::write(world.dir.path().join("sinks.toml"), SINKS).unwrap();
    let to_one = [object, "-c", "sinks.toml", "--sink", "other"];
    for arguments in [&to_one[..1], &to_one, &to_one] {
        assert_eq!(sums(&world.import_from(port, false, arguments).await)["accepted"], 10);
    }
    assert_eq!(bucket.read(), ["a/dt=2026-11-21/hour=06/3.jsonl"]);
    world.settled().await;
    assert_eq!(world.ids("lines.jsonl"), expected(20_000..20_010));
    // The second import is not a resend of the first, which was for all sinks; the third is a resend of the second.
    let twice = (20_000..20_010).flat_map(|number| [number, number]);
    assert_eq!(world.ids("other.jsonl"), expected(twice));
}

#[tokio::test]
async fn a_store_that_refuses_and_a_name_that_is_not_there_are_said() {
    let (_forbidden, port) =
        Bucket { objects: hours(), is_forbidden: true, ..Bucket::default() }.serve().await;
    let world = World::new(SINKS).await;
    for (arguments, said) in [
        (["s3://lake/a", "--sink", "lines"], "lack permissions"),
        (["s3://lake/a", "--sink", "lime"], "there is no sink lime"),
    ] {
        let output = world.import_from(port, true, &arguments).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(said), "{stderr}");
    }
    let (_bucket, port) = Bucket { objects: hours(), ..Bucket::default() }.serve().await;
    let output = world.import_from(port, true, &["s3://lake/c"]).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("no such object"), "{stderr}");
}
