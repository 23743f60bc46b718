//! Who serves a model, in the spelling of OpenTelemetry GenAI.

use crate::span::Text;

/// Old names, and those of other conventions.
const RENAMED: [(&str, &str); 24] = [
    ("az.ai.openai", "azure.ai.openai"),
    ("azure", "azure.ai.openai"),
    ("azure-openai", "azure.ai.openai"),
    ("azure_openai", "azure.ai.openai"),
    ("az.ai.inference", "azure.ai.inference"),
    ("vertex_ai", "gcp.vertex_ai"),
    ("vertexai", "gcp.vertex_ai"),
    ("google.vertex", "gcp.vertex_ai"),
    ("google_vertexai", "gcp.vertex_ai"),
    ("gemini", "gcp.gemini"),
    ("google.generative-ai", "gcp.gemini"),
    ("google_genai", "gcp.gemini"),
    ("xai", "x_ai"),
    ("mistral", "mistral_ai"),
    ("mistralai", "mistral_ai"),
    ("amazon-bedrock", "aws.bedrock"),
    ("amazon_bedrock", "aws.bedrock"),
    ("bedrock", "aws.bedrock"),
    ("bedrock_converse", "aws.bedrock"),
    ("azure.openai", "azure.ai.openai"),
    ("az.ai.agents", "azure.ai.agents"),
    ("googleai", "gcp.gemini"),
    ("google", "gcp.gemini"),
    ("grok", "x_ai"),
];

/// Frameworks that put their own name where the provider's belongs.
const FRAMEWORKS: [&str; 20] = [
    "langchain",
    "langgraph",
    "strands-agents",
    "gcp.vertex.agent",
    "crewai",
    "microsoft.agent_framework",
    "spring_ai",
    "haystack",
    "llamaindex",
    "llama_index",
    "litellm",
    "pydantic_ai",
    "openlit",
    "semantic_kernel",
    "autogen",
    "mastra",
    "agno",
    "dspy",
    "unknown",
    "none",
];

/// What Vercel puts behind the provider: the API it speaks.
const APIS: [&str; 9] = [
    "chat",
    "responses",
    "completion",
    "embedding",
    "messages",
    "image",
    "speech",
    "transcription",
    "textEmbedding",
];

/// The provider's name; `None` for a framework that is none.
pub(super) fn normalized(name: &Text) -> Option<Text> {
    let provider = match name.rsplit_once('.') {
        Some((provider, api)) if APIS.contains(&api) => name.slice_ref(provider),
        _ => name.clone(),
    };
    if FRAMEWORKS.iter().any(|framework| provider.eq_ignore_ascii_case(framework)) {
        return None;
    }
    let renamed = RENAMED.iter().find(|(old, _)| provider.eq_ignore_ascii_case(old));
    match renamed {
        Some((_, new)) => Some(Text::from_static(new)),
        None if provider.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            Some(Text::from(provider.to_ascii_lowercase()))
        }
        None => Some(provider),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_foreign_names_become_the_new_ones() {
        for (name, expected) in [
            ("openai", Some("openai")),
            ("OpenAI", Some("openai")),
            ("openai.responses", Some("openai")),
            ("az.ai.openai", Some("azure.ai.openai")),
            ("azure.chat", Some("azure.ai.openai")),
            ("google.generative-ai", Some("gcp.gemini")),
            ("vertex_ai", Some("gcp.vertex_ai")),
            ("xai", Some("x_ai")),
            ("x_ai", Some("x_ai")),
            ("langchain", None),
        ] {
            assert_eq!(normalized(&Text::from_static(name)).as_deref(), expected, "{name}");
        }
    }
}
