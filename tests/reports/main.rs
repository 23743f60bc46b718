//! Users' reports, and entire runs of real programs: each is sent to a daemon, and the contents of its sinks are compared with the right
//! values.
//!
//! A case is a folder of `tests/golden/reports` or `tests/golden/programs`: `body.json` is sent with the path and headers in
//! `headers.json`; `pre-body.json`, if there is one, is sent first, and has reached every sink before `body.json` is sent. `@IMAGE@` in
//! them stands for 6 MB of base64. `expected.json` has the right values:
//!
//! | member | contents |
//! |---|---|
//! | `source`, `symptom`, `why` | where the case comes from, what was wrong, why the values below are right |
//! | `answer` | `status`; texts that the answer to `body.json` `contains` and `lacks` |
//! | `traces` | the ids of the case's traces; nothing else may reach a sink |
//! | `spans` | how many of their spans each sink has, each once |
//! | `lines` | of the file sink: span name -> column -> value |
//! | `line_sums` | column -> its sum over all lines |
//! | `langfuse` | of Langfuse: name -> what it shows (`type model input output session user tags level status_message usage cost input_total output_total time_to_first_token_ms`, see [`seen`]), or an attribute that it was sent |
//! | `langfuse_sums` | `input_total`, `output_total`, `cost` over all observations |
//! | `otlp` | of an OTLP backend: span name -> attribute -> value |
//! | `otlp_sums` | `input_tokens`, `output_tokens`: the totals of a backend that adds up `gen_ai.usage.*`, or `llm.token_count.*` if a span has none |
//! | `documents`, `summary`, `agents` | of a search server: see `tests/search/sink/reports.rs` |
//!
//! A name stands for all spans with that name, `name#2` for the second of them by start. `null` means absent. Numbers compare as numbers,
//! costs to 1e-9. `usage` must match entirely; of other objects only the named members are compared; `{}` is an empty object.
//!
//! An OTLP backend gets each attribute of every span as it was sent, with the prefix `spanferry.aggregate.` if it repeats usage.
//!
//! Langfuse replaces a span that is sent again, so its last version counts; its start must not change.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may panic, and read files"
)]

#[path = "../langfuse/fake.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod fake;
#[path = "../langfuse/mapping.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod mapping;
#[path = "../langfuse/prices.rs"]
mod prices;
#[path = "../process/mod.rs"]
mod process;
#[path = "../otlp/receiver.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod receiver;

mod case;
mod check;
mod compare;
mod seen;
mod world;

use std::collections::BTreeSet;

use case::Case;
use world::World;

#[tokio::test]
async fn every_report_comes_out_right_at_every_sink() {
    come_out_right(&case::read("reports")).await;
}

#[tokio::test]
async fn every_program_comes_out_right_at_every_sink() {
    come_out_right(&case::read("programs")).await;
}

/// All cases go through one daemon: no two share a trace.
async fn come_out_right(cases: &[Case]) {
    let traces: Vec<_> = cases.iter().flat_map(Case::traces).collect();
    let known: BTreeSet<_> = traces.iter().cloned().collect();
    assert_eq!(known.len(), traces.len(), "two cases share a trace");
    let world = World::start().await;
    let mut wrong = Vec::new();
    for case in cases {
        if let Some(before) = &case.before {
            assert_eq!(world.post(before).await.status, 200, "{}", case.name);
            world.until(|seen| seen.has(case, before.spans())).await;
        }
        let answer = world.post(&case.request).await;
        wrong.extend(check::answer(case, &answer));
    }
    world.settled().await;
    // A span's facts can change until its trace is quiet.
    world.until(|seen| cases.iter().all(|case| check::case(case, seen).is_empty())).await;
    let seen = world.stop().await;
    wrong.extend(cases.iter().flat_map(|case| check::case(case, &seen)));
    wrong.extend(seen.strangers(&known));
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
