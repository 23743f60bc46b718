//! A trace's summary, and how it is written. Pure.

use std::collections::BTreeSet;

use super::lineage::Node;
use super::{Tokens, Trace, TraceFacts};
use crate::sinks::elasticsearch::document::milliseconds;
use crate::sinks::elasticsearch::item::{Members, text};
use crate::span::Kind;
use crate::support::json::{write_f64, write_str, write_u64};
use crate::support::rfc3339;

/// What a trace document says.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::sinks::elasticsearch) struct Summary<'a> {
    /// The trace's id.
    pub(in crate::sinks::elasticsearch) name: &'a str,
    /// What is said of the trace as a whole.
    pub(in crate::sinks::elasticsearch) facts: TraceFacts<'a>,
    /// The earliest start, in microseconds since 1970; 0 when no span says one.
    pub(in crate::sinks::elasticsearch) start_us: u64,
    /// The latest end, in microseconds since 1970; 0 when no span says one.
    pub(in crate::sinks::elasticsearch) end_us: u64,
    /// When the first and the last of it was received, in milliseconds since 1970.
    pub(in crate::sinks::elasticsearch) received_ms: (u64, u64),
    /// Spans.
    pub(in crate::sinks::elasticsearch) spans: u64,
    /// Spans that failed.
    pub(in crate::sinks::elasticsearch) errors: u64,
    /// Spans of agents.
    pub(in crate::sinks::elasticsearch) agent_spans: u64,
    /// Spans of tools.
    pub(in crate::sinks::elasticsearch) tool_calls: u64,
    /// Model calls.
    pub(in crate::sinks::elasticsearch) generations: u64,
    /// Handoffs.
    pub(in crate::sinks::elasticsearch) handoffs: u64,
    /// The most spans above one.
    pub(in crate::sinks::elasticsearch) max_depth: u64,
    /// Names of agents.
    pub(in crate::sinks::elasticsearch) agents: BTreeSet<&'a str>,
    /// Names of tools.
    pub(in crate::sinks::elasticsearch) tools: BTreeSet<&'a str>,
    /// Names of models.
    pub(in crate::sinks::elasticsearch) models: BTreeSet<&'a str>,
    /// Tokens and money of model calls.
    pub(in crate::sinks::elasticsearch) usage: Tokens,
}

/// Names of one sort in a summary; more would make no list that anybody reads.
pub(in crate::sinks::elasticsearch) const NAMES_MAX: usize = 100;
/// Entries of `metadata_kv`.
const PAIRS_MAX: usize = 64;
/// Bytes of an entry of `metadata_kv`; longer ones would not be indexed.
const PAIR_BYTES_MAX: usize = 1024;

impl Trace {
    pub(super) fn summary(&self) -> Summary<'_> {
        let mut summary = Summary {
            name: &self.name,
            facts: self.facts.lend(),
            received_ms: self.received_ms,
            ..Summary::default()
        };
        for (_, node) in self.lineage.nodes().filter(|(_, node)| !node.is_synthetic) {
            summary.add(node);
        }
        summary
    }
}

impl<'a> Summary<'a> {
    fn add(&mut self, node: &'a Node) {
        let starts = [self.start_us, node.start_us].into_iter().filter(|at| *at != 0);
        self.start_us = starts.min().unwrap_or_default();
        self.end_us = self.end_us.max(node.end_us);
        self.spans += 1;
        self.errors += u64::from(node.is_error);
        match node.kind {
            Kind::Agent => self.agent_spans += 1,
            Kind::Tool => self.tool_calls += 1,
            Kind::Generation => self.generations += 1,
            Kind::Handoff => self.handoffs += 1,
            _ => {}
        }
        self.max_depth = self.max_depth.max(node.depth.unwrap_or_default().into());
        self.agents.extend(node.agent.as_deref());
        self.tools.extend(node.tool.as_deref());
        self.models.extend(node.model.as_deref());
        self.usage.add(&node.usage);
    }

    /// Appends it as a document on one line, without the line break.
    pub(in crate::sinks::elasticsearch) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"trace_id\":");
        write_str(out, self.name);
        let received_ns = self.received_ms.0.saturating_mul(NS_PER_MS);
        let start_ns = self.start_us.saturating_mul(NS_PER_US);
        let first_ns = if start_ns == 0 { received_ns } else { start_ns };
        if self.received_ms.0 != u64::MAX || start_ns != 0 {
            time(out, "timestamp", first_ns);
        }
        if self.end_us != 0 {
            time(out, "end_time", self.end_us.saturating_mul(NS_PER_US));
        }
        time(out, "updated_at", self.received_ms.1.saturating_mul(NS_PER_MS));
        let is_timed = self.start_us != 0;
        let duration_us = if is_timed { self.end_us.saturating_sub(self.start_us) } else { 0 };
        write_f64(key(out, "duration_ms"), milliseconds(duration_us.saturating_mul(NS_PER_US)));
        write_str(key(out, "status"), if self.errors == 0 { "ok" } else { "error" });
        for (name, count) in [
            ("span_count", self.spans),
            ("error_count", self.errors),
            ("error_flag", u64::from(0 < self.errors)),
            ("agent_span_count", self.agent_spans),
            ("tool_call_count", self.tool_calls),
            ("generation_count", self.generations),
            ("handoff_count", self.handoffs),
            ("max_depth", self.max_depth),
        ] {
            write_u64(key(out, name), count);
        }
        for (name, names) in
            [("agents", &self.agents), ("tools", &self.tools), ("models", &self.models)]
        {
            write_names(out, name, names);
        }
        if self.usage != Tokens::default() {
            self.usage.write(key(out, "usage"));
        }
        write_trace_facts(out, self.facts);
        out.push(b'}');
    }
}

impl Tokens {
    pub(in crate::sinks::elasticsearch) fn add(&mut self, other: &Self) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.total = self.total.saturating_add(other.total);
        self.cost_usd += other.cost_usd;
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"input_tokens\":");
        write_u64(out, self.input);
        write_u64(key(out, "output_tokens"), self.output);
        write_u64(key(out, "total_tokens"), self.total);
        if self.cost_usd != 0.0 {
            write_f64(key(out, "cost_usd"), self.cost_usd);
        }
        out.push(b'}');
    }
}

/// Appends what is said of a trace as a whole, as part of its document.
pub(in crate::sinks::elasticsearch) fn write_facts(
    out: &mut Vec<u8>,
    name: &str,
    facts: TraceFacts<'_>,
) {
    out.extend_from_slice(b"{\"trace_id\":");
    write_str(out, name);
    write_trace_facts(out, facts);
    out.push(b'}');
}

fn write_trace_facts(out: &mut Vec<u8>, facts: TraceFacts<'_>) {
    for (name, said) in [
        ("workflow_name", facts.workflow),
        ("group_id", facts.group),
        ("service_name", facts.service),
    ] {
        if let Some(said) = said {
            write_str(key(out, name), said);
        }
    }
    let Some(metadata) = facts.metadata else { return };
    crate::support::json::write_compact(key(out, "metadata"), metadata.as_bytes());
    let members = Members::of(metadata);
    let pairs = members.iter().filter_map(|(name, value)| {
        let value = match value.as_bytes().first()? {
            b'"' => text(value)?,
            b'{' | b'[' | b'n' => return None,
            _ => value.into(),
        };
        Some(format!("{name}={value}")).filter(|pair| pair.len() <= PAIR_BYTES_MAX)
    });
    let pairs: Vec<_> = pairs.take(PAIRS_MAX).collect();
    if !pairs.is_empty() {
        write_names(out, "metadata_kv", &pairs.iter().map(String::as_str).collect());
    }
}

fn write_names(out: &mut Vec<u8>, name: &str, names: &BTreeSet<&str>) {
    if names.is_empty() {
        return;
    }
    key(out, name).push(b'[');
    for (index, name) in names.iter().take(NAMES_MAX).enumerate() {
        if index != 0 {
            out.push(b',');
        }
        write_str(out, name);
    }
    out.push(b']');
}

const NS_PER_US: u64 = 1_000;
const NS_PER_MS: u64 = 1_000_000;

fn key<'a>(out: &'a mut Vec<u8>, name: &str) -> &'a mut Vec<u8> {
    out.push(b',');
    write_str(out, name);
    out.push(b':');
    out
}

fn time(out: &mut Vec<u8>, name: &str, unix_ns: u64) {
    let out = key(out, name);
    out.push(b'"');
    rfc3339::write(out, unix_ns);
    out.push(b'"');
}
