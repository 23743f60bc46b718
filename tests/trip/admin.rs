//! What an operator sees on the admin port, also when a sink is down.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use super::World;
use super::traffic::Client;

const ITEM: &str = r#"{"data":[{"object":"trace","id":"trace_00000000000000000000000000000001","workflow_name":"w","group_id":null,"metadata":null}]}"#;

#[tokio::test]
async fn a_sink_that_is_down_degrades_health_and_nothing_else() {
    // A file below a file: the sink cannot work until somebody mends its configuration.
    let world = World::new(
        "[sinks.down]\ntype = \"file\"\npath = \"spanferry.toml/below/a/file.jsonl\"\n\n[sinks.up]\ntype = \"blackhole\"\n",
    )
    .await;
    let url = format!("http://{}/v1/traces/ingest", world.place().http);
    assert_eq!(Client::new().post(&url, "application/json", "", ITEM.into()).await, 204);
    while world.status()["sinks"][0]["state"] == "running" {
        tokio::time::sleep(super::process::POLL_EVERY).await;
    }
    world.settled().await;
    let status = world.status();
    assert_eq!(status["sinks"][0]["pending"], 1, "{status}");
    assert_eq!(status["sinks"][1]["delivered"], 1, "{status}");
    for path in ["/readyz", "/ready", "/livez", "/health", "/healthz"] {
        assert_eq!(world.place().get(path).unwrap().0, 200, "{path}");
    }
    assert!(world.place().ask("/health").unwrap().contains("\"degraded\""));

    let mut doctor = Command::new(env!("CARGO_BIN_EXE_spanferry"));
    doctor.current_dir(world.dir.path()).args(["doctor", "-c"]).arg(world.place().config_file());
    let output = doctor.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let address = world.place().http;
    for expected in [
        "FAIL  running sink down: holding, 0 delivered, 1 pending ",
        "ok    running sink up: running, 1 delivered, 0 pending",
        &format!("{address} is in use, by the daemon as it seems"),
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[tokio::test]
async fn the_console_is_one_page_under_strict_rules_and_asks_for_its_parts_alone() {
    let world = World::new("[sinks.none]\ntype = \"blackhole\"\n").await;
    let place = world.place();
    // A probe learns of health at the same address that leads a person here.
    assert_eq!(place.get("/").unwrap().0, 200);
    let person = hyper::Request::get(format!("http://{}/", place.admin));
    let person = person.header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let person = person.body(http_body_util::Full::default()).unwrap();
    assert_eq!(Client::new().send(person).await, 307);
    let page = place.ask("/ui/").unwrap();
    assert_eq!(place.ask("/ui/traces/4bf92f3577b34da6a3ce929d0e0e4736?span=1").unwrap(), page);
    let asked = |attribute: &str| page.split(attribute).skip(1).collect::<Vec<_>>();
    let asked = [asked("href=\""), asked("src=\"")].concat();
    assert_eq!(asked.len(), 3, "{page}");
    for part in asked {
        let part = part.split('"').next().unwrap();
        assert!(part.starts_with("/ui/") && place.ask(part).unwrap() != page, "{part}");
    }
    let mut stream = TcpStream::connect(place.admin).unwrap();
    write!(stream, "GET /ui/ HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", place.admin)
        .unwrap();
    let mut head = String::new();
    stream.read_to_string(&mut head).unwrap();
    for rule in [
        "content-security-policy: default-src 'self'; frame-ancestors 'none'; ",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(head.contains(rule), "{rule}: {head}");
    }
    assert!(place.said().contains(&format!("the console is at http://{}/ui/", place.admin)));
}

#[tokio::test]
async fn the_figures_of_each_sink_are_on_the_metrics_page_and_add_up() {
    let world = World::new("[sinks.none]\ntype = \"blackhole\"\n").await;
    let url = format!("http://{}/v1/traces/ingest", world.place().http);
    let client = Client::new();
    let bad = ITEM.replace("\"data\":[", "\"data\":[{\"object\":\"odd\"},");
    assert_eq!(client.post(&url, "application/json", "", bad.into()).await, 204);
    assert_eq!(client.post(&url, "application/json", "", ITEM.into()).await, 204);
    world.settled().await;
    let place = world.place();
    let figure = |name: &str| place.figure(name).unwrap_or_else(|| panic!("{name} is not there"));
    assert!(
        (figure("spanferry_receiver_accepted_spans_total") - 1.0).abs() < 0.1,
        "the second is a resend"
    );
    assert!((figure("spanferry_receiver_resent_spans_total") - 1.0).abs() < 0.1);
    assert!((figure("spanferry_quarantined_items") - 1.0).abs() < 0.1);
    let parts =
        ["sent_spans_total", "dead_letter_spans", "filtered_spans_total", "dropped_spans_total"];
    let settled: f64 = parts.iter().map(|part| figure(&format!("spanferry_sink_{part}"))).sum();
    let pending = figure("spanferry_sink_pending_spans");
    assert!((figure("spanferry_sink_accepted_spans_total") - settled - pending).abs() < 0.1);
    // An error of ours degrades health, so who watches the figures must see it too.
    for error_of_ours in ["panics_total", "miscounted_spans_total"] {
        assert!(figure(&format!("spanferry_sink_{error_of_ours}")).abs() < 0.1);
    }
    let page = place.ask("/metrics").unwrap();
    for name in [
        "journal_bytes",
        "sink_pending_oldest_age_seconds",
        "receiver_request_duration_seconds",
        "build_info",
        "uptime_seconds",
    ] {
        assert!(page.contains(&format!("spanferry_{name}")), "{name} is not on the page");
    }
    assert!(page.ends_with("# EOF\n"));
}

/// The names of metrics in a text, without what a histogram or a counter appends.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_of_a_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_of_a_name(letter));
    let names = words.filter(|word| {
        word.starts_with("spanferry_")
            || word.starts_with("gen_ai_client_")
            || word.starts_with("gen_ai_cost_")
    });
    let ends = ["_total", "_bucket", "_count", "_sum"];
    names.map(|name| ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)).collect()
}

#[tokio::test]
async fn every_metric_is_documented_and_dashboards_and_alerts_ask_for_no_other() {
    let world = World::new("[sinks.none]\ntype = \"blackhole\"\n").await;
    let url = format!("http://{}/v1/traces/ingest", world.place().http);
    assert_eq!(Client::new().post(&url, "application/json", "", ITEM.into()).await, 204);
    let page = world.place().ask("/metrics").unwrap();
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let there: BTreeSet<_> = types.filter_map(|line| line.split(' ').next()).collect();
    let documented = metrics_in(include_str!("../../docs/metrics.md"));
    let missing: Vec<_> = there.difference(&documented).collect();
    // That of a build has an ending of its own.
    assert_eq!(missing, [&"spanferry_build"]);
    for text in [
        include_str!("../../config/dashboards/grafana-agents.json"),
        include_str!("../../config/dashboards/grafana-pipeline.json"),
        include_str!("../../config/prometheus-alerts.yml"),
    ] {
        let asked = metrics_in(text);
        assert!(asked.len() > 8);
        let unknown: Vec<_> = asked.difference(&there).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}

#[tokio::test]
async fn exemplars_are_on_the_page_where_they_are_asked_for() {
    let world = World::new("[sinks.none]\ntype = \"blackhole\"\n").await;
    let url = format!("http://{}/v1/traces/ingest", world.place().http);
    let agent = r#"{"data":[{"object":"trace.span","id":"span_1","trace_id":"trace_00000000000000000000000000000001","parent_id":null,"started_at":"2026-11-21T05:15:00Z","ended_at":"2026-11-21T05:15:09Z","span_data":{"type":"agent","name":"Triage"}}]}"#;
    assert_eq!(Client::new().post(&url, "application/json", "", agent.into()).await, 204);
    let run = "spanferry_agent_run_duration_seconds_bucket{le=\"10.24\",agent=\"Triage\",status=\"ok\"} 1";
    while !world.place().ask("/metrics").unwrap().contains(run) {
        tokio::time::sleep(super::process::POLL_EVERY).await;
    }
    let place = world.place();
    assert!(!place.ask("/metrics").unwrap().contains("trace_id"));
    let page = place.ask_for("/metrics", "application/openmetrics-text;version=1.0.0,*/*;q=0.1");
    let exemplar = format!("{run} # {{trace_id=\"{:032x}\"}} 9.0\n", 1);
    assert!(page.as_deref().is_some_and(|page| page.contains(&exemplar)), "{page:?}");
    assert!(page.is_some_and(|page| page.ends_with("# EOF\n")));
}

#[tokio::test]
async fn a_path_that_is_not_there_is_told_what_is() {
    let world = World::new("[sinks.none]\ntype = \"blackhole\"\n").await;
    let (status, body) = world.place().get("/nothing").unwrap();
    assert_eq!(status, 404);
    assert!(body.contains("/metrics"), "{body}");
}
