//! Who stands above whom among the spans that the far side has, for traces of which this daemon has not seen everything: what
//! another writer sent, or an earlier life. Pure.
//!
//! Documents that lack their agent or depth because nobody knew them both are found here and changed.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::{Value, json};

use super::document::Known;

/// Spans that are looked at together: what a server returns at once, unless it was told otherwise.
pub(super) const SPANS_MAX: u64 = 10_000;

/// The question that [`read`] reads the answer to.
pub(super) fn query(traces: &[&str]) -> Value {
    json!({
        "size": SPANS_MAX,
        "track_total_hits": false,
        "_source": ["trace_id", "span_id", "parent_id", "agent", "depth"],
        "query": { "bool": { "filter": [{ "terms": { "trace_id": traces } }] } },
    })
}

/// A document, as far as it says who stands above it.
#[derive(Debug, Deserialize)]
pub(super) struct Kin {
    /// Its index.
    #[serde(rename = "_index")]
    pub(super) index: String,
    /// Its id.
    #[serde(rename = "_id")]
    pub(super) id: String,
    #[serde(rename = "_source")]
    source: Source,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Source {
    trace_id: String,
    span_id: String,
    parent_id: Option<String>,
    agent: Option<Agent>,
    depth: Option<u16>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Agent {
    name: Option<String>,
    span_id: Option<String>,
}

/// What the far side's documents together say.
#[derive(Debug, Default)]
pub(super) struct Findings<'a> {
    /// Documents that lack something, and all that is known of it.
    pub(super) lacking: Vec<(&'a Kin, Known)>,
    /// The most spans above one, by trace.
    pub(super) max_depths: HashMap<&'a str, u64>,
}

/// Reads the documents in an answer.
pub(super) fn read(body: &[u8]) -> Option<Vec<Kin>> {
    #[derive(Deserialize)]
    struct Answer {
        hits: Hits,
    }
    #[derive(Deserialize)]
    struct Hits {
        hits: Vec<Kin>,
    }
    serde_json::from_slice::<Answer>(body).ok().map(|answer| answer.hits.hits)
}

/// Puts them together.
pub(super) fn compare(all: &[Kin]) -> Findings<'_> {
    let by_span: HashMap<(&str, &str), &Kin> =
        all.iter().map(|kin| ((kin.trace(), kin.source.span_id.as_str()), kin)).collect();
    let mut findings = Findings::default();
    let mut depths: HashMap<(&str, &str), Option<u16>> = HashMap::new();
    for kin in all {
        let depth = depth_of(kin, &by_span, &mut depths);
        let deepest = findings.max_depths.entry(kin.trace()).or_default();
        *deepest = (*deepest).max(depth.unwrap_or_default().into());
        let mut known = Known { depth, ..Known::default() };
        let own = kin.source.agent.as_ref().and_then(|agent| agent.name.as_deref());
        if own.is_none()
            && let Some(agent) = agent_above(kin, &by_span)
        {
            known.agent = agent.name.as_deref().map(From::from);
            known.agent_span = agent.span_id.as_deref().map(From::from);
        }
        if known.agent.is_some() || (depth.is_some() && depth != kin.source.depth) {
            findings.lacking.push((kin, known));
        }
    }
    findings
}

impl Kin {
    pub(super) fn trace(&self) -> &str {
        &self.source.trace_id
    }

    fn parent<'a>(&'a self, by_span: &HashMap<(&str, &str), &'a Kin>) -> Option<&'a Kin> {
        by_span.get(&(self.trace(), self.source.parent_id.as_deref()?)).copied()
    }
}

/// The depth of a span whose line to the root is complete. Each is found once, however deep the trace.
fn depth_of<'a>(
    kin: &'a Kin,
    by_span: &HashMap<(&str, &str), &'a Kin>,
    depths: &mut HashMap<(&'a str, &'a str), Option<u16>>,
) -> Option<u16> {
    let mut path = Vec::new();
    let mut seen = HashSet::new();
    let mut at = Some(kin);
    let mut above = None;
    while let Some(current) = at {
        let key = (current.trace(), current.source.span_id.as_str());
        if let Some(known) = depths.get(&key) {
            above = *known;
            break;
        }
        // A circle has no root.
        if !seen.insert(key) {
            break;
        }
        path.push(key);
        if current.source.parent_id.is_none() {
            path.pop();
            depths.insert(key, Some(0));
            above = Some(0);
            break;
        }
        at = current.parent(by_span);
    }
    for key in path.into_iter().rev() {
        above = above.map(|depth| depth.saturating_add(1));
        depths.insert(key, above);
    }
    depths.get(&(kin.trace(), kin.source.span_id.as_str())).copied().flatten()
}

/// The nearest agent above a span.
fn agent_above<'a>(kin: &'a Kin, by_span: &HashMap<(&str, &str), &'a Kin>) -> Option<&'a Agent> {
    let mut seen = HashSet::new();
    let mut at = kin.parent(by_span);
    while let Some(current) = at.filter(|kin| seen.insert(kin.source.span_id.as_str())) {
        if let Some(agent) = current.source.agent.as_ref().filter(|agent| agent.name.is_some()) {
            return Some(agent);
        }
        at = current.parent(by_span);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(span: &str, parent: Option<&str>, agent: Option<&str>, depth: Option<u16>) -> Value {
        let agent = agent.map(|name| json!({"name": name, "span_id": span}));
        json!({"_index": "i", "_id": span, "_source": {
            "trace_id": "t", "span_id": span, "parent_id": parent, "agent": agent, "depth": depth,
        }})
    }

    #[test]
    fn what_documents_lack_is_found_among_them() {
        let hits = json!({"hits": {"hits": [
            hit("leaf", Some("turn"), None, None),
            hit("turn", Some("agent"), None, Some(1)),
            hit("agent", None, Some("Triage"), Some(0)),
            hit("lost", Some("gone"), None, None),
            hit("round", Some("about"), None, None),
            hit("about", Some("round"), None, None),
            hit("self", Some("self"), None, None),
        ]}});
        let all = read(hits.to_string().as_bytes()).unwrap();
        let findings = compare(&all);
        let lacking: Vec<_> = findings
            .lacking
            .iter()
            .map(|(kin, known)| (kin.id.as_str(), known.agent.as_deref(), known.depth))
            .collect();
        assert_eq!(lacking, [("leaf", Some("Triage"), Some(2)), ("turn", Some("Triage"), Some(1))]);
        assert_eq!(findings.max_depths["t"], 2);
    }
}
