//! Memory stays bounded while every sink is down and clients send more than fits into the journal.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::bodies::{Size, Template};
use super::process::client::{Answer, Client, Protocol};
use super::process::{Config, Place, free_port};
use super::procfs::Memory;
use super::{DELIVERY_MAX, POLL_EVERY, World, directory};

/// Memory that the design allows in addition to the configured budgets: 128 MiB.
const OWN_BYTES_MAX: u64 = 128 << 20;
/// `tail_bytes_max` and `in_flight_bytes_max` below, the index of traces and the table for agent metrics.
const BUDGET_BYTES: u64 = (16 << 20) + (8 << 20) + (64 << 20) + (16 << 20);
/// More than all of these, to detect a daemon that keeps the journal's backlog in memory.
const JOURNAL_BYTES_MAX: u32 = 288 << 20;
/// Maximum growth once requests are refused.
const GROWTH_BYTES_MAX: u64 = 16 << 20;
const CLIENTS: u64 = 8;
/// Number of refusals after which a client stops.
const REFUSALS: u32 = 25;
/// A client that waits longer for its refusals is stuck.
const SEND_MAX: Duration = Duration::from_mins(2);

#[tokio::test]
async fn memory_stays_bounded_while_every_sink_is_down() {
    let dead = || format!("http://{}", free_port());
    let mut tables = "[feed]\ntail_bytes_max = \"8MiB\"\n\n".to_owned();
    for (name, table) in [
        ("grpc", format!("type = \"otlp\"\nprotocol = \"grpc\"\nendpoint = {:?}", dead())),
        ("http", format!("type = \"otlp\"\nendpoint = {:?}", dead())),
        ("json", format!("type = \"otlp\"\nprotocol = \"http/json\"\nendpoint = {:?}", dead())),
        ("search", format!("type = \"elasticsearch\"\nendpoints = [{:?}]", dead())),
        (
            "openai",
            format!(
                "type = \"openai\"\napi_key = \"k\"\nendpoint = \"{}/v1/traces/ingest\"",
                dead()
            ),
        ),
        (
            "langfuse",
            format!(
                "type = \"langfuse\"\npublic_key = \"k\"\nsecret_key = \"s\"\nbase_url = {:?}",
                dead()
            ),
        ),
        // A file below a file cannot be written.
        ("file", "type = \"file\"\npath = \"spanferry.toml/below/a/file.jsonl\"".to_owned()),
    ] {
        write!(tables, "[sinks.{name}]\n{table}\n\n").unwrap();
    }
    let body = "body_bytes_max = \"4MiB\"\nbody_bytes_max_inflated = \"4MiB\"";
    let receivers = format!("in_flight_bytes_max = \"16MiB\"\n{body}");
    let journal = format!("bytes_max = {JOURNAL_BYTES_MAX}\nack_wait = \"100ms\"");
    let world = World::start(directory(), &Config { receivers, journal, tables }).await;
    let mut sent = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let protocol = if number % 2 == 0 { Protocol::Openai } else { Protocol::OtlpHttp };
        sent.spawn(send(protocol, number, world.place().clone(), world.daemon.pid()));
    }
    let answers = sent.join_all().await;
    let spans: u64 = answers.iter().map(|(spans, _)| spans).sum();
    let full = answers.iter().map(|(_, memory)| memory.now).max().unwrap();
    let begun = Instant::now();
    let memory = loop {
        let memory = Memory::of(world.daemon.pid()).unwrap();
        // The allocator returns freed memory a second later.
        if memory.now <= full + GROWTH_BYTES_MAX || DELIVERY_MAX < begun.elapsed() {
            break memory;
        }
        tokio::time::sleep(POLL_EVERY).await;
    };
    let journal = world.place().figure("spanferry_journal_bytes").unwrap();
    println!(
        "{spans} agent spans kept, then {} refusals; journal {:.1} MiB; resident {} MiB when it was full, {} MiB at its peak",
        CLIENTS * u64::from(REFUSALS),
        journal / f64::from(1 << 20),
        full >> 20,
        memory.peak >> 20
    );
    assert!(journal <= f64::from(JOURNAL_BYTES_MAX), "the journal takes {journal} bytes");
    assert!(memory.peak <= OWN_BYTES_MAX + BUDGET_BYTES, "{memory:?}");
    assert!(
        memory.now <= full + GROWTH_BYTES_MAX,
        "{full} bytes when it was full, then {memory:?}"
    );
}

/// Sends until enough requests were refused; returns how many spans were kept, and the daemon's memory at the first refusal.
async fn send(protocol: Protocol, seed: u64, place: Place, pid: u32) -> (u64, Memory) {
    let begun = Instant::now();
    let mut template = Template::new(protocol, Size::Agent, seed);
    let mut client = Client::connect(protocol, protocol.address(&place), None).await.unwrap();
    let (mut spans, mut refusals, mut first) = (0, 0, None);
    while refusals < REFUSALS {
        assert!(begun.elapsed() < SEND_MAX, "{refusals} refusals after {spans} spans");
        match client.send(template.next()).await.unwrap() {
            Answer::Kept => spans += Size::Agent.spans_per_request() as u64,
            Answer::Status(503) => {
                refusals += 1;
                first = first.or_else(|| Memory::of(pid));
            }
            other => panic!("{other}"),
        }
    }
    (spans, first.unwrap())
}
