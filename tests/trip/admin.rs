//! The admin port as an operator sees it, also while a sink is down.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point};
use prost::Message as _;

use super::World;
use super::traffic::Client;

const ITEM: &str = r#"{"data":[{"object":"trace","id":"trace_00000000000000000000000000000001","workflow_name":"w","group_id":null,"metadata":null}]}"#;

#[tokio::test]
async fn a_sink_that_is_down_degrades_health_and_nothing_else() {
    // A file below a file: the sink cannot work until its configuration is repaired.
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
        &format!("{address} is in use, apparently by the daemon"),
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[tokio::test]
async fn the_console_is_one_page_under_strict_rules_and_asks_for_its_parts_alone() {
    let world = World::new("[sinks.none]\ntype = \"blackhole\"\n").await;
    let place = world.place();
    // The same address serves health to probes and leads browsers to the console.
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
    // An internal error degrades health, so the metrics must show it too.
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

/// Returns the names of metrics in a text, without the suffixes of histograms and counters.
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
    // The build's metric has a different suffix.
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

/// The requests to a receiver of metrics, and how it answers.
#[derive(Default)]
struct Sent {
    bodies: Mutex<Vec<(HeaderMap, Bytes)>>,
    refuses: bool,
}

async fn receiver(refuses: bool) -> (String, Arc<Sent>) {
    let sent = Arc::new(Sent { refuses, ..Sent::default() });
    let take = async |State(sent): State<Arc<Sent>>, headers: HeaderMap, body: Bytes| {
        sent.bodies.lock().unwrap().push((headers, body));
        if sent.refuses { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    };
    let app = axum::Router::new().route("/v1/metrics", post(take)).with_state(Arc::clone(&sent));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let table = format!(
        "[telemetry.otlp]\nendpoint = \"http://{address}\"\ninterval = \"50ms\"\n\
         headers = {{ authorization = \"Bearer hunter2\" }}\n\n\
         [sinks.none]\ntype = \"blackhole\"\n"
    );
    (table, sent)
}

impl Sent {
    /// Waits for two more requests: the second one's page is newer than the call.
    async fn next(&self) -> (HeaderMap, Bytes) {
        let count = || self.bodies.lock().unwrap().len();
        let wanted = count() + 2;
        while count() < wanted {
            tokio::time::sleep(super::process::POLL_EVERY).await;
        }
        self.bodies.lock().unwrap().last().unwrap().clone()
    }
}

/// Each series with its labels in order, and its value.
type SeriesValues = BTreeMap<(String, BTreeSet<String>), f64>;

/// Reads a page; labels in these tests need no escaping.
fn on_the_page(page: &str) -> SeriesValues {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let read = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.trim_end_matches('"').to_owned()).collect();
        ((name.to_owned(), labels), value.parse().unwrap())
    });
    read.collect()
}

/// Reads the same from a request. All series must begin when the process did.
#[expect(clippy::cast_precision_loss, reason = "as on the page")]
fn in_the_request(metrics: &[Metric]) -> SeriesValues {
    let mut found = SeriesValues::new();
    let mut starts = BTreeSet::new();
    let labels = |attributes: &[KeyValue]| -> BTreeSet<String> {
        let text = |it: &KeyValue| match it.value.as_ref().unwrap().value.as_ref().unwrap() {
            any_value::Value::StringValue(text) => format!("{}=\"{text}", it.key),
            other => unreachable!("{other:?}"),
        };
        attributes.iter().map(text).collect()
    };
    for Metric { name, data, .. } in metrics {
        let (points, ending) = match data.as_ref().unwrap() {
            Data::Gauge(gauge) => (&gauge.data_points, ""),
            Data::Sum(sum) => {
                assert_eq!(sum.aggregation_temporality, 2);
                (&sum.data_points, if sum.is_monotonic { "_total" } else { "_info" })
            }
            Data::Histogram(histogram) => {
                assert_eq!(histogram.aggregation_temporality, 2);
                for point in &histogram.data_points {
                    starts.insert(point.start_time_unix_nano);
                    let own = labels(&point.attributes);
                    found.insert((format!("{name}_sum"), own.clone()), point.sum.unwrap());
                    found.insert((format!("{name}_count"), own.clone()), point.count as f64);
                    let bounds = point.explicit_bounds.iter().map(|bound| format!("{bound:?}"));
                    let mut below = 0;
                    for (le, count) in bounds.chain(["+Inf".to_owned()]).zip(&point.bucket_counts) {
                        below += count;
                        let mut own = own.clone();
                        own.insert(format!("le=\"{le}"));
                        found.insert((format!("{name}_bucket"), own), below as f64);
                    }
                }
                continue;
            }
            other => unreachable!("{other:?}"),
        };
        for point in points {
            if !ending.is_empty() {
                starts.insert(point.start_time_unix_nano);
            }
            let value = match point.value.unwrap() {
                number_data_point::Value::AsInt(value) => value as f64,
                number_data_point::Value::AsDouble(value) => value,
            };
            found.insert((format!("{name}{ending}"), labels(&point.attributes)), value);
        }
    }
    assert_eq!(starts.len(), 1, "{starts:?}");
    found
}

#[tokio::test]
async fn a_receiver_of_otlp_is_sent_what_the_metrics_page_says() {
    let (table, sent) = receiver(false).await;
    let world = World::new(&table).await;
    let url = format!("http://{}/v1/traces/ingest", world.place().http);
    let agent = r#"{"data":[{"object":"trace.span","id":"span_1","trace_id":"trace_00000000000000000000000000000001","parent_id":null,"started_at":"2026-11-21T05:15:00Z","ended_at":"2026-11-21T05:15:09Z","span_data":{"type":"agent","name":"Triage"}}]}"#;
    assert_eq!(Client::new().post(&url, "application/json", "", agent.into()).await, 204);
    while !world.place().ask("/metrics").unwrap().contains("agent=\"Triage\"") {
        tokio::time::sleep(super::process::POLL_EVERY).await;
    }
    let before = on_the_page(&world.place().ask("/metrics").unwrap());
    let (headers, body) = sent.next().await;
    let after = on_the_page(&world.place().ask("/metrics").unwrap());
    assert_eq!(headers["authorization"], "Bearer hunter2");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    let [resource] = &request.resource_metrics[..] else { panic!("{request:?}") };
    let found = in_the_request(&resource.scope_metrics[0].metrics);
    let still: SeriesValues = before
        .iter()
        .filter(|(series, value)| after.get(*series) == Some(*value))
        .map(|(series, value)| (series.clone(), *value))
        .collect();
    assert!(
        still.len() > 200 && before.len() - still.len() < 20,
        "{} {}",
        before.len(),
        still.len()
    );
    for (series, value) in &still {
        assert_eq!(found.get(series), Some(value), "{series:?}");
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let about = resource.resource.as_ref().unwrap();
    let keys: Vec<_> = about.attributes.iter().map(|it| it.key.as_str()).collect();
    assert_eq!(keys, ["service.name", "service.version", "service.instance.id"]);
}

#[tokio::test]
async fn a_receiver_that_takes_no_metrics_costs_one_line_of_the_log() {
    let (table, sent) = receiver(true).await;
    let world = World::new(&table).await;
    for _ in 0..3 {
        sent.next().await;
    }
    let url = format!("http://{}/v1/traces/ingest", world.place().http);
    assert_eq!(Client::new().post(&url, "application/json", "", ITEM.into()).await, 204);
    world.settled().await;
    assert!(world.place().ask("/health").unwrap().contains("\"ok\""));
    let said = world.place().said();
    assert_eq!(said.matches("does not accept metrics").count(), 1, "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn a_trace_leads_to_where_each_sink_shows_it() {
    let world = World::new(
        "[sinks.own]\ntype = \"blackhole\"\ntrace_url = \"https://x.example/t/{trace_id}/{span_id}\"\n\n\
         [sinks.none]\ntype = \"blackhole\"\n\n\
         [sinks.jaeger]\ntype = \"otlp\"\npreset = \"jaeger\"\nendpoint = \"http://127.0.0.1:9\"\n\n\
         [sinks.phoenix]\ntype = \"otlp\"\npreset = \"phoenix\"\nendpoint = \"http://127.0.0.1:9/base\"\n\n\
         [sinks.langfuse]\ntype = \"langfuse\"\nbase_url = \"http://127.0.0.1:9/\"\npublic_key = \"pk\"\nsecret_key = \"sk\"\n",
    )
    .await;
    let url = format!("http://{}/v1/traces/ingest", world.place().http);
    let span = r#"{"data":[{"object":"trace.span","id":"span_1","trace_id":"trace_00000000000000000000000000000001","parent_id":null,"started_at":null,"ended_at":null,"span_data":{"type":"agent","name":"Triage"}}]}"#;
    assert_eq!(Client::new().post(&url, "application/json", "", span.into()).await, 204);
    let trace = format!("{:032x}", 1);
    let show = |more: &str| {
        let answer = world.place().ask(&format!("/api/v1/traces/show?id={trace}{more}")).unwrap();
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()["done"].clone()
    };
    let links = |view: &serde_json::Value| {
        let all = view["links"].as_array().unwrap().iter();
        let both = |link: &serde_json::Value| {
            [&link["sink"], &link["url"]].map(|it| it.as_str().unwrap().to_owned())
        };
        all.map(both).collect::<Vec<_>>()
    };
    let expected = |span: &str| {
        [
            ("own", format!("https://x.example/t/{trace}/{span}")),
            ("jaeger", format!("http://127.0.0.1:16686/trace/{trace}?uiFind={span}")),
            ("phoenix", format!("http://127.0.0.1:9/base/redirects/traces/{trace}")),
            ("langfuse", format!("http://127.0.0.1:9/trace/{trace}")),
        ]
        .map(|(sink, url)| [sink.to_owned(), url])
    };
    let whole = show("");
    assert_eq!(links(&whole), expected(""));
    let id = whole["spans"][0]["span_id"].as_str().unwrap();
    assert_eq!(links(&show(&format!("&span={id}"))), expected(id));
    let markdown = show("&as=markdown")["document"].to_string();
    assert!(markdown.contains(&format!("* link: own: https://x.example/t/{trace}/")), "{markdown}");
}
