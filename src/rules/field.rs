//! The facts that a rule can ask for, and where each is found. Pure.

use crate::normalize::trace_facts;
use crate::prices::Prices;
use crate::span::{
    Attribute, Convention, Facts, Item, Kind, Payload, Receiver, STATUS_ERROR, STATUS_OK, Source,
    Span, Text, Usage, Value, keys, named,
};
use crate::support::number::as_f64;

named! {
    /// A fact with a name of its own. Attributes are asked for by their keys.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    Fact {
        /// Who sent it.
        Tenant "tenant",
        /// The receiver that it came through.
        Receiver "receiver",
        /// `service.name` of the resource.
        Service "service",
        /// How long it took.
        Duration "duration",
        /// What kind of work it is, one of [`Kind`].
        Kind "kind",
        /// The name that backends show; the workflow's for a trace object.
        Name "name",
        /// The agent.
        Agent "agent",
        /// The tool.
        Tool "tool",
        /// The model that was asked for, and the one that answered.
        Model "model",
        /// The model's provider.
        Provider "provider",
        /// The conversation or group.
        Session "session",
        /// The end user.
        User "user",
        /// Each label.
        Tag "tag",
        /// `ok`, `error` or `unset`.
        Status "status",
        /// All tokens.
        Tokens "tokens",
        /// The cost in US dollars.
        Cost "cost",
        /// Whether it has to do with models, tools or agents: anything but a span of HTTP, a database ... without an attribute of a
        /// convention for these.
        Llm "llm",
    }
}

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Fact(Fact),
    /// An attribute of the span, in the words of OTLP.
    Attribute(String),
    Resource(String),
    /// Free facts of the span or of the trace object.
    Metadata(String),
}

/// Keys of what has keys of the client's own.
pub(super) const KEYED: [&str; 3] = ["attribute", "resource", "metadata"];

/// How the values of a field are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Takes {
    Text,
    Word(fn() -> Vec<&'static str>),
    Number,
    /// A length of time, in nanoseconds.
    Time,
    Flag,
    /// Whatever a client wrote there.
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Found<'a> {
    Text(&'a str),
    Number(f64),
    Flag(bool),
    /// Something that is there and is none of these.
    Other,
}

/// What is known of an item that it does not hold.
#[derive(Clone, Copy)]
pub(super) struct Beside<'a> {
    pub(super) source: &'a Source,
    pub(super) prices: &'a Prices,
}

/// Is shown values until it says that one will do.
pub(super) type Visit<'v> = dyn FnMut(Found<'_>) -> bool + 'v;

const STATUSES: [&str; 3] = ["ok", "error", "unset"];
const RECEIVERS: [Receiver; 4] =
    [Receiver::OpenAi, Receiver::OtlpHttp, Receiver::OtlpGrpc, Receiver::Kafka];

impl Field {
    pub(super) fn takes(&self) -> Takes {
        let Self::Fact(fact) = self else { return Takes::Any };
        match fact {
            Fact::Kind => Takes::Word(|| Kind::ALL.map(Kind::as_str).to_vec()),
            Fact::Status => Takes::Word(|| STATUSES.to_vec()),
            Fact::Receiver => Takes::Word(|| RECEIVERS.map(Receiver::as_str).to_vec()),
            Fact::Duration => Takes::Time,
            Fact::Tokens | Fact::Cost => Takes::Number,
            Fact::Llm => Takes::Flag,
            _ => Takes::Text,
        }
    }

    /// Whether it is there without reading what the client wrote.
    pub(super) fn is_at_hand(&self) -> bool {
        let Self::Fact(fact) = self else { return matches!(self, Self::Resource(_)) };
        matches!(fact, Fact::Tenant | Fact::Receiver | Fact::Service | Fact::Duration)
    }

    /// Whether one of the item's values is what is asked for; `None` where items of this form cannot have any.
    pub(super) fn any(
        &self,
        Beside { source, prices }: Beside<'_>,
        item: &Item,
        visit: &mut Visit<'_>,
    ) -> Option<bool> {
        match (self, item) {
            (Self::Fact(Fact::Tenant), _) => {
                Some(!source.tenant.is_empty() && visit(Found::Text(&source.tenant)))
            }
            (Self::Fact(Fact::Receiver), _) => Some(visit(Found::Text(source.receiver.as_str()))),
            (Self::Fact(Fact::Cost), Item::Span(span)) => {
                Some(prices.cost_of(span).is_some_and(|cost| visit(Found::Number(cost))))
            }
            (_, Item::Span(span)) => Some(self.any_of_span(span, visit)),
            (_, Item::Trace(trace)) => self.any_of_trace(&trace_facts(trace), visit),
        }
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
                duration_ns != 0 && visit(Found::Number(as_f64(duration_ns)))
            }
            Self::Fact(Fact::Status) => visit(Found::Text(status(span))),
            Self::Fact(Fact::Llm) => {
                let facts = span.facts();
                let is_plain = span.is_otlp()
                    && facts.convention == Convention::Generic
                    && facts.kind == Kind::Custom;
                visit(Found::Flag(!is_plain))
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
            Self::Kind => visit(Found::Text(facts.kind.as_str())),
            Self::Name => is_text(Some(&facts.name), visit),
            Self::Agent => text(&facts.agent),
            Self::Tool => text(&facts.tool),
            Self::Model => text(&facts.request_model) || text(&facts.response_model),
            Self::Provider => text(&facts.provider),
            Self::Session => text(&facts.session),
            Self::User => text(&facts.user),
            Self::Tag => facts.tags.iter().any(|tag| is_text(Some(tag), visit)),
            Self::Tokens => tokens(facts).is_some_and(|count| visit(Found::Number(as_f64(count)))),
            // The others are not among the facts; see `any` and `any_of_span`.
            _ => false,
        }
    }
}

fn is_text(text: Option<&Text>, visit: &mut Visit<'_>) -> bool {
    text.is_some_and(|text| !text.is_empty() && visit(Found::Text(text)))
}

fn status(span: &Span) -> &'static str {
    let (head, facts) = (span.head(), span.facts());
    match head.status_code {
        code if code == STATUS_ERROR || facts.error.is_some() => "error",
        STATUS_OK => "ok",
        _ => "unset",
    }
}

/// The span's own tokens, or where it has none what it says of those below it.
fn tokens(facts: &Facts) -> Option<u64> {
    let all = |usage: &Usage| {
        let parts = [usage.input, usage.output].into_iter().flatten();
        usage.total.or_else(|| parts.reduce(u64::saturating_add))
    };
    all(&facts.usage).or_else(|| all(&facts.aggregate_usage))
}

/// Of attributes that repeat, readers take the last.
fn any_attribute(attributes: &[Attribute], key: &str, visit: &mut Visit<'_>) -> bool {
    Attribute::last(attributes, key).is_some_and(|value| any_value(value, visit))
}

/// Of a list, each element is a value.
fn any_value(value: &Value, visit: &mut Visit<'_>) -> bool {
    match value {
        Value::Empty => false,
        Value::Text(text) => visit(Found::Text(text)),
        Value::Bool(flag) => visit(Found::Flag(*flag)),
        #[expect(clippy::cast_precision_loss, reason = "see `as_f64`")]
        Value::Int(number) => visit(Found::Number(*number as f64)),
        Value::Double(number) => visit(Found::Number(*number)),
        Value::Array(elements) => elements.iter().any(|element| match element {
            Value::Array(_) => visit(Found::Other),
            plain => any_value(plain, visit),
        }),
        Value::Bytes(_) | Value::Map(_) => visit(Found::Other),
    }
}

fn any_metadata(facts: &Facts, key: &str, visit: &mut Visit<'_>) -> bool {
    let found = facts.metadata.iter().rfind(|(known, _)| *known == key);
    found.is_some_and(|(_, payload)| match payload {
        Payload::Text(text) => visit(Found::Text(text)),
        Payload::Json(json) => match (json.parse(), json.parse()) {
            (Ok(number), _) => visit(Found::Number(number)),
            (_, Ok(flag)) => visit(Found::Flag(flag)),
            _ => visit(Found::Other),
        },
    })
}
