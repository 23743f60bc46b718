//! What to say of a body that is JSON but not what its path takes. Names of members are shown, values never.

/// How many member names are shown.
const NAMES_MAX: usize = 6;
/// How many characters of a name are shown.
const NAME_CHARACTERS_MAX: usize = 40;

/// What a body turned out to be.
#[derive(Debug)]
pub(super) enum Found {
    /// An object without what it should have; these are its members, as far as they are to be shown.
    Members(Vec<String>),
    /// `data` is there, but it is this.
    Data(&'static str),
    /// No object, but this.
    Other(&'static str),
}

/// Products whose bodies are posted to such paths: a member that gives them away, and what to say.
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

/// Whether a name is worth being remembered after this many others: it will be shown, or gives a product away.
pub(super) fn is_telling(name: &str, remembered: usize) -> bool {
    remembered < NAMES_MAX || FOREIGN.iter().any(|(member, _)| *member == name)
}

/// The sentence for the client, who should have sent this.
pub(super) fn sentence(expected: &str, found: &Found) -> String {
    let what = match found {
        Found::Members(names) if names.is_empty() => "the object is empty".to_owned(),
        Found::Members(names) => {
            let shown = names.iter().take(NAMES_MAX).map(|name| {
                let shown: String = name.chars().take(NAME_CHARACTERS_MAX).collect();
                format!("{shown:?}")
            });
            let more = if NAMES_MAX < names.len() { " and more" } else { "" };
            format!("found an object with {}{more}", shown.collect::<Vec<_>>().join(", "))
        }
        Found::Data(kind) => format!("\"data\" is {kind}"),
        Found::Other(kind) => format!("the body is {kind}"),
    };
    let names = if let Found::Members(names) = found { names.as_slice() } else { &[] };
    let known = FOREIGN.iter().find(|(member, _)| names.iter().any(|name| name == member));
    let advice = known.map(|(_, advice)| format!(": {advice}")).unwrap_or_default();
    format!("expected {expected}, but {what}{advice}")
}
