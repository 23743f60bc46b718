//! Data with known answers: a few hundred documents, and what each panel must show for them.

use serde_json::{Value, json};

/// The time range of the queries. One span and one trace are outside.
pub(super) const FROM: &str = "2026-11-20T00:00:00Z";
pub(super) const TO: &str = "2026-11-21T00:00:00Z";

const INSIDE: &str = "2026-11-20T10:00:00.123456789Z";
const BEFORE: &str = "2026-11-19T23:59:59.999999999Z";

/// The prefix of the dashboards' indices.
const PREFIX: &str = "agent-traces";

/// Returns every document with its index and id.
pub(super) fn documents() -> Vec<(String, String, Value)> {
    let index = |kind: &str| format!("{PREFIX}-{kind}");
    let numbered = |kind: &'static str, documents: Vec<Value>| {
        let with_id = move |(number, document)| (index(kind), format!("{kind}_{number}"), document);
        documents.into_iter().enumerate().map(with_id).collect::<Vec<_>>()
    };
    let mut all = numbered("spans", spans());
    all.extend(numbered("traces", traces()));
    all
}

fn spans() -> Vec<Value> {
    let mut spans = Vec::new();
    // A tool whose calls took 1, 2, 3 ... 100 ms, every fifth of which failed.
    for duration in 1..=100 {
        let failed = duration % 5 == 0;
        spans.push(json!({
            "timestamp": INSIDE, "span_type": "tool_call", "tool": { "name": "search" },
            "agent": { "name": "Researcher" }, "duration_ms": duration, "error_flag": i32::from(failed),
        }));
    }
    // Tools that were called once, at the edges of the ranges; one in five failed here too.
    for (at, duration) in [100.0, 250.0, 9999.999, 10000.0, 60000.0].into_iter().enumerate() {
        spans.push(json!({
            "timestamp": INSIDE, "span_type": "tool_call", "tool": { "name": format!("edge {at}") },
            "duration_ms": duration, "error_flag": i32::from(at == 4),
        }));
    }
    for (agent, calls, input, output) in [("Researcher", 3, 1000, 50), ("Writer", 2, 200, 900)] {
        for _ in 0..calls {
            spans.push(json!({
                "timestamp": INSIDE, "span_type": "generation", "agent": { "name": agent },
                "duration_ms": 700, "error_flag": 0,
                "usage": { "input_tokens": input, "output_tokens": output },
            }));
        }
    }
    for (from, to, times) in
        [("Triage", "Billing", 3), ("Triage", "Refunds", 1), ("Billing", "Refunds", 2)]
    {
        for time in 0..times {
            spans.push(json!({
                "timestamp": INSIDE, "span_type": "handoff", "handoff": { "from": from, "to": to },
                "duration_ms": 0.5, "error_flag": i32::from(time == 0),
            }));
        }
    }
    for number in 0..4 {
        spans.push(json!({
            "timestamp": INSIDE, "span_type": "agent", "agent": { "name": "Idle" },
            "duration_ms": 2000, "error_flag": i32::from(number == 0),
        }));
    }
    // Roots that no client sent, and that fail with the spans below them.
    for kind in ["chain", "agent", "tool_call"] {
        spans.push(json!({
            "timestamp": INSIDE, "span_type": kind, "source": "spanferry", "error_flag": 1,
        }));
    }
    spans.push(json!({
        "timestamp": BEFORE, "span_type": "tool_call", "tool": { "name": "search" }, "duration_ms": 3_600_000,
        "agent": { "name": "Nobody" }, "error_flag": 1, "usage": { "input_tokens": 1, "output_tokens": 1 },
        "handoff": { "from": "Nobody", "to": "Nobody" },
    }));
    spans
}

fn traces() -> Vec<Value> {
    // The number of agents that took a turn, and the depth of the trace. The deepest is not a runaway.
    let runs = [
        (0, 1),
        (1, 2),
        (1, 3),
        (2, 3),
        (3, 4),
        (4, 5),
        (5, 6),
        (6, 7),
        (10, 8),
        (11, 9),
        (15, 99),
        (16, 17),
        (40, 33),
    ];
    let mut traces: Vec<Value> = (0..)
        .zip(runs)
        .map(|(number, (agents, depth))| {
            json!({
                "timestamp": INSIDE, "duration_ms": number * 100, "agent_span_count": agents,
                "max_depth": depth, "error_flag": 0,
            })
        })
        .collect();
    traces.push(json!({
        "timestamp": BEFORE, "duration_ms": 1_000_000, "agent_span_count": 1000, "max_depth": 1000, "error_flag": 1,
    }));
    traces
}

/// Returns what each panel must show, by its title: the groups' names from the outermost to the innermost, and the values.
pub(super) fn answers(title: &str) -> Vec<(Vec<&'static str>, Vec<f64>)> {
    let counts = |labels: &[&'static str], counts: &[f64]| {
        labels.iter().zip(counts).map(|(label, count)| (vec![*label], vec![*count])).collect()
    };
    match title {
        "Average run duration" => vec![(vec![], vec![600.0])],
        "Runaway runs" => vec![(vec![], vec![2.0, 33.0])],
        "Trace depth" => counts(
            &["0", "1", "2", "3", "4-5", "6-10", "11-15", "over 15"],
            &[1.0, 2.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0],
        ),
        "Error rate by span type" => {
            counts(&["handoff", "agent", "tool_call", "generation"], &[0.5, 0.25, 0.2, 0.0])
        }
        "Tool latency" => counts(
            &[
                "0-10",
                "10-50",
                "50-100",
                "100-250",
                "250-500",
                "500-1000",
                "1000-2500",
                "2500-5000",
                "5000-10000",
                "over 10000",
            ],
            &[9.0, 40.0, 50.0, 2.0, 1.0, 0.0, 0.0, 0.0, 1.0, 2.0],
        ),
        "Tool latency percentiles" => vec![
            (vec!["search"], vec![100.0, 50.5, 95.5, 99.5]),
            (vec!["edge 0"], vec![1.0, 100.0, 100.0, 100.0]),
            (vec!["edge 1"], vec![1.0, 250.0, 250.0, 250.0]),
            (vec!["edge 2"], vec![1.0, 9999.999, 9999.999, 9999.999]),
            (vec!["edge 3"], vec![1.0, 10000.0, 10000.0, 10000.0]),
            (vec!["edge 4"], vec![1.0, 60000.0, 60000.0, 60000.0]),
        ],
        "Agent latency percentiles" => vec![(vec!["Idle"], vec![4.0, 2000.0, 2000.0, 2000.0])],
        "Handoffs" => vec![
            (vec!["Triage", "Billing"], vec![3.0]),
            (vec!["Triage", "Refunds"], vec![1.0]),
            (vec!["Billing", "Refunds"], vec![2.0]),
        ],
        "Tokens by agent" => vec![
            (vec!["Researcher"], vec![3000.0, 150.0]),
            (vec!["Writer"], vec![400.0, 1800.0]),
            (vec!["Idle"], vec![0.0, 0.0]),
        ],
        other => panic!("nothing is known of a panel {other:?}"),
    }
}
