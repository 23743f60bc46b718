//! A real Prometheus scrapes `/metrics`: the queries of dashboards have answers, and alerts fire when they should.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::fixtures::{self, Fixture};
use super::process::client::{Answer, Client, Protocol};
use super::process::{Config, Daemon, Place};
use super::servers::prometheus::{Prometheus, programs, value};

/// Scrapes are a second apart; a trace counts as complete after half a minute.
const PATIENCE: Duration = Duration::from_mins(2);

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// Returns the queries of a dashboard: the panel's title and the query.
fn queries(file: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(config("dashboards").join(file)).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"], panel["datasource"]);
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", "5m").replace("$__range", "5m");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

/// Returns a request with other trace ids, so that it is not a resend.
fn in_other_traces(fixture: &Fixture) -> Bytes {
    let mut body = fixture.body.to_vec();
    let ids: BTreeSet<_> = fixture.batch.spans().map(|span| span.trace_id).collect();
    for id in ids {
        let (id, hex) = (id.as_bytes(), id.to_string());
        for known in [&id[..], hex.as_bytes()] {
            // Both the 16 bytes and the 32 digits become another id.
            let other = [&known[1..], &known[..1]].concat();
            replace(&mut body, known, &other);
        }
    }
    body.into()
}

fn replace(body: &mut [u8], known: &[u8], other: &[u8]) {
    let places: Vec<usize> = memchr::memmem::find_iter(body, known).collect();
    for place in places {
        body[place..place + known.len()].copy_from_slice(other);
    }
}

async fn send(place: &Place, body: impl Fn(&Fixture) -> Bytes) {
    let all = [(fixtures::agents_sdk(), true), (fixtures::captured(), false)];
    for (fixtures, is_agents_sdk) in all {
        for fixture in fixtures {
            let protocol = match (is_agents_sdk, fixture.is_json) {
                (true, _) => Protocol::Openai,
                (false, true) => Protocol::OtlpJson,
                (false, false) => Protocol::OtlpHttp,
            };
            let mut client =
                Client::connect(protocol, protocol.address(place), None).await.unwrap();
            let answer = client.send(body(&fixture)).await.unwrap();
            assert!(matches!(answer, Answer::Kept | Answer::Partial), "{}: {answer}", fixture.name);
        }
    }
}

#[tokio::test]
async fn every_query_of_the_dashboards_has_an_answer_after_captured_traffic() {
    let Some(programs) = programs() else { return };
    let dir = tempfile::tempdir().unwrap();
    let place = Place::new(dir.path());
    let tables = "[sinks.none]\ntype = 'blackhole'\n".to_owned();
    place.configure(&Config { tables, ..Config::default() }).unwrap();
    let command = place.command(Path::new(env!("CARGO_BIN_EXE_spanferry"))).unwrap();
    let _daemon = Daemon::start(&place, command).await.unwrap();
    let prometheus = Prometheus::start(&programs, place.admin).await;
    prometheus.reaches("up", 1.0, PATIENCE).await;
    send(&place, |fixture| fixture.body.clone()).await;
    prometheus.reaches("sum(spanferry_sink_sent_spans_total)", 500.0, PATIENCE).await;
    let first = prometheus.query("sum(spanferry_spans_total)").await;
    // A series with labels shows an increase only the second time.
    send(&place, in_other_traces).await;
    let all = 1.9 * first.first().map_or(0.0, value);
    prometheus.reaches("sum(spanferry_spans_total)", all, PATIENCE).await;
    prometheus.reaches("spanferry_trace_agent_depth_count", 1.0, PATIENCE).await;
    for file in ["grafana-agents.json", "grafana-pipeline.json"] {
        for (panel, query) in queries(file) {
            let rows = prometheus.query(&query).await;
            let has_value = rows.iter().any(|row| value(row).is_finite());
            assert!(has_value, "{file}, {panel}: {query}: {rows:?}");
        }
    }
    let exemplars = prometheus.exemplars("spanferry_agent_run_duration_seconds_bucket").await;
    let seen: BTreeSet<_> = exemplars
        .iter()
        .flat_map(|series| series["exemplars"].as_array().unwrap())
        .map(|exemplar| exemplar["labels"]["trace_id"].as_str().unwrap().to_owned())
        .collect();
    assert!(seen.iter().any(|id| id.len() == 32), "{exemplars:?}");
}

#[test]
fn every_alert_fires_when_it_should_and_not_else() {
    let Some(programs) = programs() else { return };
    let dir = tempfile::tempdir().unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/alerts.yml");
    for file in [config("prometheus-alerts.yml"), tests] {
        fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
    }
    for arguments in [["check", "prometheus-alerts.yml"], ["test", "alerts.yml"]] {
        let [what, file] = arguments;
        let mut command = Command::new(programs.join("promtool"));
        let output = command.args([what, "rules", file]).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
