//! A real daemon is killed under load, and every acknowledged span must be in the file exactly once.
//!
//! Six clients, two each for the Agents SDK's ingest, OTLP/HTTP protobuf and OTLP/gRPC, number their spans and send a request again,
//! unchanged, until it is acknowledged, as SDKs do. The daemon gets SIGKILL at random moments, sometimes again while it recovers, and
//! continues on the same directory. At the end every acknowledged span must be in the file once: none missing, none twice (a request that
//! was kept but not answered before the kill is sent again and recognized), none changed. After every start the counts in `/metrics` must
//! add up: accepted = delivered + pending + dead letters + filtered + dropped. The checker needs two bits a span, however long the file is.
//!
//! `reloads.rs`: the same while the configuration changes all the time, with a kill in the middle of a reload.
//!
//! `decide.rs`: the same while rules decide on whole traces.
//!
//! Further cases: SIGKILL at a dozen moments of one recovery; SIGTERM under load leaves nothing pending; a full disk under the journal, and
//! a sink that accepts nothing until the journal is at its limit, are answered with 503 and `UNAVAILABLE`, and everything arrives once
//! there is space, without a restart; a second daemon on the same directory refuses to start and names the first; a file sink whose file
//! system hangs reports it and does not prevent a stop. The full-disk cases mount a small tmpfs that only the daemon under test sees, which
//! requires root and `unshare`; the file system hangs because another process has a lease on the file, which requires perl.
//!
//! ```sh
//! cargo test --test crash                                   # short: some seconds
//! SPANFERRY_CRASH_SPANS=1000000 SPANFERRY_CRASH_KILLS=20 \
//!   cargo test --profile dist --test crash -- --nocapture what_was_acknowledged    # long: a minute or two
//! SPANFERRY_CRASH_RELOADS=1000 cargo test --test crash reloads    # long: minutes
//! SPANFERRY_CRASH_SEED=4711 cargo test --test crash         # the same requests and waits again; what the kernel does in between varies
//! ```
//!
//! Not proven here: loss of power. SIGKILL leaves the kernel's page cache intact, so a missing sync would not show; `src/journal/tests`
//! tests against a storage in memory that acknowledgements wait for the sync, and what happens when a sync fails or lies. Nor what happens
//! with more than one sink, or when resends come after the daemon has forgotten the first request.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may panic, print, and read files and the environment"
)]

#[path = "../opt_in.rs"]
mod opt_in;
#[path = "../process/mod.rs"]
mod process;

mod decide;
mod disk;
mod ledger;
mod reloads;
mod senders;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use process::{Config, Daemon, POLL_EVERY, Place, sum_figure};
use senders::{Crowd, Random};

/// Number of spans of the short form, in the ordinary test run.
const SPANS: u32 = 30_000;
const KILLS: u32 = 5;
/// A lane that has not caught up by then never will.
const DELIVERY_MAX: Duration = Duration::from_mins(2);
/// Maximum time of an orderly stop: the grace period, and then the remaining deliveries.
const DRAIN_MAX: Duration = Duration::from_mins(1);

#[tokio::test]
async fn what_was_acknowledged_is_in_the_file_exactly_once_through_random_kills() {
    let spans = from_environment("SPANFERRY_CRASH_SPANS").unwrap_or(SPANS);
    let kills = from_environment("SPANFERRY_CRASH_KILLS").unwrap_or(KILLS);
    let seed = from_environment("SPANFERRY_CRASH_SEED").unwrap_or_else(std::process::id);
    println!("SPANFERRY_CRASH_SEED={seed}: {spans} spans, {kills} kills");
    let mut random = Random::new(seed.into());

    let world = World::new(&Config { tables: file_sink("traces.jsonl"), ..Config::default() });
    let mut daemon = world.start().await;
    let crowd = Crowd::begin(&world.place, spans, seed);
    for kill in 1..=kills {
        // Somewhere after this kill's share of the spans, and then at a random point within some milliseconds.
        let share = u64::from(spans) * u64::from(kill) / (u64::from(kills) + 1);
        crowd.reaches(u32::try_from(share).unwrap(), &mut daemon).await;
        tokio::time::sleep(random.duration_below(Duration::from_millis(50))).await;
        daemon.kill().unwrap();
        if random.below(2) == 0 {
            world.start_and_kill_after(random.duration_below(Duration::from_millis(60))).await;
        }
        daemon = world.start().await;
        world.counts_add_up();
    }
    let sent = crowd.finish(&mut daemon).await;
    world.all_delivered(&mut daemon).await;
    world.counts_add_up();
    let end = daemon.terminate(DRAIN_MAX).await.unwrap();
    assert!(
        end.is_some_and(|status| status.success()),
        "the orderly end failed: {end:?}\n{}",
        world.place.said()
    );

    let found = sent.ledger.compare(&world.place.dir.join("traces.jsonl"));
    println!("{} acknowledged, {} requests resent; {found}", sent.acknowledged, sent.resent);
    assert_eq!(sent.acknowledged, spans);
    found.is_exactly_once();
}

#[tokio::test]
async fn a_kill_in_the_middle_of_recovery_loses_nothing() {
    let world = World::new(&Config { tables: file_sink("traces.jsonl"), ..Config::default() });
    let mut daemon = world.start().await;
    let crowd = Crowd::begin(&world.place, 10_000, 1);
    crowd.reaches(8_000, &mut daemon).await;
    daemon.kill().unwrap();
    for step in 0..12 {
        world.start_and_kill_after(Duration::from_millis(4) * step).await;
    }
    let mut daemon = world.start().await;
    let sent = crowd.finish(&mut daemon).await;
    world.all_delivered(&mut daemon).await;
    daemon.kill().unwrap();
    // Killed after everything was delivered: the file may be ahead of the cursor, and the next start truncates it.
    let mut daemon = world.start().await;
    world.all_delivered(&mut daemon).await;
    daemon.terminate(DRAIN_MAX).await.unwrap();
    sent.ledger.compare(&world.place.dir.join("traces.jsonl")).is_exactly_once();
}

#[tokio::test]
async fn an_orderly_end_under_load_leaves_nothing_pending() {
    let world = World::new(&Config { tables: file_sink("traces.jsonl"), ..Config::default() });
    let mut daemon = world.start().await;
    let crowd = Crowd::begin(&world.place, 20_000, 2);
    crowd.reaches(5_000, &mut daemon).await;
    let end = daemon.terminate(DRAIN_MAX).await.unwrap();
    assert!(end.is_some_and(|status| status.success()), "{end:?}\n{}", world.place.said());
    // No daemon answers now, so the set of acknowledged spans does not change while the file is read.
    let found = crowd.ledger().compare(&world.place.dir.join("traces.jsonl"));
    println!("{} acknowledged before the end; {found}", crowd.acknowledged());
    assert!(5_000 <= crowd.acknowledged());
    found.has_all_that_was_acknowledged();

    let mut daemon = world.start().await;
    let sent = crowd.finish(&mut daemon).await;
    world.all_delivered(&mut daemon).await;
    daemon.terminate(DRAIN_MAX).await.unwrap();
    sent.ledger.compare(&world.place.dir.join("traces.jsonl")).is_exactly_once();
}

#[tokio::test]
async fn a_full_disk_under_the_journal_refuses_and_recovers_without_a_restart() {
    let world = World::new(&Config { tables: file_sink("traces.jsonl"), ..Config::default() });
    let Some(command) = disk::with_small_disk(&world.place, &world.place.journal_dir(), 128 << 20)
    else {
        return;
    };
    let mut daemon = Daemon::start(&world.place, command).await.unwrap();
    let filler = disk::Filler::fill(&daemon, &world.place.journal_dir(), 8 << 20);
    let crowd = Crowd::begin_large(&world.place, 12_000, 3);
    crowd.is_refused(&mut daemon).await;
    assert_eq!(world.place.get("/livez").unwrap().0, 200, "a full disk is no reason to be killed");
    filler.remove();
    let sent = crowd.finish(&mut daemon).await;
    world.all_delivered(&mut daemon).await;
    assert_eq!(world.place.get("/readyz").unwrap().0, 200);
    daemon.terminate(DRAIN_MAX).await.unwrap();
    sent.ledger.compare(&world.place.dir.join("traces.jsonl")).is_exactly_once();
}

#[tokio::test]
async fn a_sink_that_takes_nothing_fills_the_journal_to_its_limit_and_no_further() {
    let config = Config {
        journal: "bytes_max = \"16MiB\"\nsegment_bytes_max = \"2MiB\"".to_owned(),
        tables: file_sink("out/traces.jsonl"),
        ..Config::default()
    };
    let world = World::new(&config);
    let out = world.place.dir.join("out");
    let Some(command) = disk::with_small_disk(&world.place, &out, 256 << 20) else {
        return;
    };
    let mut daemon = Daemon::start(&world.place, command).await.unwrap();
    let filler = disk::Filler::fill(&daemon, &out, 256 << 10);
    let crowd = Crowd::begin_large(&world.place, 12_000, 4);
    crowd.is_refused(&mut daemon).await;
    assert_eq!(
        world.place.get("/readyz").unwrap().0,
        200,
        "a sink that is down does not make the daemon unready"
    );
    let journal = world.place.figure("spanferry_journal_bytes").unwrap();
    assert!(journal <= f64::from(16 << 20), "the journal takes {journal} bytes");
    filler.remove();
    let sent = crowd.finish(&mut daemon).await;
    world.all_delivered(&mut daemon).await;
    // The small disk disappears with the process.
    let found = sent.ledger.compare(&disk::seen_by(&daemon, &out.join("traces.jsonl")));
    daemon.terminate(DRAIN_MAX).await.unwrap();
    found.is_exactly_once();
}

/// Dropping what this sink has not delivered would free no space: the other sink needs all of it.
#[tokio::test]
async fn a_sink_that_may_drop_its_oldest_loses_nothing_while_another_one_fills_the_journal() {
    let dead = "[sinks.dead]\ntype = \"otlp\"\nendpoint = \"http://127.0.0.1:9\"\n";
    let archive = file_sink("traces.jsonl");
    let world = World::new(&Config {
        journal: "bytes_max = \"16MiB\"\nsegment_bytes_max = \"2MiB\"".to_owned(),
        tables: format!("{archive}when_full = \"drop_oldest\"\n{dead}"),
        ..Config::default()
    });
    let mut daemon = world.start().await;
    let crowd = Crowd::begin_large(&world.place, 12_000, 5);
    crowd.is_refused(&mut daemon).await;
    let of_archive = |name: &str| world.place.figure_of(name, "archive").unwrap();
    while of_archive("spanferry_sink_pending_spans") != 0.0 {
        assert!(daemon.ended().is_none(), "the daemon ended by itself:\n{}", world.place.said());
        tokio::time::sleep(POLL_EVERY).await;
    }
    assert!(of_archive("spanferry_sink_sent_spans_total") > 0.0);
    assert!(of_archive("spanferry_sink_dropped_spans_total") == 0.0, "{}", world.place.said());
    assert!(world.place.figure_of("spanferry_sink_pending_spans", "dead").unwrap() > 0.0);
    world.counts_add_up();
    drop(crowd);
    daemon.kill().unwrap();
}

/// A sink whose cursor is lost is not a new sink: it gets everything that the journal keeps again.
#[tokio::test]
async fn a_sink_whose_cursor_is_damaged_emptied_or_deleted_gets_everything_again() {
    let world = World::new(&Config { tables: file_sink("traces.jsonl"), ..Config::default() });
    let mut daemon = world.start().await;
    let sent = Crowd::begin(&world.place, 300, 6).finish(&mut daemon).await;
    world.all_delivered(&mut daemon).await;
    daemon.terminate(DRAIN_MAX).await.unwrap();
    let (cursor, lines) = (cursor_of(&world.place.dir), world.place.dir.join("traces.jsonl"));
    let whole = std::fs::read(&cursor).unwrap();
    for broken in [Some([&whole[..20], &[0xff], &whole[21..]].concat()), Some(Vec::new()), None] {
        std::fs::remove_file(&lines).unwrap();
        match &broken {
            Some(bytes) => std::fs::write(&cursor, bytes).unwrap(),
            None => std::fs::remove_file(&cursor).unwrap(),
        }
        let mut daemon = world.start().await;
        world.all_delivered(&mut daemon).await;
        world.counts_add_up();
        assert!(world.place.said().contains("the cursor of this sink is damaged or gone"));
        daemon.terminate(DRAIN_MAX).await.unwrap();
        sent.ledger.compare(&lines).is_exactly_once();
    }
}

/// Returns the path of the file sink's cursor.
fn cursor_of(dir: &Path) -> PathBuf {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == "archive.cursor") {
                return path;
            }
        }
    }
    panic!("no cursor below {}", dir.display());
}

#[tokio::test]
async fn a_file_system_that_hangs_is_said_and_a_stop_ends_at_its_deadline_without_loss() {
    let tables = file_sink("traces.jsonl") + "[sinks.other]\ntype = \"blackhole\"\n";
    let world = World::new(&Config { tables, ..Config::default() });
    let file = world.place.dir.join("traces.jsonl");
    let Some(mut lease) = disk::hang(&file) else { return };
    let mut command = world.place.command(program()).unwrap();
    command.env("SPANFERRY__SHUTDOWN_TIMEOUT", "1s").env("SPANFERRY__DRAIN_GRACE", "0s");
    let mut daemon = Daemon::start(&world.place, command).await.unwrap();
    let sent = Crowd::begin(&world.place, 100, 1).finish(&mut daemon).await;
    let sinks = || -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(&world.place.ask("/status").unwrap()).unwrap()
            ["sinks"]
            .take()
    };
    let began = Instant::now();
    let mut seen = sinks();
    while seen[0]["state"] == "running" || seen[1]["pending"] != 0 {
        assert!(seen[0]["pending"].as_u64() > Some(0), "{seen}");
        assert!(began.elapsed() < DRAIN_MAX, "{seen}");
        tokio::time::sleep(POLL_EVERY).await;
        seen = sinks();
    }
    assert_eq!((&seen[0]["state"], &seen[0]["delivered"]), (&"retrying".into(), &0.into()));
    assert!(world.place.ask("/health").unwrap().contains("\"degraded\""));
    let end = daemon.terminate(Duration::from_secs(15)).await.unwrap();
    assert!(end.is_some(), "it did not end: {}", world.place.said());
    assert!(lease.try_wait().unwrap().is_none(), "the file was held until then");
    lease.kill().unwrap();
    lease.wait().unwrap();
    let mut daemon = world.start().await;
    world.all_delivered(&mut daemon).await;
    daemon.terminate(DRAIN_MAX).await.unwrap();
    sent.ledger.compare(&file).is_exactly_once();
}

#[tokio::test]
async fn a_second_daemon_on_the_same_directory_refuses_and_names_the_first() {
    let world = World::new(&Config { tables: file_sink("traces.jsonl"), ..Config::default() });
    let first = world.start().await;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let second = Place::new(dir.path());
    second.configure(&Config { tables: file_sink("traces.jsonl"), ..Config::default() }).unwrap();
    let config = std::fs::read_to_string(second.config_file()).unwrap();
    let shared =
        config.replace(&path_text(&second.journal_dir()), &path_text(&world.place.journal_dir()));
    assert_ne!(config, shared);
    std::fs::write(second.config_file(), shared).unwrap();
    let mut daemon = Daemon::spawn(&second, second.command(program()).unwrap()).unwrap();
    let end = daemon.wait(Duration::from_secs(20)).await.unwrap();
    assert!(end.is_some_and(|status| !status.success()), "{end:?}");
    let said = second.said();
    assert!(
        said.contains(&first.pid().to_string()),
        "the first process, {}, is not named: {said}",
        first.pid()
    );
}

/// A directory with a configuration, on which daemons start and end.
struct World {
    place: Place,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(config: &Config) -> Self {
        // Inside the target folder, because /tmp may be a tmpfs.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let place = Place::new(dir.path());
        place.configure(config).unwrap();
        Self { place, _dir: dir }
    }

    async fn start(&self) -> Daemon {
        match Daemon::start(&self.place, self.place.command(program()).unwrap()).await {
            Ok(daemon) => daemon,
            Err(error) => panic!("the daemon did not start: {error}"),
        }
    }

    async fn start_and_kill_after(&self, time: Duration) {
        let daemon = Daemon::spawn(&self.place, self.place.command(program()).unwrap()).unwrap();
        tokio::time::sleep(time).await;
        daemon.kill().unwrap();
    }

    async fn all_delivered(&self, daemon: &mut Daemon) {
        let asked = Instant::now();
        loop {
            let pending = self.place.figure("spanferry_sink_pending_spans");
            if pending == Some(0.0) {
                return;
            }
            assert!(daemon.ended().is_none(), "the daemon ended by itself:\n{}", self.place.said());
            assert!(
                asked.elapsed() < DELIVERY_MAX,
                "{pending:?} still pending:\n{}",
                self.place.said()
            );
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Asserts that every accepted item is delivered, pending, a dead letter, filtered or dropped, in one reading of the metrics.
    fn counts_add_up(&self) {
        let metrics = self.place.ask("/metrics").expect("the daemon answers");
        let figure = |name: &str| {
            sum_figure(&metrics, name).unwrap_or_else(|| panic!("no {name} in:\n{metrics}"))
        };
        let parts = [
            "spanferry_sink_sent_spans_total",
            "spanferry_sink_pending_spans",
            "spanferry_sink_dead_letter_spans",
            "spanferry_sink_filtered_spans_total",
            "spanferry_sink_dropped_spans_total",
        ];
        let mut sum = 0.0;
        let mut shown = String::new();
        for part in parts {
            sum += figure(part);
            writeln!(shown, "{part} {}", figure(part)).unwrap();
        }
        let accepted = figure("spanferry_sink_accepted_spans_total");
        assert!((accepted - sum).abs() < 0.5, "accepted {accepted}, but:\n{shown}");
    }
}

fn file_sink(path: &str) -> String {
    format!("[sinks.archive]\ntype = \"file\"\npath = \"{path}\"\n")
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_spanferry"))
}

fn from_environment(name: &str) -> Option<u32> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Not a test: it ends the suite's output. See `opt_in.rs`.
#[test]
fn zz_what_was_skipped_is_said() {
    opt_in::say_what_was_skipped();
}
