//! Rules that decide on whole traces, across kills: the file must equal the decisions computed from all received spans together.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::process::Config;
use super::senders::{Crowd, NAME, Random};
use super::{DRAIN_MAX, World, file_sink};

const SPANS: u32 = 20_000;
const KILLS: u32 = 6;
const SECOND: u64 = 1_000_000_000;
const QUIET: u64 = SECOND / 2;
const LONGEST: u64 = 2 * SECOND;

/// All traces go to one sink; the other gets those with a span whose number ends with 00.
fn tables() -> String {
    let decided = file_sink("decided.jsonl").replace("sinks.archive", "sinks.decided");
    format!(
        "{}{decided}decide = {{ quiet = \"500ms\", longest = \"2s\" }}
[[sinks.decided.rules]]
match = {{ name = \"{NAME}*00\" }}
keep = true
decide = \"trace\"
[[sinks.decided.rules]]
sample = 0
decide = \"trace\"\n",
        file_sink("all.jsonl"),
    )
}

#[tokio::test]
async fn kills_while_traces_are_open_change_no_decision_and_lose_and_repeat_nothing() {
    let world = World::new(&Config { tables: tables(), ..Config::default() });
    let mut random = Random::new(11);
    let mut daemon = world.start().await;
    let crowd = Crowd::begin_interleaved(&world.place, SPANS, 11);
    for kill in 1..=KILLS {
        crowd.reaches(SPANS / (KILLS + 1) * kill, &mut daemon).await;
        tokio::time::sleep(random.duration_below(Duration::from_millis(50))).await;
        daemon.kill().unwrap();
        if kill % 2 == 0 {
            world.start_and_kill_after(random.duration_below(Duration::from_millis(60))).await;
        }
        daemon = world.start().await;
        world.counts_add_up();
    }
    crowd.finish(&mut daemon).await;
    world.all_delivered(&mut daemon).await;
    world.counts_add_up();
    daemon.terminate(DRAIN_MAX).await.unwrap();

    let all = lines(&world.place.dir.join("all.jsonl"));
    let expected = kept(&all);
    assert!(
        all.len() / 10 < expected.len() && expected.len() < all.len() / 10 * 9,
        "{}",
        expected.len()
    );
    let decided = lines(&world.place.dir.join("decided.jsonl"));
    println!("{} of {} lines are of traces that are kept", decided.len(), all.len());
    assert_eq!(decided.len(), expected.len());
    for (line, expected) in decided.iter().zip(expected) {
        assert_eq!(line, expected);
    }
}

/// Returns the lines of a file, which are in the order of the journal.
fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

/// Returns the lines of the traces to keep.
fn kept(all: &[String]) -> Vec<&String> {
    let (mut now_ns, mut traces) = (0, BTreeMap::<String, Vec<(u64, bool)>>::new());
    let mut of = Vec::new();
    for line in all {
        let line: Value = serde_json::from_str(line).unwrap();
        now_ns = time_ns(line["received_at"].as_str().unwrap()).max(now_ns);
        let trace = line["trace_id"].as_str().unwrap().to_owned();
        let is_match = line["name"].as_str().is_some_and(|name| name.ends_with("00"));
        traces.entry(trace.clone()).or_default().push((now_ns, is_match));
        of.push(trace);
    }
    let is_kept = |arrivals: &Vec<(u64, bool)>| {
        let begin_ns = arrivals[0].0;
        let is_open =
            |pair: &&[(u64, bool)]| pair[1].0 < pair[0].0 + QUIET && pair[1].0 < begin_ns + LONGEST;
        let in_time = 1 + arrivals.windows(2).take_while(is_open).count();
        let is_quiet = arrivals[in_time - 1].0 + QUIET <= begin_ns + LONGEST;
        !is_quiet || arrivals[..in_time].iter().any(|(_, is_match)| *is_match)
    };
    let lines = all.iter().zip(of);
    lines.filter(|(_, trace)| is_kept(&traces[trace])).map(|(line, _)| line).collect()
}

/// Parses a time such as `2026-11-29T08:21:00.123456789Z`, counted from the beginning of its month.
fn time_ns(text: &str) -> u64 {
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().unwrap();
    let seconds =
        ((number(8, 10) * 24 + number(11, 13)) * 60 + number(14, 16)) * 60 + number(17, 19);
    let fraction = text[19..].trim_start_matches('.').trim_end_matches('Z');
    seconds * SECOND + format!("{fraction:0<9}").parse::<u64>().unwrap()
}
