//! Normalizes the names of model providers to the spelling of OpenTelemetry GenAI.

use std::sync::LazyLock;

use crate::normalize::tables;
use crate::span::Text;

/// Suffixes of providers: the API that was called.
static APIS: LazyLock<Vec<(&str, ())>> =
    LazyLock::new(|| tables::beginnings("apis", |_| Some(())).collect());

/// Returns the provider's normalized name; `None` for a framework's name.
pub(in crate::normalize) fn normalized(name: &Text) -> Option<Text> {
    let provider = match name.rsplit_once('.') {
        Some((provider, api)) if APIS.contains(&(api, ())) => name.slice_ref(provider),
        _ => name.clone(),
    };
    let lowercase = provider.to_ascii_lowercase();
    match tables::PROVIDERS.get(&lowercase) {
        Some(&"none") => None,
        Some(name) => Some(Text::from_static(name)),
        None if *provider == *lowercase => Some(provider),
        None => Some(Text::from(lowercase)),
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
            ("Strands-Agents", None),
            ("bedrock_converse", Some("aws.bedrock")),
            ("AWS", Some("aws.bedrock")),
        ] {
            assert_eq!(normalized(&Text::from_static(name)).as_deref(), expected, "{name}");
        }
    }
}
