//! Summaries of shared traces, made of what the far side has.
//!
//! For each trace: first its summary is read, with its version; then we wait until everything that was sent before that can be
//! found; then the far side sums up its spans; then the summary is written under the condition that it is still at the version
//! that was read. So whatever another writer counted is counted here too, or it writes after us, and we or it begin again.
//! Spans have their ids for names, so the sum is exact however often each was sent.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::FarSide;
use super::encode::{Bulk, Line, What};
use super::figures;
use super::kin::{self, Findings, Kin};
use super::names::{Seq, bounded};
use super::options::Settings;
use super::outcome::Outcome;
use super::response::{Answer, Class, Whole, error_of, explain, judge};
use super::traces::{Condition, Due, Found, KeptFacts, NAMES_MAX, Summary, Tokens};
use crate::sinks::http::Response;
use crate::sinks::http::classify::{self, StatusClass as Verdict};
use crate::span::TraceId;
use crate::support::backoff::Backoff;

/// Traces that one request asks about.
const TRACES_MAX: usize = 200;
/// The shortest time between two rounds, so that many traces are asked about together.
const ROUND_MIN: Duration = Duration::from_secs(1);
/// The first wait after a round that failed.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest.
const RETRY_LONGEST: Duration = Duration::from_mins(1);
/// Characters of a trace's id that can be searched for; see the mapping.
const SEARCHED_CHARS_MAX: usize = 256;

/// Why a round did not succeed.
enum Problem {
    /// It may work later.
    Later(String),
    /// We may not look.
    Forbidden(String),
}

/// What became of what a round wrote.
#[derive(Default)]
struct Written {
    /// Whether the far side took anything.
    has_taken: bool,
    /// Why something has to be sent again.
    refused: Option<String>,
    /// Traces with documents of spans that have to be changed still.
    behind: HashSet<TraceId>,
}

impl Written {
    fn note(&mut self, line: &Line, answer: &Answer<'_>) {
        let class = judge(answer, line.action);
        self.has_taken |= class == Class::Stored;
        if class.is_final() {
            return;
        }
        self.refused = Some(explain(answer, &class));
        if let What::Late { trace } = line.what {
            self.behind.insert(trace);
        }
    }
}

/// Starts the task that keeps the summaries of shared traces.
pub(super) fn start(far_side: &Arc<FarSide>) -> tokio::task::AbortHandle {
    tokio::spawn(run(Arc::clone(far_side))).abort_handle()
}

async fn run(far_side: Arc<FarSide>) {
    let round_min = ROUND_MIN.min(far_side.settings.refresh_wait);
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
    loop {
        let next = far_side.next_round();
        let wait = next.map(|at| at.saturating_duration_since(Instant::now()).max(round_min));
        match wait {
            None => far_side.shared.notified().await,
            // What became shared meanwhile may be due before.
            Some(wait) => drop(timeout(wait, far_side.shared.notified()).await),
        }
        if next.is_none_or(|at| Instant::now() < at) {
            sleep(round_min).await;
        }
        match far_side.round().await {
            Ok(()) => backoff.reset(),
            Err(Problem::Later(reason)) => {
                warn!(
                    sink = far_side.name,
                    reason, "trace documents could not be made; tried again later"
                );
                sleep(backoff.next_wait().max(round_min)).await;
            }
            Err(Problem::Forbidden(reason)) => far_side.stop_looking(&reason).await,
        }
    }
}

impl FarSide {
    /// When there is something to do for shared traces.
    fn next_round(&self) -> Option<Instant> {
        let traces = self.traces();
        let is_new = !traces.to_find(1).is_empty();
        if is_new { Some(Instant::now()) } else { traces.next_due().map(Instant::from_std) }
    }

    async fn round(&self) -> Result<(), Problem> {
        let to_find = self.traces().to_find(TRACES_MAX);
        if !to_find.is_empty() {
            let asked = Instant::now();
            let mut found = self.find(&to_find).await?;
            let mut traces = self.traces();
            for (id, name) in to_find {
                let found = found.remove(&*bounded(&name)).unwrap_or_default();
                traces.found(id, found, asked.into_std());
            }
        }
        let mut due = self.traces().due(TRACES_MAX, Instant::now().into_std());
        let too_long = |due: &Due| SEARCHED_CHARS_MAX < due.name.chars().count();
        for due in due.extract_if(.., |due| too_long(due)) {
            self.traces().make_blind(due.trace);
        }
        if due.is_empty() {
            return Ok(());
        }
        let response = self.sum_up(&due).await?;
        let sums = read_sums(&response.body)
            .ok_or_else(|| Problem::Later("the sums of traces cannot be read".to_owned()))?;
        let found = |due: &Due| sums.get(&*due.name).map_or(0, |sum| sum.doc_count);
        let now = Instant::now().into_std();
        due.retain(|due| !self.traces().must_wait(due, found(due), now));
        if due.is_empty() {
            return Ok(());
        }
        let kin = self.kin(&due, &sums).await?;
        self.write(&due, &sums, &kin::compare(&kin)).await
    }

    /// Reads the summaries that are there.
    async fn find(
        &self,
        traces: &[(TraceId, Box<str>)],
    ) -> Result<HashMap<String, Found>, Problem> {
        const WANTED: &str = "workflow_name,group_id,service_name,metadata,span_count";
        let ids: Vec<_> = traces.iter().map(|(_, name)| bounded(name)).collect();
        let path = format!("/{}/_mget?_source_includes={WANTED}", self.settings.traces_index());
        let body = json!({ "ids": ids }).to_string();
        let response = self.look(&path, body).await?;
        read_found(&response.body)
            .ok_or_else(|| Problem::Later("the trace documents cannot be read".to_owned()))
    }

    /// Has the far side sum up the spans of these traces.
    async fn sum_up(&self, due: &[Due]) -> Result<Response, Problem> {
        let names: Vec<&str> = due.iter().map(|due| &*due.name).collect();
        self.look(&self.search_path(), query(&names).to_string()).await
    }

    /// Reads who stands above whom, where that is not too much.
    async fn kin(&self, due: &[Due], sums: &HashMap<String, Sum>) -> Result<Vec<Kin>, Problem> {
        let mut names = Vec::new();
        let mut spans = 0;
        for due in due {
            spans += sums.get(&*due.name).map_or(0, |sum| sum.doc_count) + 1;
            if spans <= kin::SPANS_MAX {
                names.push(&*due.name);
            }
        }
        let response = self.look(&self.search_path(), kin::query(&names).to_string()).await?;
        kin::read(&response.body)
            .ok_or_else(|| Problem::Later("the spans of traces cannot be read".to_owned()))
    }

    /// Where all spans are searched; whatever was rotated too.
    fn search_path(&self) -> String {
        let spans = self.settings.spans_index();
        format!(
            "/{spans},{spans}-*/_search?ignore_unavailable=true&allow_no_indices=true&request_cache=false"
        )
    }

    async fn look(&self, path: &str, body: String) -> Result<Response, Problem> {
        let answer = self.cluster.ask(Method::POST, path, Some(body)).await;
        let response = answer.map_err(|failure| Problem::Later(failure.to_string()))?;
        let status = classify::describe(response.status, &response.headers);
        match classify::classify(response.status, &response.headers) {
            Verdict::Taken if !response.is_cut => Ok(response),
            Verdict::Stop if matches!(response.status.as_u16(), 401..=403) => {
                let (error, reason) = error_of(&response.body);
                Err(Problem::Forbidden(format!("{status}: {error}: {reason}")))
            }
            _ => Err(Problem::Later(status)),
        }
    }

    /// Writes what documents of spans lack, and then the summaries. A trace whose changes were not all taken waits for the next
    /// round. What is refused is never behind what is sent again: a server that takes but a part of each request gets through all.
    async fn write(
        &self,
        due: &[Due],
        sums: &HashMap<String, Sum>,
        findings: &Findings<'_>,
    ) -> Result<(), Problem> {
        let mut written = Written::default();
        self.write_late(due, findings, &mut written).await?;
        let behind = std::mem::take(&mut written.behind);
        let due = due.iter().filter(|due| !behind.contains(&due.trace));
        self.write_summaries(due, sums, findings, &mut written).await?;
        match written.refused {
            // The rest comes in the next round.
            Some(reason) if !written.has_taken => Err(Problem::Later(reason)),
            _ => Ok(()),
        }
    }

    /// Fills in what documents of spans lack.
    async fn write_late(
        &self,
        due: &[Due],
        findings: &Findings<'_>,
        written: &mut Written,
    ) -> Result<(), Problem> {
        if !self.encoder().has_patches() {
            return Ok(());
        }
        let traces: HashMap<&str, TraceId> =
            due.iter().map(|due| (&*due.name, due.trace)).collect();
        let mut bulk = Bulk::default();
        for (kin, known) in &findings.lacking {
            if let Some(&trace) = traces.get(kin.trace()) {
                bulk.add_late(trace, kin, known);
            }
        }
        self.write_bulk(bulk, written, |_, _| {}).await
    }

    /// Writes summaries, each under the condition that it is still as it was found.
    async fn write_summaries(
        &self,
        due: impl Iterator<Item = &Due>,
        sums: &HashMap<String, Sum>,
        findings: &Findings<'_>,
        written: &mut Written,
    ) -> Result<(), Problem> {
        let nothing = Sum::default();
        let mut bulk = Bulk::default();
        let encoder = self.encoder();
        for due in due {
            let sum = sums.get(&*due.name).unwrap_or(&nothing);
            let mut facts = due.found.facts.clone();
            facts.join(due.facts.lend());
            let mut summary = summary(due, sum, &facts, &self.settings);
            let deepest = findings.max_depths.get(&*due.name).copied().unwrap_or_default();
            summary.max_depth = summary.max_depth.max(deepest);
            let condition = due.found.seq.map_or(Condition::Absent, Condition::At);
            encoder.summary(&mut bulk, due.trace, &summary, due.raised, condition);
        }
        self.write_bulk(bulk, written, |line, answer| {
            let What::Summary { trace, version } = line.what else { return };
            match judge(answer, line.action) {
                Class::Stored => {
                    figures::count_resolved(&self.figures, 1);
                    self.traces().resolved(trace, version, answer.seq);
                }
                Class::Conflict | Class::Missing => self.traces().lost_race(trace),
                Class::Refused | Class::SetAside => {
                    warn!(
                        sink = self.name,
                        status = answer.status,
                        error = &*answer.error,
                        "a trace document was refused for good"
                    );
                    self.traces().resolved(trace, version, None);
                }
                // It comes again.
                Class::Retry | Class::Throttled | Class::Stop | Class::NoIndex => {}
            }
        })
        .await
    }

    /// Sends one request and takes note of what has to be sent again.
    async fn write_bulk(
        &self,
        mut bulk: Bulk,
        written: &mut Written,
        answered: impl Fn(&Line, &Answer<'_>),
    ) -> Result<(), Problem> {
        if bulk.lines.is_empty() {
            return Ok(());
        }
        let response = match self.post(&mut bulk).await {
            Ok(response) => response,
            Err(outcome) => return Err(problem_of(&outcome)),
        };
        let answers = match super::response::read(&response, bulk.lines.len(), bulk.body.len()) {
            Whole::Items(answers) => answers,
            Whole::All(outcome) => return Err(problem_of(&outcome)),
        };
        for (line, answer) in bulk.lines.iter().zip(&answers) {
            answered(line, answer);
            written.note(line, answer);
        }
        Ok(())
    }

    /// We may not look: from now on the last writer wins.
    async fn stop_looking(&self, reason: &str) {
        warn!(
            sink = self.name,
            reason,
            "the key may not read, so trace documents are written without looking at those of others; \
             give it the privilege `read` on the indices, or set trace_summary = \"local\""
        );
        self.is_blind.store(true, std::sync::atomic::Ordering::Relaxed);
        let waiting = {
            let mut traces = self.traces();
            let waiting = traces.all_waiting();
            for id in &waiting {
                traces.make_blind(*id);
            }
            waiting
        };
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            let bulks = self.encoder().traces(&waiting, |_| false, &mut self.traces());
            if bulks.is_empty() {
                return;
            }
            let mut has_taken = false;
            for bulk in bulks {
                has_taken |= self.write_unseen(bulk).await;
            }
            if has_taken {
                backoff.reset();
            }
            sleep(backoff.next_wait()).await;
        }
    }

    /// Sends what traces need beside their spans. Returns whether the far side took any of it; what it may take later stays due.
    async fn write_unseen(&self, mut bulk: Bulk) -> bool {
        let response = self.post(&mut bulk).await;
        let whole = match &response {
            Ok(response) => super::response::read(response, bulk.lines.len(), bulk.body.len()),
            Err(outcome) => Whole::All(outcome.clone()),
        };
        let (answers, of_all) = match whole {
            Whole::Items(answers) => (answers, Class::Retry),
            Whole::All(
                Outcome::Malformed { .. } | Outcome::TooLarge { .. } | Outcome::Fault { .. },
            ) => (Vec::new(), Class::Refused),
            Whole::All(_) => (Vec::new(), Class::Retry),
        };
        let mut has_taken = false;
        let mut traces = self.traces();
        for (at, line) in bulk.lines.iter().enumerate() {
            let answer = answers.get(at);
            let class = answer.map_or_else(|| of_all.clone(), |answer| judge(answer, line.action));
            has_taken |= class == Class::Stored;
            match line.what {
                What::Summary { trace, version } if class == Class::Stored => {
                    traces.written(trace, version, answer.and_then(|answer| answer.seq));
                }
                What::Summary { trace, version } if class.is_final() => {
                    traces.give_up(trace, version);
                }
                What::Patch { trace, span } if !class.is_final() => traces.unstamp(trace, span),
                _ => {}
            }
        }
        has_taken
    }
}

fn problem_of(outcome: &Outcome) -> Problem {
    match outcome {
        Outcome::Stop { reason }
        | Outcome::Retry { reason, .. }
        | Outcome::Throttled { reason, .. }
        | Outcome::Fault { reason, .. }
        | Outcome::TooLarge { reason, .. }
        | Outcome::Malformed { reason, .. } => Problem::Later(reason.clone()),
        _ => Problem::Later("trace documents were not taken".to_owned()),
    }
}

// === What is read ===

/// Reads the answer to `_mget`: summaries by document id.
fn read_found(body: &[u8]) -> Option<HashMap<String, Found>> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        docs: Vec<Doc<'a>>,
    }
    #[derive(Deserialize)]
    struct Doc<'a> {
        #[serde(rename = "_id")]
        id: String,
        #[serde(default, rename = "_seq_no")]
        number: Option<u64>,
        #[serde(default, rename = "_primary_term")]
        term: Option<u64>,
        #[serde(borrow, default, rename = "_source")]
        source: Option<Source<'a>>,
    }
    #[derive(Deserialize, Default)]
    struct Source<'a> {
        workflow_name: Option<Box<str>>,
        group_id: Option<Box<str>>,
        service_name: Option<Box<str>>,
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
        #[serde(default)]
        span_count: u64,
    }
    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    let found = answer.docs.into_iter().map(|doc| {
        let source = doc.source.unwrap_or_default();
        let seq = doc.number.zip(doc.term).map(|(number, term)| Seq { number, term });
        let facts = KeptFacts {
            workflow: source.workflow_name,
            group: source.group_id,
            service: source.service_name,
            metadata: source.metadata.map(|metadata| metadata.get().into()),
        };
        (doc.id, Found { seq, facts, spans: source.span_count })
    });
    Some(found.collect())
}

/// The question that [`read_sums`] reads the answer to.
fn query(names: &[&str]) -> serde_json::Value {
    let sum = |field: &str| json!({ "sum": { "field": field } });
    let names_of = |field: &str| json!({ "terms": { "field": field, "size": NAMES_MAX, "order": { "_key": "asc" } } });
    json!({
        "size": 0,
        "query": { "bool": {
            "filter": [{ "terms": { "trace_id": names } }],
            "must_not": [{ "term": { "source": super::document::OURS } }],
        }},
        "aggs": { "traces": {
            "terms": { "field": "trace_id", "size": names.len() },
            "aggs": {
                "start": { "min": { "field": "start_us" } },
                "end": { "max": { "field": "end_us" } },
                "received": { "min": { "field": "ingested_at" } },
                "updated": { "max": { "field": "ingested_at" } },
                "errors": sum("error_flag"),
                "depth": { "max": { "field": "depth" } },
                "types": { "terms": { "field": "span_type", "size": TYPES_MAX } },
                "agents": names_of("agent.name"),
                "tools": names_of("tool.name"),
                "models": names_of("model.name"),
                "input": sum("usage.input_tokens"),
                "output": sum("usage.output_tokens"),
                "total": sum("usage.total_tokens"),
                "cost": sum("usage.cost_usd"),
            },
        }},
    })
}

/// Types of spans that are told apart in a trace.
const TYPES_MAX: usize = 100;

/// What the far side says of a trace's spans.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sum {
    key: String,
    doc_count: u64,
    start: Number,
    end: Number,
    received: Number,
    updated: Number,
    errors: Number,
    depth: Number,
    types: Buckets,
    agents: Buckets,
    tools: Buckets,
    models: Buckets,
    input: Number,
    output: Number,
    total: Number,
    cost: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Number {
    value: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Buckets {
    buckets: Vec<Bucket>,
}

#[derive(Debug, Deserialize)]
struct Bucket {
    key: String,
    doc_count: u64,
}

impl Number {
    /// As a whole number; 0 where there is none. Aggregations answer in doubles, which are exact up to 2^53.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the conversion saturates"
    )]
    fn whole(&self) -> u64 {
        self.value.unwrap_or_default() as u64
    }
}

impl Buckets {
    fn names(&self) -> BTreeSet<&str> {
        self.buckets.iter().map(|bucket| bucket.key.as_str()).collect()
    }

    fn count(&self, names: &[&str]) -> u64 {
        let counted = self.buckets.iter().filter(|bucket| names.contains(&bucket.key.as_str()));
        counted.map(|bucket| bucket.doc_count).sum()
    }
}

/// Reads the sums by trace; none where they are not whole.
fn read_sums(body: &[u8]) -> Option<HashMap<String, Sum>> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        timed_out: bool,
        #[serde(rename = "_shards")]
        shards: Shards,
        #[serde(default)]
        aggregations: Option<Aggregations>,
    }
    #[derive(Deserialize)]
    struct Shards {
        failed: u64,
    }
    #[derive(Deserialize)]
    struct Aggregations {
        traces: Sums,
    }
    #[derive(Deserialize)]
    struct Sums {
        buckets: Vec<Sum>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    if answer.timed_out || 0 < answer.shards.failed {
        return None;
    }
    // Without any index there is nothing to sum up.
    let buckets = answer.aggregations.map(|all| all.traces.buckets).unwrap_or_default();
    Some(buckets.into_iter().map(|sum| (sum.key.clone(), sum)).collect())
}

fn summary<'a>(
    due: &'a Due,
    sum: &'a Sum,
    facts: &'a KeptFacts,
    settings: &'a Settings,
) -> Summary<'a> {
    let called = |kind: &'static str| settings.span_type_map.get(kind).map_or(kind, String::as_str);
    let usage = Tokens {
        input: sum.input.whole(),
        output: sum.output.whole(),
        total: sum.total.whole(),
        cost_usd: sum.cost.value.unwrap_or_default(),
    };
    let (received, updated) = (sum.received.whole(), sum.updated.whole());
    let first = Some(received).filter(|at| *at != 0).unwrap_or(u64::MAX);
    Summary {
        name: &due.name,
        facts: facts.lend(),
        start_us: sum.start.whole(),
        end_us: sum.end.whole(),
        received_ms: (first.min(due.received_ms.0), updated.max(due.received_ms.1)),
        spans: sum.doc_count,
        errors: sum.errors.whole(),
        agent_spans: sum.types.count(&[called("agent")]),
        tool_calls: sum.types.count(&[called("function")]),
        generations: sum.types.count(&[called("generation"), called("response")]),
        handoffs: sum.types.count(&[called("handoff")]),
        max_depth: sum.depth.whole(),
        agents: sum.agents.names(),
        tools: sum.tools.names(),
        models: sum.models.names(),
        usage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::elasticsearch::traces::TraceFacts;

    #[test]
    fn sums_that_are_not_whole_are_not_used() {
        for body in [
            r#"{"timed_out":true,"_shards":{"failed":0},"aggregations":{"traces":{"buckets":[]}}}"#,
            r#"{"timed_out":false,"_shards":{"failed":1},"aggregations":{"traces":{"buckets":[]}}}"#,
            "",
            "{}",
        ] {
            assert!(read_sums(body.as_bytes()).is_none(), "{body}");
        }
        let nothing = r#"{"timed_out":false,"_shards":{"failed":0}}"#;
        assert_eq!(read_sums(nothing.as_bytes()).map(|sums| sums.len()), Some(0));
    }

    #[test]
    fn a_summary_is_found_with_its_version_and_what_only_it_knows() {
        let body = r#"{"docs":[
            {"_id":"a","found":true,"_seq_no":7,"_primary_term":2,"_source":{"workflow_name":"w","metadata":{"k":[1]}}},
            {"_id":"b","found":false},
            {"_id":"c","error":{"type":"index_not_found_exception"}}]}"#;
        let found = read_found(body.as_bytes()).unwrap();
        assert_eq!(found["a"].seq, Some(Seq { number: 7, term: 2 }));
        let facts = TraceFacts {
            workflow: Some("w"),
            metadata: Some(r#"{"k":[1]}"#),
            ..Default::default()
        };
        assert_eq!(found["a"].facts.lend(), facts);
        assert_eq!(found["b"], Found::default());
        assert_eq!(found["c"], Found::default());
    }
}
