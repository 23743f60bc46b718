//! What each backend wants: one row a backend, each taken from the backend's own documentation.
//!
//! A row only gives defaults: whatever the sink's table says goes before it.

use super::options::{Dialect, Wire};

/// A backend.
#[derive(Debug)]
pub(super) struct Preset {
    /// What `preset` says.
    pub(super) name: &'static str,
    /// The base address, to which `/v1/traces` is added; none where each customer has another.
    pub(super) endpoint: Option<&'static str>,
    /// The whole address of the traces, where it does not end like that.
    pub(super) traces_endpoint: Option<&'static str>,
    /// Where the key has to be exchanged for a token first.
    pub(super) auth_endpoint: Option<&'static str>,
    /// Where a browser shows a trace, with `{base}` for the base address and `{host}` for its host.
    pub(super) trace_url: Option<&'static str>,
    /// How it is spoken to.
    pub(super) protocol: Wire,
    /// Which attributes it reads.
    pub(super) dialect: Dialect,
    /// Headers: names, and values in which `{api_key}`, `{project}`, `{account}` and `{basic}` are filled in. One whose value has a
    /// blank that nobody filled is left out.
    pub(super) headers: &'static [(&'static str, &'static str)],
    /// Attributes for resources that do not have them, with the same blanks.
    pub(super) resource: &'static [(&'static str, &'static str)],
    /// Which of `api_key`, `project`, `account` and `endpoint` must be given, and what they are there.
    pub(super) needs: &'static [(&'static str, &'static str)],
}

/// Nothing in particular.
pub(super) const PLAIN: Preset = Preset {
    name: "",
    endpoint: None,
    traces_endpoint: None,
    auth_endpoint: None,
    trace_url: None,
    protocol: Wire::HttpProtobuf,
    dialect: Dialect::Both,
    headers: &[],
    resource: &[],
    needs: &[],
};

/// `api_key`, where one must be given.
const API_KEY: (&str, &str) = ("api_key", "the backend's API key");

/// Every backend there is a row for.
pub(super) static PRESETS: &[Preset] = &[
    // Address, path and key: https://arize.com/docs/phoenix/sdk-api-reference/python/arize-phoenix-otel and
    // https://arize-ai.github.io/phoenix/types/_arizeai_phoenix-otel.register.RegisterParams.html. JSON gets 415 (seen, 20.26).
    Preset {
        name: "phoenix",
        endpoint: Some("http://localhost:6006"),
        // https://arize.com/docs/phoenix/tracing/how-to-tracing/advanced/constructing-urls
        trace_url: Some("{base}/redirects/traces/{trace_id}"),
        dialect: Dialect::OpenInference,
        headers: &[("authorization", "Bearer {api_key}")],
        resource: &[("openinference.project.name", "{project}")],
        ..PLAIN
    },
    // Headers and project: https://arize.com/docs/ax/observe/projects.
    Preset {
        name: "arize",
        endpoint: Some("https://otlp.arize.com"),
        dialect: Dialect::OpenInference,
        headers: &[("arize-api-key", "{api_key}"), ("arize-space-id", "{account}")],
        resource: &[("openinference.project.name", "{project}")],
        needs: &[API_KEY, ("account", "the space id"), ("project", "the project's name")],
        ..PLAIN
    },
    // https://docs.wandb.ai/weave/guides/tracking/otel. It takes protobuf only.
    Preset {
        name: "weave",
        endpoint: Some("https://trace.wandb.ai/otel"),
        headers: &[("wandb-api-key", "{api_key}")],
        resource: &[("wandb.entity", "{account}"), ("wandb.project", "{project}")],
        needs: &[API_KEY, ("account", "the team or user, W&B's entity"), ("project", "its name")],
        ..PLAIN
    },
    // https://docs.langchain.com/langsmith/trace-with-opentelemetry, which also lists the attributes that it reads.
    Preset {
        name: "langsmith",
        endpoint: Some("https://api.smith.langchain.com/otel"),
        dialect: Dialect::GenAi,
        headers: &[("x-api-key", "{api_key}"), ("langsmith-project", "{project}")],
        needs: &[API_KEY],
        ..PLAIN
    },
    // https://www.braintrust.dev/docs/integrations/opentelemetry
    Preset {
        name: "braintrust",
        endpoint: Some("https://api.braintrust.dev/otel"),
        dialect: Dialect::GenAi,
        headers: &[
            ("authorization", "Bearer {api_key}"),
            ("x-bt-parent", "project_name:{project}"),
        ],
        needs: &[API_KEY, ("project", "the project's name")],
        ..PLAIN
    },
    // https://mlflow.org/docs/latest/genai/tracing/opentelemetry/ingest: from 3.6.0 on, over HTTP only.
    Preset {
        name: "mlflow",
        endpoint: Some("http://localhost:5000"),
        headers: &[("x-mlflow-experiment-id", "{project}")],
        needs: &[("project", "the experiment's id")],
        ..PLAIN
    },
    // https://logfire.pydantic.dev/docs/how-to-guides/alternative-clients: the bare token, over HTTP only.
    Preset {
        name: "logfire",
        endpoint: Some("https://logfire-us.pydantic.dev"),
        dialect: Dialect::GenAi,
        headers: &[("authorization", "{api_key}")],
        needs: &[("api_key", "the project's write token")],
        ..PLAIN
    },
    // https://docs.datadoghq.com/llm_observability/instrumentation/otel_instrumentation: GenAI from 1.37 on, protobuf over HTTP. The
    // page shows the address of the reader's site, so it has to be given.
    Preset {
        name: "datadog",
        dialect: Dialect::GenAi,
        headers: &[("dd-api-key", "{api_key}"), ("dd-otlp-source", "llmobs")],
        needs: &[API_KEY, ("endpoint", "the OTLP address of your Datadog site")],
        ..PLAIN
    },
    // https://docs.honeycomb.io/send-data/opentelemetry/
    Preset {
        name: "honeycomb",
        endpoint: Some("https://api.honeycomb.io"),
        dialect: Dialect::GenAi,
        headers: &[("x-honeycomb-team", "{api_key}")],
        needs: &[API_KEY],
        ..PLAIN
    },
    // https://grafana.com/docs/grafana-cloud/observe-and-act/send-data/otlp/send-data-otlp: each stack has its own address.
    Preset {
        name: "grafana",
        dialect: Dialect::GenAi,
        headers: &[("authorization", "Basic {basic}")],
        needs: &[
            ("endpoint", "the stack's address, https://otlp-gateway-<region>.grafana.net/otlp"),
            ("account", "the instance id"),
            ("api_key", "a token that may write traces"),
        ],
        ..PLAIN
    },
    // Jaeger 2.13 listens on 4318 and 4317 (seen), which on one machine with us would be ourselves. Its pages are at 16686 of the same
    // host, unless somebody moves them.
    Preset {
        name: "jaeger",
        dialect: Dialect::GenAi,
        trace_url: Some("http://{host}:16686/trace/{trace_id}?uiFind={span_id}"),
        needs: &[("endpoint", "Jaeger's OTLP address; 4318 is also our own port")],
        ..PLAIN
    },
    // https://respan.ai/docs/apis/observe/traces/otlp-ingest: Keywords AI is called Respan now.
    Preset {
        name: "keywordsai",
        traces_endpoint: Some("https://api.respan.ai/api/v2/traces"),
        dialect: Dialect::GenAi,
        headers: &[("authorization", "Bearer {api_key}")],
        needs: &[API_KEY],
        ..PLAIN
    },
    // Addresses: its SDK and server at https://github.com/AgentOps-AI/agentops (`agentops/config.py`, `agentops/client/api`,
    // `app/opentelemetry-collector`): a Collector that takes the project from the token.
    Preset {
        name: "agentops",
        endpoint: Some("https://otlp.agentops.ai"),
        auth_endpoint: Some("https://api.agentops.ai/v3/auth/token"),
        dialect: Dialect::GenAi,
        needs: &[API_KEY],
        ..PLAIN
    },
];
