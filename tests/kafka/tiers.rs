//! Receiving daemons, a topic, delivering daemons.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use super::ledger::Found;
use super::senders::{Crowd, Random, Sent};
use super::servers::POLL_EVERY;
use super::servers::kafka::Kafka;
use super::{Member, PATIENCE, topic};

/// Returns the option for a static group member, so that a killed daemon gets its partitions back and recognizes what it had received.
fn named(number: usize) -> String {
    format!("instance = \"delivering-{number}\"")
}

/// Compares the files of delivering daemons with the acknowledged spans, once all of them are there.
async fn found(sent: &Sent, delivering: &mut [Member]) -> Found {
    let begun = Instant::now();
    loop {
        for member in &mut *delivering {
            member.delivered().await;
        }
        let all = tempfile::NamedTempFile::new().unwrap();
        fs::write(&all, delivering.iter().map(Member::lines).collect::<String>()).unwrap();
        let found = sent.ledger.compare(all.path());
        if found.missing.is_empty() || PATIENCE < begun.elapsed() {
            return found;
        }
        tokio::time::sleep(POLL_EVERY * 50).await;
    }
}

/// Returns the daemons whose files have spans of each trace.
fn owners(delivering: &[Member]) -> HashMap<String, HashSet<usize>> {
    let mut owners: HashMap<_, HashSet<_>> = HashMap::new();
    for (number, member) in delivering.iter().enumerate() {
        for line in member.lines().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let trace = line["trace_id"].as_str().unwrap_or_default().to_owned();
            owners.entry(trace).or_default().insert(number);
        }
    }
    owners
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_daemons_take_is_once_behind_two_others_and_each_trace_whole_at_one() {
    let Some(kafka) = Kafka::start().await else { return };
    topic::create(&kafka, "otlp_spans", None).await;
    let mut receiving = [
        Member::receiving(&kafka, "otlp_spans", "").await,
        Member::receiving(&kafka, "otlp_spans", "").await,
    ];
    let mut delivering = [
        Member::delivering(&kafka, "otlp_spans", "").await,
        Member::delivering(&kafka, "otlp_spans", "").await,
    ];
    // Another test covers partitions that move after messages arrive.
    delivering[0].assigned().await;
    delivering[1].assigned().await;
    let crowd = Crowd::begin_at(&[&receiving[0].place, &receiving[1].place], 20_000, 1);
    let sent = crowd.finish(receiving[0].daemon()).await;
    for member in &mut receiving {
        member.delivered().await;
    }
    let found = found(&sent, &mut delivering).await;
    println!("{found}");
    found.is_exactly_once();
    let owners = owners(&delivering);
    assert!(owners.values().all(|owners| owners.len() == 1), "a trace is at two daemons");
    let figures = |member: &Member| member.status()["receivers"]["kafka"].clone();
    for member in &delivering {
        let figures = figures(member);
        assert!(figures["accepted"].as_u64().unwrap() > 0 && figures["failed"] == 0, "{figures}");
    }
    for member in receiving.iter_mut().chain(&mut delivering) {
        member.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_in_the_files_once_through_kills_of_brokers_and_daemons() {
    let variable = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let spans = variable("SPANFERRY_KAFKA_SPANS").unwrap_or(30_000);
    let kills = variable("SPANFERRY_KAFKA_KILLS").unwrap_or(4);
    let Some(mut kafka) = Kafka::start().await else { return };
    topic::create(&kafka, "otlp_spans", None).await;
    let mut members = vec![
        Member::receiving(&kafka, "otlp_spans", "timeout = \"5s\"").await,
        Member::receiving(&kafka, "otlp_spans", "timeout = \"5s\"").await,
        Member::delivering(&kafka, "otlp_spans", &named(0)).await,
        Member::delivering(&kafka, "otlp_spans", &named(1)).await,
    ];
    // If a daemon is killed before its assignment, its partitions move to another one.
    members[2].assigned().await;
    members[3].assigned().await;
    let mut random = Random::new(7);
    let crowd = Crowd::begin_at(&[&members[0].place, &members[1].place], spans, 2);
    for kill in 1..=kills {
        let share = u64::from(spans) * u64::from(kill) / (u64::from(kills) + 1);
        crowd.reaches(u32::try_from(share).unwrap(), members[0].daemon()).await;
        tokio::time::sleep(random.duration_below(Duration::from_millis(200))).await;
        // Each daemon in turn, then the broker.
        if let Some(member) = members.get_mut(usize::try_from(kill).unwrap() % 5) {
            member.kill();
            member.again().await;
        } else {
            kafka.kill();
            kafka.again().await;
        }
    }
    let sent = crowd.finish(members[0].daemon()).await;
    let mut delivering = members.split_off(2);
    for member in &mut members {
        member.delivered().await;
    }
    let found = found(&sent, &mut delivering).await;
    let resent = |member: &Member| member.status()["receivers"]["kafka"]["resent"].clone();
    let resent: Vec<_> = delivering.iter().map(resent).collect();
    println!(
        "{kills} kills, {} resent; {found}; recognised behind the topic: {resent:?}",
        sent.resent
    );
    found.is_exactly_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_leave_the_group_and_come_again_one_by_one_lose_nothing() {
    let Some(kafka) = Kafka::start().await else { return };
    topic::create(&kafka, "otlp_spans", None).await;
    let mut receiving = Member::receiving(&kafka, "otlp_spans", "").await;
    let mut delivering = vec![Member::delivering(&kafka, "otlp_spans", "").await];
    delivering.push(Member::delivering(&kafka, "otlp_spans", "").await);
    delivering.push(Member::delivering(&kafka, "otlp_spans", "").await);
    let crowd = Crowd::begin(&receiving.place, 40_000, 3);
    for round in 1..=6 {
        crowd.reaches(round * 5_000, receiving.daemon()).await;
        let member = &mut delivering[usize::try_from(round).unwrap() % 3];
        member.terminate().await;
        // Others are still joining when the next one leaves.
        member.again().await;
    }
    let sent = crowd.finish(receiving.daemon()).await;
    receiving.delivered().await;
    let found = found(&sent, &mut delivering).await;
    println!("{found}");
    // Uncommitted messages are read again by the next owner, if the group rebalances meanwhile.
    found.lacks_nothing();
}
