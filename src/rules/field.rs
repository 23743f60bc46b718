//! The fields that a rule can test, and where each is found. Pure.

use crate::normalize::trace_facts;
use crate::prices::Prices;
use crate::span::{
    Attribute, Convention, Facts, Item, Kind, Payload, Receiver, STATUS_ERROR, STATUS_OK, STATUSES,
    Source, Span, Text, Usage, Value, keys, named,
};
use crate::support::number::as_f64;

named! {
    /// A fact with its own name. Attributes are selected by key.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    Fact {
        /// The sender.
        Tenant "tenant",
        /// The receiver through which it arrived.
        Receiver "receiver",
        /// `service.name` of the resource.
        Service "service",
        /// The duration.
        Duration "duration",
        /// The kind of work, one of [`Kind`].
        Kind "kind",
        /// The name that backends show; for a trace object, the workflow's name.
        Name "name",
        /// The agent's name.
        Agent "agent",
        /// The tool's name.
        Tool "tool",
        /// The requested model and the one that answered.
        Model "model",
        /// The model's provider.
        Provider "provider",
        /// The conversation or group.
        Session "session",
        /// The end user.
        User "user",
        /// The tags, each as one value.
        Tag "tag",
        /// `ok`, `error` or `unset`.
        Status "status",
        /// The total number of tokens.
        Tokens "tokens",
        /// The cost in US dollars.
        Cost "cost",
        /// Whether it concerns models, tools or agents; false for spans of HTTP, databases and the like without an attribute of such a
        /// convention.
        Llm "llm",
    }
}

/// A field that a rule can test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Fact(Fact),
    /// An attribute of the span, by its OTLP key.
    Attribute(String),
    Resource(String),
    /// Metadata of the span or of the trace object.
    Metadata(String),
}

/// Fields with keys chosen by the client.
pub(super) const KEYED: [(&str, Keyed); 3] =
    [("attribute", Field::Attribute), ("resource", Field::Resource), ("metadata", Field::Metadata)];
/// Returns the field with a key.
type Keyed = fn(String) -> Field;

/// The type of a field's values.
#[derive(Debug, Clone, Copy)]
pub(super) enum Takes {
    Text,
    Word(fn() -> Vec<&'static str>),
    Number,
    /// A length of time, in nanoseconds.
    Time,
    Flag,
    /// Any value a client may write.
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum FieldValue<'a> {
    Text(&'a str),
    Number(f64),
    Flag(bool),
    /// A value of another type.
    Other,
}

/// Information about an item that the item itself does not contain.
#[derive(Clone, Copy)]
pub(super) struct Beside<'a> {
    pub(super) source: &'a Source,
    pub(super) prices: &'a Prices,
}

/// Receives values until it returns true.
pub(super) type Visit<'v> = dyn FnMut(FieldValue<'_>) -> bool + 'v;

impl Field {
    /// Returns the field that is written as `attribute.KEY`, for example.
    pub(super) fn keyed(word: &str) -> Option<Self> {
        let (kind, key) = word.split_once('.')?;
        KEYED.into_iter().find(|(name, _)| *name == kind).map(|(_, field)| field(key.to_owned()))
    }

    pub(super) fn takes(&self) -> Takes {
        let Self::Fact(fact) = self else { return Takes::Any };
        match fact {
            Fact::Kind => Takes::Word(|| Kind::ALL.map(Kind::as_str).to_vec()),
            Fact::Status => Takes::Word(|| STATUSES.to_vec()),
            Fact::Receiver => Takes::Word(|| Receiver::ALL.map(Receiver::as_str).to_vec()),
            Fact::Duration => Takes::Time,
            Fact::Tokens | Fact::Cost => Takes::Number,
            Fact::Llm => Takes::Flag,
            _ => Takes::Text,
        }
    }

    /// Returns whether it is available without reading the contents.
    pub(super) fn is_at_hand(&self) -> bool {
        let Self::Fact(fact) = self else { return matches!(self, Self::Resource(_)) };
        matches!(fact, Fact::Tenant | Fact::Receiver | Fact::Service | Fact::Duration)
    }

    /// Returns whether `visit` accepts one of the item's values; `None` if items of this form cannot have any.
    pub(super) fn any(
        &self,
        Beside { source, prices }: Beside<'_>,
        item: &Item,
        visit: &mut Visit<'_>,
    ) -> Option<bool> {
        Some(match (self, item) {
            (Self::Fact(Fact::Tenant), _) => {
                !source.tenant.is_empty() && visit(FieldValue::Text(&source.tenant))
            }
            (Self::Fact(Fact::Receiver), _) => visit(FieldValue::Text(source.receiver.as_str())),
            (Self::Fact(Fact::Cost), Item::Span(span)) => {
                prices.cost_of(span).is_some_and(|cost| visit(FieldValue::Number(cost)))
            }
            (_, Item::Span(span)) => self.any_of_span(span, visit),
            (_, Item::Trace(trace)) => return self.any_of_trace(&trace_facts(trace), visit),
        })
    }

    fn any_of_trace(&self, facts: &Facts, visit: &mut Visit<'_>) -> Option<bool> {
        match self {
            Self::Fact(Fact::Name) => Some(is_text(facts.workflow.as_ref(), visit)),
            Self::Fact(fact @ (Fact::Session | Fact::User | Fact::Tag)) => {
                Some(fact.any_of_facts(facts, visit))
            }
            Self::Metadata(key) => Some(any_metadata(facts, key, visit)),
            _ => None,
        }
    }

    fn any_of_span(&self, span: &Span, visit: &mut Visit<'_>) -> bool {
        match self {
            Self::Fact(Fact::Service) => {
                any_attribute(&span.scope.resource.attributes, keys::SERVICE_NAME, visit)
            }
            Self::Fact(Fact::Duration) => {
                let duration_ns = span.duration_ns();
                duration_ns != 0 && visit(FieldValue::Number(as_f64(duration_ns)))
            }
            Self::Fact(Fact::Status) => visit(FieldValue::Text(status(span))),
            Self::Fact(Fact::Llm) => {
                let facts = span.facts();
                let is_plain = span.is_otlp()
                    && facts.convention == Convention::Generic
                    && facts.kind == Kind::Custom;
                visit(FieldValue::Flag(!is_plain))
            }
            Self::Fact(fact) => fact.any_of_facts(span.facts(), visit),
            Self::Attribute(key) => any_attribute(&span.detail().attributes, key, visit),
            Self::Resource(key) => any_attribute(&span.scope.resource.attributes, key, visit),
            Self::Metadata(key) => any_metadata(span.facts(), key, visit),
        }
    }
}

impl Fact {
    fn any_of_facts(self, facts: &Facts, visit: &mut Visit<'_>) -> bool {
        let mut text = |text: &Option<Text>| is_text(text.as_ref(), visit);
        match self {
            Self::Kind => visit(FieldValue::Text(facts.kind.as_str())),
            Self::Name => is_text(Some(&facts.name), visit),
            Self::Agent => text(&facts.agent),
            Self::Tool => text(&facts.tool),
            Self::Model => text(&facts.request_model) || text(&facts.response_model),
            Self::Provider => text(&facts.provider),
            Self::Session => text(&facts.session),
            Self::User => text(&facts.user),
            Self::Tag => facts.tags.iter().any(|tag| is_text(Some(tag), visit)),
            Self::Tokens => {
                tokens(facts).is_some_and(|count| visit(FieldValue::Number(as_f64(count))))
            }
            // The others are not among the facts; see `any` and `any_of_span`.
            _ => false,
        }
    }
}

fn is_text(text: Option<&Text>, visit: &mut Visit<'_>) -> bool {
    text.is_some_and(|text| !text.is_empty() && visit(FieldValue::Text(text)))
}

fn status(span: &Span) -> &'static str {
    let (head, facts) = (span.head(), span.facts());
    match head.status_code {
        code if code == STATUS_ERROR || facts.error.is_some() => "error",
        STATUS_OK => "ok",
        _ => "unset",
    }
}

/// Returns the span's own tokens; if it has none, the aggregate that it reports for the spans below it.
fn tokens(facts: &Facts) -> Option<u64> {
    let all = |usage: &Usage| {
        let parts = [usage.input, usage.output].into_iter().flatten();
        usage.total.or_else(|| parts.reduce(u64::saturating_add))
    };
    all(&facts.usage).or_else(|| all(&facts.aggregate_usage))
}

/// If attributes repeat, readers use the last one.
fn any_attribute(attributes: &[Attribute], key: &str, visit: &mut Visit<'_>) -> bool {
    Attribute::last(attributes, key).is_some_and(|value| any_value(value, visit))
}

/// Each element of a list is a value.
fn any_value(value: &Value, visit: &mut Visit<'_>) -> bool {
    match value {
        Value::Empty => false,
        Value::Text(text) => visit(FieldValue::Text(text)),
        Value::Bool(flag) => visit(FieldValue::Flag(*flag)),
        #[expect(clippy::cast_precision_loss, reason = "see `as_f64`")]
        Value::Int(number) => visit(FieldValue::Number(*number as f64)),
        Value::Double(number) => visit(FieldValue::Number(*number)),
        Value::Array(elements) => elements.iter().any(|element| match element {
            Value::Array(_) => visit(FieldValue::Other),
            plain => any_value(plain, visit),
        }),
        Value::Bytes(_) | Value::Map(_) => visit(FieldValue::Other),
    }
}

fn any_metadata(facts: &Facts, key: &str, visit: &mut Visit<'_>) -> bool {
    let found = facts.metadata.iter().rfind(|(known, _)| *known == key);
    found.is_some_and(|(_, payload)| match payload {
        Payload::Text(text) => visit(FieldValue::Text(text)),
        Payload::Json(json) => match (json.parse(), json.parse()) {
            (Ok(number), _) => visit(FieldValue::Number(number)),
            (_, Ok(flag)) => visit(FieldValue::Flag(flag)),
            _ => visit(FieldValue::Other),
        },
    })
}
