//! Models which facts Langfuse reads by itself from an OTLP span, and which values it cannot use. Pure. The table is `reads.txt`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::RandomState;

use crate::span::plain::is_safe;
use crate::span::{Attribute, Kind, Span, Value, named};

use super::fields;

named! {
    /// A fact that Langfuse finds in a span, by its name in the table.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    (pub(super)) Fact {
        TraceName "trace_name",
        Session "session",
        User "user",
        Tags "tags",
        Environment "environment",
        Release "release",
        Level "level",
        StatusMessage "status_message",
        /// In Langfuse's own attribute. If it is present, Langfuse looks for the output nowhere else, and vice versa.
        OwnInput "own_input",
        OwnOutput "own_output",
        Input "input",
        Output "output",
        Model "model",
        /// A model in JSON quotes, for which Langfuse has no price.
        QuotedModel "quoted_model",
        Parameters "parameters",
        /// Tokens in any attribute.
        Usage "usage",
        /// Tokens in Langfuse's own attribute.
        OwnUsage "own_usage",
        Cost "cost",
        OwnCost "own_cost",
        CompletionStart "completion_start",
        PromptName "prompt_name",
        PromptVersion "prompt_version",
        ToolName "tool_name",
        Operation "operation",
        /// The value has to be text.
        Text "text",
        /// Found only under the scope of Vercel's SDK.
        Vercel "vercel",
        VercelCall "vercel_call",
        VercelTool "vercel_tool",
        Type "type",
        /// A JSON prompt without content. Langfuse then looks for input and output nowhere else.
        EmptyPrompt "empty_prompt",
        /// An operation whose spans Langfuse takes no usage from.
        Aggregate "aggregate",
        /// A value that Langfuse cannot use as it is.
        Unusable "unusable",
    }
}

/// A set of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct FactSet(u32);

impl FactSet {
    pub(super) fn of(facts: impl IntoIterator<Item = Fact>) -> Self {
        Self(facts.into_iter().fold(0, |found, fact| found | 1 << fact as u32))
    }

    pub(super) fn has(self, fact: Fact) -> bool {
        self.has_any(Self::of([fact]))
    }

    pub(super) fn has_any(self, facts: Self) -> bool {
        self.0 & facts.0 != 0
    }

    pub(super) fn add(&mut self, facts: Self) {
        self.0 |= facts.0;
    }

    fn without(self, facts: Self) -> Self {
        Self(self.0 & !facts.0)
    }
}

/// The rows of `reads.txt`.
#[derive(Default)]
struct Table {
    by_key: HashMap<&'static str, FactSet, RandomState>,
    by_beginning: Vec<(&'static str, FactSet)>,
    /// By key and value.
    types: HashMap<(&'static str, &'static str), &'static str>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table::default();
    for row in include_str!("reads.txt").lines().filter(|row| !row.starts_with('#')) {
        let Some((key, facts)) = row.split_once(' ') else { continue };
        if let Some(said) = key.split_once('=') {
            table.types.insert(said, facts);
            continue;
        }
        let found = FactSet::of(facts.split(' ').filter_map(Fact::named));
        match key.strip_suffix('*') {
            Some(beginning) => table.by_beginning.push((beginning, found)),
            None => drop(table.by_key.insert(key, found)),
        }
    }
    table
});

/// Returns the facts that Langfuse reads from an attribute.
pub(super) fn facts_of(key: &str) -> FactSet {
    let begins = || TABLE.by_beginning.iter().find(|(beginning, _)| key.starts_with(beginning));
    TABLE.by_key.get(key).copied().or_else(|| Some(begins()?.1)).unwrap_or_default()
}

/// The facts that Langfuse finds in a span.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reads {
    pub(super) found: FactSet,
    by_openinference: Option<&'static str>,
    by_operation: Option<&'static str>,
}

impl Reads {
    /// Reads a span as Langfuse does.
    pub(super) fn of(span: &Span) -> Self {
        const OF_RESOURCE: [Fact; 2] = [Fact::Environment, Fact::Release];
        let mut reads = Self::default();
        let is_vercel = &*span.scope.name == "ai";
        for attribute in &span.detail().attributes {
            reads.attribute(attribute, is_vercel);
        }
        for event in &span.detail().events {
            if event.name.starts_with("gen_ai.") {
                reads.found.add(FactSet::of([Fact::Input, Fact::Output]));
            }
            if !event.attributes.iter().all(|attribute| is_usable(&attribute.value)) {
                reads.add(Fact::Unusable);
            }
        }
        for attribute in &span.scope.resource.attributes {
            let facts = facts_of(&attribute.key);
            OF_RESOURCE.into_iter().filter(|fact| facts.has(*fact)).for_each(|it| reads.add(it));
        }
        let text = FactSet::of([Fact::Input, Fact::Output]);
        if reads.found.has(Fact::EmptyPrompt) { reads.without(text) } else { reads }
    }

    /// Returns what Langfuse finds once these facts are removed.
    pub(super) fn without(self, gone: FactSet) -> Self {
        let by_operation = self.by_operation.filter(|_| !gone.has(Fact::Operation));
        Self { found: self.found.without(gone), by_operation, ..self }
    }

    fn add(&mut self, fact: Fact) {
        self.found.add(FactSet::of([fact]));
    }

    fn attribute(&mut self, Attribute { key, value }: &Attribute, is_vercel: bool) {
        match usable(key, value) {
            Some(Cow::Borrowed(_)) => {}
            Some(Cow::Owned(_)) => self.add(Fact::Unusable),
            None => return self.add(Fact::Unusable),
        }
        let facts = facts_of(key);
        if is_vercel || !facts.has(Fact::Vercel) {
            self.found.add(facts);
        }
        let word = value.as_text().map(|text| &**text).unwrap_or_default();
        // MLflow writes every value as JSON, and one for each parameter of a call.
        let is_quoted = word.starts_with('"');
        if facts.has(Fact::Model) && is_quoted {
            self.add(Fact::QuotedModel);
        }
        let type_said = || TABLE.types.get(&(&**key, word)).copied();
        match &**key {
            fields::TYPE if TYPES.contains(&word) => self.add(Fact::Type),
            "openinference.span.kind" => self.by_openinference = type_said(),
            "gen_ai.operation.name" => {
                self.by_operation = type_said();
                if ["invoke_agent", "agent_step"].contains(&word) {
                    self.add(Fact::Aggregate);
                }
            }
            "prompt" if is_quoted || word == "null" => self.add(Fact::EmptyPrompt),
            "ai.operationId" if word == "ai.toolCall" => self.add(Fact::VercelTool),
            "ai.operationId" if word.contains(".do") => self.add(Fact::VercelCall),
            _ => {}
        }
    }

    /// Returns the type that Langfuse gives the span; the first match decides.
    pub(super) fn own_type(&self) -> Option<&'static str> {
        let is_tool = FactSet::of([Fact::VercelTool, Fact::ToolName]);
        let has_model = self.found.has(Fact::Model);
        match self.by_openinference.or(self.by_operation) {
            Some(found) => Some(found),
            None if self.found.has(Fact::VercelCall) && has_model => Some("generation"),
            None if self.found.has_any(is_tool) => Some("tool"),
            None => has_model.then_some("generation"),
        }
    }
}

/// The types that Langfuse knows, in lowercase only.
const TYPES: [&str; 10] = [
    "span",
    "generation",
    "event",
    "embedding",
    "agent",
    "tool",
    "chain",
    "retriever",
    "guardrail",
    "evaluator",
];

/// Returns the type of a kind; `None` if any type will do.
pub(super) fn type_of(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Speech | Kind::Transcription => Some("generation"),
        kind => TYPES.into_iter().find(|known| *known == kind.as_str()),
    }
}

pub(super) const PROMPT_VERSION: &str = "langfuse.observation.prompt.version";

// === Values ===

/// Returns an attribute's value for Langfuse: unchanged if usable, else as text or a number. Returns `None` for an attribute without a
/// value, which would make Langfuse lose the entire request after accepting it.
pub(super) fn usable<'v>(key: &str, value: &'v Value) -> Option<Cow<'v, Value>> {
    match value {
        Value::Empty => None,
        Value::Text(text) if key == PROMPT_VERSION => {
            let number = text.trim().parse().map(Value::Int);
            Some(Cow::Owned(number.unwrap_or_else(|_| value.clone())))
        }
        Value::Text(_) => Some(Cow::Borrowed(value)),
        value if is_usable(value) && !facts_of(key).has(Fact::Text) => Some(Cow::Borrowed(value)),
        value => {
            let mut text = Vec::new();
            fields::write_plain(&mut text, value);
            Some(Cow::Owned(Value::Text(String::from_utf8(text).unwrap_or_default().into())))
        }
    }
}

/// Returns whether Langfuse can use this value in any attribute. JavaScript cannot represent large numbers, JSON cannot represent infinity,
/// and Langfuse decodes neither maps nor bytes.
fn is_usable(value: &Value) -> bool {
    match value {
        Value::Text(_) | Value::Bool(_) => true,
        Value::Int(number) => is_safe(*number),
        Value::Double(number) => number.is_finite(),
        Value::Array(elements) => {
            elements.iter().all(|element| !matches!(element, Value::Array(_)) && is_usable(element))
        }
        Value::Empty | Value::Bytes(_) | Value::Map(_) => false,
    }
}

/// Returns the attributes with values that Langfuse can use.
pub(super) fn usable_ones(attributes: &[Attribute]) -> Vec<Attribute> {
    let usable = |Attribute { key, value }: &Attribute| {
        Some(Attribute { key: key.clone(), value: usable(key, value)?.into_owned() })
    };
    attributes.iter().filter_map(usable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_can_be_read() {
        for row in include_str!("reads.txt").lines().filter(|row| !row.starts_with('#')) {
            let Some((key, words)) = row.split_once(' ') else { continue };
            let is_type = key.contains('=');
            let is_known = |word| {
                if is_type { TYPES.contains(&word) } else { Fact::named(word).is_some() }
            };
            assert!(words.split(' ').all(is_known), "{row}");
        }
        assert!(facts_of("gen_ai.usage.input_tokens").has(Fact::Usage));
        assert!(!facts_of("gen_ai.usage.cost").has(Fact::Usage));
    }
}
