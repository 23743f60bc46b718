//! The address at which a browser shows a trace of a sink, with placeholders for the ids of the trace and of a span. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http::Address;
use crate::span::{SpanId, TraceId};

const TRACE: &str = "{trace_id}";
const SPAN: &str = "{span_id}";

// These do not quote the text, because it may contain a credential.
const NO_TRACE: &str = "an address without `{trace_id}`; write for example \"http://localhost:16686/trace/{trace_id}\"";
const NO_ADDRESS: &str =
    "not an address that begins with http:// or https:// and holds no credentials";

/// The address of any trace: `https://jaeger.example.com/trace/{trace_id}?uiFind={span_id}`. It is http or https and holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct TraceUrl(String);

impl TraceUrl {
    /// Returns the address of a trace, or of one of its spans if the address has a placeholder for it.
    pub fn of(&self, trace: TraceId, span: Option<SpanId>) -> String {
        let span = span.map(|span| span.to_string()).unwrap_or_default();
        self.0.replace(TRACE, &trace.to_string()).replace(SPAN, &span)
    }

    /// Appends a path to a backend's address. Its query is dropped, because it may contain a key.
    pub(super) fn below(base: &str, path: &str) -> Option<Self> {
        let base = base.split('?').next().unwrap_or_default().trim_end_matches('/');
        format!("{base}{path}").try_into().ok()
    }
}

impl TryFrom<String> for TraceUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if !text.contains(TRACE) {
            return Err(NO_TRACE);
        }
        let filled = Address::from(text.replace(TRACE, "0").replace(SPAN, ""));
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if filled.uri().is_some() && is_plain { Ok(Self(text)) } else { Err(NO_ADDRESS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_a_trace_and_to_a_span_where_it_has_a_place_for_one() {
        let trace = TraceId::new([0xab; 16]).unwrap();
        let span = SpanId::new([0xcd; 8]).unwrap();
        let of = |text: &str, span| TraceUrl::try_from(text.to_owned()).unwrap().of(trace, span);
        let (jaeger, ab) = ("http://j:16686/trace/{trace_id}?uiFind={span_id}", "ab".repeat(16));
        let cd = "cd".repeat(8);
        assert_eq!(of(jaeger, Some(span)), format!("http://j:16686/trace/{ab}?uiFind={cd}"));
        assert_eq!(of(jaeger, None), format!("http://j:16686/trace/{ab}?uiFind="));
        let kibana = "https://k/app/discover#/?_a=(query:(query:'trace_id:{trace_id}'))";
        assert_eq!(of(kibana, Some(span)), kibana.replace("{trace_id}", &ab));
        let below =
            |base| TraceUrl::below(base, "/trace/{trace_id}").map(|url| url.of(trace, None));
        assert_eq!(below("https://l/base/?key=hush"), Some(format!("https://l/base/trace/{ab}")));
        assert_eq!(below("https://me:hush@l"), None);
    }

    #[test]
    fn what_is_no_harmless_address_of_a_trace_is_refused() {
        for text in [
            "https://a/traces",
            "javascript:alert('{trace_id}')//",
            "data:text/html,{trace_id}",
            "ftp://a/{trace_id}",
            "https://me:hush@a/{trace_id}",
            "https://a/ {trace_id}",
            "https://a/\u{202e}{trace_id}",
            "/traces/{trace_id}",
        ] {
            let refused = TraceUrl::try_from(text.to_owned()).unwrap_err();
            assert!(!refused.contains("hush"), "{text}");
        }
    }
}
