//! The same runs, sent by the Agents SDK and through each bridge, yield the same facts, except for those that a bridge is known to lose.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::totals::trace_total;
use super::{decode_all, facts_json};
use crate::normalize::{Decoded, attributes};
use crate::span::{Detail, Facts, Format, Kind, Span, SpanHeader, SpanReading, Usage};
use crate::support::golden;

/// What a bridge loses or adds, apart from the span for the trace itself, which every bridge adds.
struct Bridge {
    folder: &'static str,
    /// Kinds that arrive as another kind.
    kinds: &'static [(Kind, Kind)],
    /// Whether guardrails' names or results are lost.
    guardrails: Loss,
    /// Whether session and workflow metadata are lost.
    group_is_lost: Loss,
    /// Scenarios in which counts of cached and reasoning tokens are lost.
    token_details_lost: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Kept,
    Lost,
    /// The guardrail's name is scrubbed or its result is not sent.
    Half,
}

/// The bridges, as measured on these captures.
const BRIDGES: [Bridge; 3] = [
    Bridge {
        folder: "openinference-openai-agents",
        // It has no kind for custom spans.
        kinds: &[(Kind::Custom, Kind::Chain)],
        guardrails: Loss::Half,
        group_is_lost: Loss::Lost,
        // Different code maps the Chat Completions model and the Responses model.
        token_details_lost: &["chatcompletions-model"],
    },
    Bridge {
        folder: "otel-openai-agents-v2",
        // Tasks and turns are spans named `unknown`.
        kinds: &[(Kind::Chain, Kind::Custom)],
        guardrails: Loss::Kept,
        group_is_lost: Loss::Lost,
        token_details_lost: &SCENARIOS,
    },
    Bridge {
        folder: "logfire-openai-agents",
        kinds: &[],
        // It redacts the name by a pattern, but sends the result.
        guardrails: Loss::Half,
        group_is_lost: Loss::Kept,
        token_details_lost: &[],
    },
];

const SCENARIOS: [&str; 6] = [
    "handoff-tool",
    "streamed",
    "tool-error",
    "model-error",
    "chatcompletions-model",
    "no-outer-trace-two-runs",
];

/// The facts of a run that must be the same however it was sent.
#[derive(Debug, PartialEq)]
struct Run {
    kinds: BTreeMap<&'static str, usize>,
    agents: BTreeSet<String>,
    tools: Vec<String>,
    handoffs: Vec<(String, String)>,
    guardrails: usize,
    errors: BTreeMap<&'static str, usize>,
    usage: (Option<u64>, Option<u64>),
    details: (Option<u64>, Option<u64>),
}

fn run(requests: &[Decoded], rename: &[(Kind, Kind)]) -> Run {
    let spans: Vec<&Span> = requests.iter().flat_map(|request| request.batch.spans()).collect();
    let facts: Vec<&Facts> =
        spans.iter().filter(|span| !is_trace_span(span)).map(|span| span.facts()).collect();
    let kind = |facts: &Facts| {
        rename.iter().find(|(from, _)| *from == facts.kind).map_or(facts.kind, |(_, to)| *to)
    };
    let count = |kinds: &mut dyn Iterator<Item = Kind>| {
        let mut counts = BTreeMap::new();
        kinds.for_each(|kind| *counts.entry(kind.as_str()).or_default() += 1);
        counts
    };
    let text = |text: &Option<crate::span::Text>| text.as_deref().unwrap_or_default().to_owned();
    let of = |wanted: Kind| facts.iter().copied().filter(move |facts| facts.kind == wanted);
    let mut tools: Vec<_> = of(Kind::Tool).map(|facts| text(&facts.tool)).collect();
    tools.sort();
    let total = traces_total(&spans);
    Run {
        kinds: count(&mut facts.iter().map(|facts| kind(facts))),
        agents: of(Kind::Agent).map(|facts| text(&facts.agent)).collect(),
        tools,
        handoffs: of(Kind::Handoff)
            .map(|facts| (text(&facts.handoff_from), text(&facts.handoff_to)))
            .collect(),
        guardrails: of(Kind::Guardrail).count(),
        errors: count(
            &mut facts.iter().filter(|facts| facts.error.is_some()).map(|facts| kind(facts)),
        ),
        usage: (total.input, total.output),
        details: (total.cached_read, total.reasoning),
    }
}

/// Returns whether a span stands for the trace object.
fn is_trace_span(span: &Span) -> bool {
    span.is_otlp() && span.parent_id.is_none()
}

fn traces_total(spans: &[&Span]) -> Usage {
    let traces: BTreeSet<_> = spans.iter().map(|span| span.trace_id).collect();
    let totals = traces
        .iter()
        .map(|trace| trace_total(spans.iter().copied().filter(|span| span.trace_id == *trace)));
    totals.fold(Usage::default(), |sum, total| {
        let add = |one: Option<u64>, other: Option<u64>| {
            one.map_or(other, |one| Some(one + other.unwrap_or_default()))
        };
        Usage {
            input: add(sum.input, total.input),
            output: add(sum.output, total.output),
            cached_read: add(sum.cached_read, total.cached_read),
            reasoning: add(sum.reasoning, total.reasoning),
            ..Usage::default()
        }
    })
}

#[test]
fn every_bridge_tells_the_same_run_as_the_sdks_own_format() {
    for scenario in SCENARIOS {
        for bridge in &BRIDGES {
            let agents_sdk = decode_all("otlp/openai-agents-native", scenario);
            let bridged = decode_all(&format!("otlp/{}", bridge.folder), scenario);
            let mut expected = run(&agents_sdk, bridge.kinds);
            let found = run(&bridged, &[]);
            if bridge.token_details_lost.contains(&scenario) {
                assert_eq!(found.details, (None, None), "{} {scenario}", bridge.folder);
                expected.details = found.details;
            }
            assert_eq!(found, expected, "{} {scenario}", bridge.folder);
        }
    }
}

#[test]
fn what_a_bridge_keeps_of_group_and_guardrail_is_found() {
    for bridge in &BRIDGES {
        let requests = decode_all(&format!("otlp/{}", bridge.folder), "handoff-tool");
        let facts: Vec<_> =
            requests.iter().flat_map(|request| request.batch.spans()).map(Span::facts).collect();
        let group = facts.iter().any(|facts| facts.session.as_deref() == Some("thread_123"));
        assert_eq!(group, bridge.group_is_lost == Loss::Kept, "{}", bridge.folder);
        let guardrail = facts.iter().find(|facts| facts.kind == Kind::Guardrail).unwrap();
        let is_whole = guardrail.guardrail.as_deref() == Some("no_secrets")
            && guardrail.guardrail_triggered == Some(false);
        assert_eq!(is_whole, bridge.guardrails == Loss::Kept, "{}", bridge.folder);
        let workflow =
            facts.iter().any(|facts| facts.workflow.as_deref() == Some("Weather workflow"));
        assert!(workflow, "{}", bridge.folder);
    }
}

/// The format of Agents SDK spans that were converted to OTLP, as another Spanferry receives them.
#[derive(Debug)]
struct SentOn(Detail);

impl Format for SentOn {
    fn is_otlp(&self) -> bool {
        true
    }

    fn detail(&self, _: &Span) -> Detail {
        self.0.clone()
    }

    fn said(&self, span: &Span, reading: &mut SpanReading) {
        attributes::facts(span, span.detail(), &mut reading.facts);
    }
}

#[test]
fn sdk_spans_sent_on_as_otlp_keep_their_facts() {
    // Facts that change their form: messages become parts, parameters become a separate list, and audio and payloads without a name
    // in OTLP stay in attributes.
    const RESHAPED: [&str; 7] =
        ["input", "output", "parameters", "metadata", "tags", "user", "tool_definitions"];
    for fixture in golden::fixtures("agents-sdk") {
        for span in super::decode_fixture(&fixture).batch.spans() {
            let outline = SpanHeader {
                trace_id: span.trace_id,
                span_id: span.span_id,
                parent_id: span.parent_id,
                start_ns: span.start_ns,
                end_ns: span.end_ns,
                wire: span.wire.clone(),
            };
            let format: &'static SentOn = Box::leak(Box::new(SentOn(span.detail().clone())));
            let sent_on = Span::new(outline, Arc::clone(&span.scope), None, format);
            let (mut expected, mut found) = (facts_json(span.facts()), facts_json(sent_on.facts()));
            for facts in [&mut expected, &mut found] {
                let facts = facts.as_object_mut().unwrap();
                facts.retain(|name, _| !RESHAPED.contains(&&**name));
                // Only spans without a parent have the workflow, and a failure has no type.
                if span.parent_id.is_some() {
                    facts.remove("workflow");
                }
                if let Some(error) = facts.get_mut("error") {
                    error["kind"].take();
                }
            }
            assert_eq!(found, expected, "{} {}", fixture.name, String::from_utf8_lossy(&span.wire));
        }
    }
}
