//! What the tests of this folder share: items of the Agents SDK, and a way in.

use bytes::Bytes;

use super::{Accepted, Arrival, Feed};
use crate::normalize::{Encoding, Envelope, Limits, decode};
use crate::span::{Receiver, Source};

/// A span with this id.
pub(crate) fn item(id: &str) -> String {
    format!(
        r#"{{"object":"trace.span","id":"{id}","trace_id":"trace_1","span_data":{{"type":"custom"}}}}"#
    )
}

/// An OTLP request in JSON with these spans.
pub(super) fn otlp_arrival(spans: &[String]) -> Arrival {
    let body = format!(
        r#"{{"resourceSpans":[{{"resource":{{}},"scopeSpans":[{{"scope":{{}},"spans":[{}]}}]}}]}}"#,
        spans.join(",")
    );
    understood(Receiver::OtlpHttp, Bytes::from(body))
}

/// A request with these items.
pub(crate) fn arrival(items: &[String]) -> Arrival {
    understood(Receiver::OpenAi, Bytes::from(format!(r#"{{"data":[{}]}}"#, items.join(","))))
}

fn understood(receiver: Receiver, body: Bytes) -> Arrival {
    let envelope =
        Envelope::new(Source { receiver, ..Source::unknown() }, Encoding::Json, body.len());
    let decoded = decode(&envelope, &body, &Limits::default()).unwrap();
    Arrival { envelope, sent: body, decoded }
}

/// Takes a request with these items.
pub(super) async fn accept(feed: &Feed, items: &[String]) -> Accepted {
    feed.intake().accept(arrival(items)).await.unwrap()
}

/// Set where a test runs in a process of its own.
const ALONE: &str = "SPANFERRY_TEST_ALONE";

/// Memory of this process, by the system's own count.
pub(crate) fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Runs each case of this test in a process of its own, so that the memory of others is not counted.
#[expect(clippy::disallowed_methods, reason = "tells the process that runs a case which one")]
pub(crate) fn alone(cases: &[&str], run: impl Fn(&str)) {
    if let Some(case) = std::env::var_os(ALONE) {
        return run(case.to_str().unwrap());
    }
    let name = std::thread::current().name().unwrap().to_owned();
    for case in cases {
        let alone = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(ALONE, case)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&alone.stderr).into_owned();
        assert!(alone.status.success(), "{case}: {told}");
        eprintln!("{told}");
    }
}
