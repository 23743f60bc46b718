//! Reloads under load: no request is refused, nothing is lost or sent twice, and no resources leak.

use std::time::Duration;
use std::{fs, io};

use super::process::{Config, Daemon, Place};
use super::senders::{Crowd, Random};
use super::{DRAIN_MAX, World, file_sink, from_environment};

/// Number of reloads in the short form.
const RELOADS: u32 = 40;
/// Spans per reload.
const SPANS_EACH: u32 = 300;
/// Maximum number of additional file descriptors: of connections that are being closed.
const FILES_MORE_MAX: usize = 16;
/// Maximum additional memory: a run of this length fills tables with bounds.
const BYTES_MORE_MAX: f64 = 64e6;

/// The file's sink changes with each turn, another sink is added and removed; one never changes.
fn configure(place: &Place, turn: u32) {
    let archive = file_sink("traces.jsonl");
    let kept = archive.replace("sinks.archive", "sinks.kept").replace("traces", "kept");
    let mut tables = format!("{archive}batch = {{ age_max = \"{}ms\" }}\n{kept}", 5 + turn % 7);
    if turn % 3 == 1 {
        tables.push_str("[sinks.guest]\ntype = \"blackhole\"\n");
    }
    let receivers = format!("connections_max = {}", 700 + turn % 5);
    let config = Config { receivers, tables, ..Config::default() };
    place.configure(&config).unwrap();
}

async fn reload(place: &Place) -> io::Result<(u16, String)> {
    let place = place.clone();
    tokio::task::spawn_blocking(move || place.command_over_http("/api/v1/reload")).await.unwrap()
}

fn open_files(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

#[tokio::test]
async fn reloads_under_load_refuse_nobody_and_lose_and_repeat_nothing() {
    let reloads = from_environment("SPANFERRY_CRASH_RELOADS").unwrap_or(RELOADS);
    let world = World::new(&Config::default());
    configure(&world.place, 0);
    let mut daemon = world.start().await;
    let crowd = Crowd::begin(&world.place, reloads * SPANS_EACH, 7);
    let mut before = None;
    for turn in 1..=reloads {
        configure(&world.place, turn);
        let (status, answer) = reload(&world.place).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains("\"kept\":[\"kept\"]"), "{answer}");
        // Threads and buffers that are allocated once exist after some reloads.
        if turn == reloads / 4 {
            let bytes = world.place.figure("spanferry_process_resident_memory_bytes").unwrap();
            before = Some((open_files(&daemon), bytes));
        }
    }
    let (files, bytes) = before.unwrap();
    let bytes_now = world.place.figure("spanferry_process_resident_memory_bytes").unwrap();
    let files_now = open_files(&daemon);
    println!("{reloads} reloads: files {files} -> {files_now}, bytes {bytes} -> {bytes_now}");
    assert!(files_now <= files + FILES_MORE_MAX, "files {files} -> {files_now}");
    assert!(bytes_now <= bytes + BYTES_MORE_MAX, "bytes {bytes} -> {bytes_now}");
    let sent = crowd.finish(&mut daemon).await;
    world.all_delivered(&mut daemon).await;
    world.counts_add_up();
    daemon.terminate(DRAIN_MAX).await.unwrap();
    assert_eq!((sent.refused, sent.resent), (0, 0), "a request was refused or broken off");
    for file in ["traces.jsonl", "kept.jsonl"] {
        sent.ledger.compare(&world.place.dir.join(file)).is_exactly_once();
    }
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_reload_loses_and_repeats_nothing() {
    let world = World::new(&Config::default());
    configure(&world.place, 0);
    let mut daemon = world.start().await;
    let crowd = Crowd::begin(&world.place, 12_000, 8);
    let mut random = Random::new(8);
    for turn in 1..=6 {
        crowd.reaches(turn * 1_500, &mut daemon).await;
        configure(&world.place, turn);
        let place = world.place.clone();
        let reloading = tokio::spawn(async move { reload(&place).await });
        tokio::time::sleep(random.duration_below(Duration::from_millis(30))).await;
        daemon.kill().unwrap();
        reloading.await.unwrap().ok();
        daemon = world.start().await;
        world.counts_add_up();
    }
    let sent = crowd.finish(&mut daemon).await;
    world.all_delivered(&mut daemon).await;
    world.counts_add_up();
    daemon.terminate(DRAIN_MAX).await.unwrap();
    for file in ["traces.jsonl", "kept.jsonl"] {
        sent.ledger.compare(&world.place.dir.join(file)).is_exactly_once();
    }
}
