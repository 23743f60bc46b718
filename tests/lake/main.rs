//! The sink for object stores against real ones, with a daemon that is killed and a network that fails: each row once.
//!
//! The stores are versitygw 1.8.0 (S3; a Go module) and Azurite (Microsoft's own, from npm), which check signatures and conditions, moto
//! (S3; a Python package), and a folder. In front of all but the last, a proxy answers 503, answers late, forwards the request without an
//! answer, cuts answers, and forwards requests after the client has given up (`proxy.rs`). Clients number their spans and send again until
//! each is acknowledged (`../crash/senders.rs`). At the end every acknowledged span must be in the objects once and unchanged.
//!
//! ```sh
//! SPANFERRY_REAL=versitygw cargo test --test lake -- --nocapture            # short
//! SPANFERRY_REAL=versitygw SPANFERRY_LAKE_RUNS=200 cargo test --test lake kills  # long: minutes
//! SPANFERRY_REAL=versitygw SPANFERRY_LAKE_RUNS=1 SPANFERRY_LAKE_SPANS=1000000 cargo test --profile dist --test lake kills
//! ```
//!
//! The sources of credentials are tested against servers that the suite plays (`credentials.rs`). Not proven here: Amazon's, Google's and
//! Microsoft's own services, and encryption with KMS keys. No emulator in a package registry speaks Google's XML API.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may panic, print, and read files and the environment"
)]

mod credentials;
#[path = "../fixtures/mod.rs"]
mod fixtures;
#[path = "../crash/ledger.rs"]
mod ledger;
#[path = "../opt_in.rs"]
mod opt_in;
#[path = "../process/mod.rs"]
mod process;
mod proxy;
#[path = "../crash/senders.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod senders;
#[path = "../servers/mod.rs"]
mod servers;
mod stores;

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use process::{Config, Daemon, Place};
use proxy::Proxy;
use senders::{Crowd, Random};
use stores::{KEYS, Kind, Store};

const RUNS: u32 = 8;
/// Number of concurrent runs, which mostly wait.
const AT_ONCE: usize = 6;
const SPANS: u32 = 600;
/// Maximum time of an orderly stop, in which the last object is put.
const DRAIN_MAX: Duration = Duration::from_mins(1);

fn sink(store: &Store, port: u16, prefix: &str, options: &str) -> String {
    let place = store.options(port, prefix);
    format!(
        "[sinks.lake]\ntype = \"object_store\"\n{place}\n{options}\nretry = {{ first = \"10ms\", longest = \"100ms\", hold = \"100ms\" }}\n",
    )
}

fn place_with(dir: &Path, tables: String) -> Place {
    let place = Place::new(dir);
    place.configure(&Config { tables, ..Config::default() }).unwrap();
    place
}

async fn start(place: &Place) -> Daemon {
    let command = place.command(Path::new(env!("CARGO_BIN_EXE_spanferry"))).unwrap();
    Daemon::start(place, command).await.unwrap()
}

fn from_environment(name: &str) -> Option<u32> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

async fn one_run(store: &Store, seed: u32, spans: u32) -> u64 {
    let mut random = Random::new(seed.into());
    let dir = tempfile::tempdir().unwrap();
    let prefix = match store.kind {
        Kind::Folder => dir.path().join("lake").display().to_string(),
        Kind::Versitygw | Kind::Moto | Kind::Azurite => format!("run/{seed}"),
    };
    let proxy = Proxy::start(store.port, seed).await;
    let age = 5 + random.below(60);
    let limits = format!(
        "object = {{ age = \"{age}ms\", bytes_max = \"{}KiB\" }}\ntimeout = \"500ms\"",
        if spans > 10_000 { 4096 } else { 64 },
    );
    let place = place_with(dir.path(), sink(store, proxy.port, &prefix, &limits));
    let mut daemon = start(&place).await;
    let crowd = Crowd::begin(&place, spans, seed);
    let kills = 2 + random.below(3);
    for kill in 1..=kills {
        let share = u64::from(spans) * kill / (kills + 1);
        crowd.reaches(u32::try_from(share).unwrap(), &mut daemon).await;
        tokio::time::sleep(random.duration_below(Duration::from_millis(1500))).await;
        daemon.kill().unwrap();
        daemon = start(&place).await;
    }
    let sent = crowd.finish(&mut daemon).await;
    proxy.behave();
    // A late put may have made the first one repeat from before its end.
    for _ in 0..2 {
        let end = daemon.terminate(DRAIN_MAX).await.unwrap();
        assert!(end.is_some_and(|status| status.success()), "{end:?}\n{}", place.said());
        daemon = start(&place).await;
    }
    daemon.kill().unwrap();
    let objects = store.objects(&prefix).await;
    let lines = dir.path().join("lines");
    let mut all = std::fs::File::create(&lines).unwrap();
    for object in &objects {
        all.write_all(&zstd::stream::decode_all(object.as_slice()).unwrap()).unwrap();
    }
    let found = sent.ledger.compare(&lines);
    println!(
        "seed {seed}: {kills} kills, {} faults, {} objects; {found}",
        proxy.faults(),
        objects.len()
    );
    found.is_exactly_once();
    assert_eq!(found.lines, u64::from(spans));
    proxy.faults()
}

async fn kills_and_faults(store: Option<Store>) {
    let Some(store) = store else { return };
    let runs = from_environment("SPANFERRY_LAKE_RUNS").unwrap_or(RUNS);
    let spans = from_environment("SPANFERRY_LAKE_SPANS").unwrap_or(SPANS);
    let all = stream::iter(0..runs).map(|seed| one_run(&store, seed, spans));
    let faults: Vec<u64> = all.buffer_unordered(AT_ONCE).collect().await;
    println!("{runs} runs, {} faults", faults.iter().sum::<u64>());
    let is_tested = store.kind == Kind::Folder || faults.iter().any(|faults| 0 < *faults);
    assert!(is_tested, "nothing was put to the test");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_and_faults_lose_and_repeat_no_row_in_versitygw() {
    kills_and_faults(Store::versitygw().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_and_faults_lose_and_repeat_no_row_in_azurite() {
    kills_and_faults(Store::azurite().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_and_faults_lose_and_repeat_no_row_in_moto() {
    kills_and_faults(Store::moto().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_and_repeat_no_row_in_a_folder() {
    kills_and_faults(Some(Store::folder())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_must_mend_is_said_and_mended_without_a_restart() {
    let Some(store) = Store::versitygw().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let tables = sink(&store, store.port, "held", "object = { age = \"50ms\" }");
    let wrong_key = tables.replace(KEYS.1, "not-the-secret-of-this-key");
    let place = place_with(dir.path(), wrong_key);
    let mut daemon = start(&place).await;
    let crowd = Crowd::begin(&place, 100, 1);
    let sent = crowd.finish(&mut daemon).await;
    let status = || place.ask("/status").unwrap();
    until(|| status().contains("rejects the credentials")).await;
    assert!(!status().contains("not-the-secret"));
    place
        .configure(&Config {
            tables: tables.replace("s3://lake/", "s3://nobody/"),
            ..Config::default()
        })
        .unwrap();
    let (code, said) = place.command_over_http("/api/v1/reload").unwrap();
    assert_eq!(code, 200, "{said}");
    until(|| status().contains("the bucket does not exist")).await;
    place.configure(&Config { tables, ..Config::default() }).unwrap();
    place.command_over_http("/api/v1/reload").unwrap();
    until(|| !status().contains("the bucket does not exist")).await;
    daemon.terminate(DRAIN_MAX).await.unwrap();
    let lines = dir.path().join("lines");
    let all: Vec<u8> = store
        .objects("held")
        .await
        .iter()
        .flat_map(|object| zstd::stream::decode_all(object.as_slice()).unwrap())
        .collect();
    std::fs::write(&lines, all).unwrap();
    sent.ledger.compare(&lines).is_exactly_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gathered_is_pending_until_it_is_put() {
    let (store, dir) = (Store::folder(), tempfile::tempdir().unwrap());
    let lake = dir.path().join("lake").display().to_string();
    let place = place_with(dir.path(), sink(&store, 0, &lake, "object = { age = \"1h\" }"));
    let mut daemon = start(&place).await;
    Crowd::begin(&place, 50, 1).finish(&mut daemon).await;
    let figures = || {
        let status: serde_json::Value =
            serde_json::from_str(&place.ask("/status").unwrap()).unwrap();
        let sink = &status["sinks"][0];
        (
            ["accepted", "delivered", "pending"].map(|name| sink[name].as_u64().unwrap()),
            sink.clone(),
        )
    };
    // The lane has delivered everything to the sink.
    until(|| figures().1["in_flight"] == 0 && figures().1["deliveries"] != 0).await;
    let (counts, sink) = figures();
    // Trace objects are items, too.
    let all = counts[0];
    assert!(50 <= all && counts == [all, 0, all], "{sink}");
    assert!(sink["oldest_age_seconds"].as_f64().unwrap() > 0.0, "{sink}");
    assert!(store.objects(&lake).await.is_empty());
    daemon.terminate(DRAIN_MAX).await.unwrap();
    let _daemon = start(&place).await;
    assert_eq!(figures().0, [all, all, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_finds_that_it_may_write_to_each_and_leaves_nothing() {
    for store in [Store::versitygw().await, Store::azurite().await, Store::moto().await]
        .into_iter()
        .flatten()
    {
        let dir = tempfile::tempdir().unwrap();
        let place = place_with(dir.path(), sink(&store, store.port, "asked", ""));
        let mut doctor = std::process::Command::new(env!("CARGO_BIN_EXE_spanferry"));
        doctor.current_dir(dir.path()).args(["doctor", "-c"]).arg(place.config_file());
        let said = String::from_utf8(doctor.output().unwrap().stdout).unwrap();
        assert!(said.contains("objects can be listed and conditionally written"), "{said}");
        assert!(store.objects("asked").await.is_empty());
    }
}

/// Asserts that `import` into another daemon restores each span of a store once, from archives and lines, whatever the network does.
async fn comes_back(store: &Store, format: &str) {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let prefix = match store.kind {
        Kind::Folder => dirs[0].path().join("lake").display().to_string(),
        Kind::Versitygw | Kind::Moto | Kind::Azurite => format!("back/{format}"),
    };
    let proxy = Proxy::start(store.port, 7).await;
    let limits = "object = { age = \"50ms\", bytes_max = \"64KiB\" }\ntimeout = \"500ms\"";
    let options = format!("format = \"{format}\"\n{limits}");
    let first = place_with(dirs[0].path(), sink(store, store.port, &prefix, &options));
    let mut daemon = start(&first).await;
    let sent = Crowd::begin(&first, SPANS, 7).finish(&mut daemon).await;
    daemon.terminate(DRAIN_MAX).await.unwrap();

    let lines = "[sinks.lines]\ntype = \"file\"\npath = \"lines.jsonl\"";
    let second = place_with(dirs[1].path(), lines.to_owned());
    let daemon = start(&second).await;
    let tables = sink(store, proxy.port, &prefix, &options);
    first.configure(&Config { tables: tables.clone(), ..Config::default() }).unwrap();
    let url = tables.split('"').find(|word| word.contains("://")).unwrap().to_owned();
    let mut import = std::process::Command::new(env!("CARGO_BIN_EXE_spanferry"));
    import.current_dir(dirs[0].path()).arg("import").arg("-c").arg(first.config_file());
    import.args([&url, "--endpoint", &format!("http://{}", second.http)]);
    let output = tokio::task::spawn_blocking(move || import.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains(KEYS.1), "{said}");
    daemon.terminate(DRAIN_MAX).await.unwrap();
    println!("{format} from {url}: {} faults", proxy.faults());
    sent.ledger.compare(&dirs[1].path().join("lines.jsonl")).is_exactly_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_is_imported_once() {
    let real = [Store::versitygw().await, Store::azurite().await, Store::moto().await];
    for store in real.into_iter().flatten().chain([Store::folder()]) {
        for format in ["otlp", "jsonl"] {
            comes_back(&store, format).await;
        }
    }
}

async fn until(holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DRAIN_MAX, "it never came");
        tokio::time::sleep(process::POLL_EVERY).await;
    }
}

/// Not a test: it ends the suite's output. See `opt_in.rs`.
#[test]
fn zz_what_was_skipped_is_said() {
    opt_in::say_what_was_skipped();
}
