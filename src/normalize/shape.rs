//! Describes a JSON body that is not of the form that its path accepts. Names of members are shown, but never values.

/// The number of member names that are shown.
const NAMES_MAX: usize = 6;
/// The number of characters of a name that are shown.
const NAME_CHARACTERS_MAX: usize = 40;

/// What a body turned out to be.
#[derive(Debug)]
pub(super) enum BodyShape {
    /// An object without the expected member; these are its members, as far as they are shown.
    Members(Vec<String>),
    /// An object whose `data` is of this type.
    Data(&'static str),
    /// A value of this type instead of an object.
    Other(&'static str),
}

/// Other products' uploads that are posted here by mistake: a member that identifies one, and the advice to the client.
const FOREIGN: &[(&str, &str)] = &[
    ("resourceSpans", "this is OTLP/JSON: POST it to /v1/traces"),
    ("resource_spans", "this is OTLP/JSON: POST it to /v1/traces"),
    ("resourceLogs", "these are OTLP logs: POST them to /v1/logs"),
    ("resourceMetrics", "these are OTLP metrics: POST them to /v1/metrics"),
    (
        "batch",
        "this is Langfuse's ingestion API, which is not supported; use Langfuse's OpenTelemetry export",
    ),
    (
        "post",
        "this is LangSmith's run ingestion, which is not supported; use its OpenTelemetry export",
    ),
    (
        "patch",
        "this is LangSmith's run ingestion, which is not supported; use its OpenTelemetry export",
    ),
    (
        "runs",
        "this looks like LangSmith's run ingestion, which is not supported; use its OpenTelemetry export",
    ),
    (
        "traces",
        "this looks like a Datadog or LangSmith trace upload, which is not supported; use their OpenTelemetry export",
    ),
    ("events", "this looks like another product's event upload, which is not supported"),
    ("messages", "this looks like a model call: only traces are accepted here"),
    ("object", "this looks like a single item: put it into the array"),
];

/// Returns whether a name is worth keeping after this many others, because it will be shown or identifies a product.
pub(super) fn is_telling(name: &str, remembered: usize) -> bool {
    remembered < NAMES_MAX || FOREIGN.iter().any(|(member, _)| *member == name)
}

/// Builds the error message for the client.
pub(super) fn sentence(expected: &str, found: &BodyShape) -> String {
    let what = match found {
        BodyShape::Members(names) if names.is_empty() => "the object is empty".to_owned(),
        BodyShape::Members(names) => {
            let shown = names.iter().take(NAMES_MAX).map(|name| {
                let shown: String = name.chars().take(NAME_CHARACTERS_MAX).collect();
                format!("{shown:?}")
            });
            let more = if NAMES_MAX < names.len() { " and more" } else { "" };
            format!("found an object with {}{more}", shown.collect::<Vec<_>>().join(", "))
        }
        BodyShape::Data(kind) => format!("\"data\" is {kind}"),
        BodyShape::Other(kind) => format!("the body is {kind}"),
    };
    let names = if let BodyShape::Members(names) = found { names.as_slice() } else { &[] };
    let known = FOREIGN.iter().find(|(member, _)| names.iter().any(|name| name == member));
    let advice = known.map(|(_, advice)| format!(": {advice}")).unwrap_or_default();
    format!("expected {expected}, but {what}{advice}")
}
