//! Which web pages may send from a browser: the answers to its preflight requests, and the headers on every other answer.
//!
//! The protocol is in <https://fetch.spec.whatwg.org/#http-cors-protocol>. `sendBeacon` always sends with credentials, and then a
//! literal `*` is not understood, so the origin is echoed.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HeaderMap,
    HeaderValue, ORIGIN, VARY,
};

use crate::receivers::options::CorsOptions;

/// What OpenTelemetry's web exporters and the Agents SDK send.
const HEADERS: &str = "content-type, content-encoding, authorization, x-api-key, traceparent, \
                       tracestate, baggage, openai-beta, openai-organization, openai-project";

/// Which web pages may send.
#[derive(Debug)]
pub(in crate::receivers) struct Cors {
    origins: Vec<String>,
    headers: HeaderValue,
    max_age: HeaderValue,
}

impl Cors {
    /// The rules that these options describe.
    pub(in crate::receivers) fn new(options: &CorsOptions) -> Self {
        let mut headers = HEADERS.to_owned();
        for header in &options.allowed_headers {
            headers.push_str(", ");
            headers.push_str(header);
        }
        Self {
            origins: options.allowed_origins.iter().map(|origin| origin.to_lowercase()).collect(),
            headers: HeaderValue::from_str(&headers)
                .unwrap_or_else(|_| HeaderValue::from_static(HEADERS)),
            max_age: HeaderValue::from(options.max_age.as_secs()),
        }
    }

    /// The origin of a request, if it is one that may send.
    pub(in crate::receivers) fn allowed_origin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let value = request.get(ORIGIN)?;
        let origin = value.to_str().ok()?.to_lowercase();
        let is_allowed = self.origins.iter().any(|pattern| matches(pattern, &origin));
        is_allowed.then(|| value.clone())
    }

    /// Adds what the browser needs to see before it sends.
    pub(in crate::receivers) fn preflight(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, OPTIONS"));
        // An origin that may send may also send headers of its own; a list is given to those who do not ask.
        let asked = request.get(ACCESS_CONTROL_REQUEST_HEADERS);
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(&self.headers).clone());
        answer.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
    }

    /// Adds what the browser needs to see before it shows an answer to the page.
    pub(in crate::receivers) fn admit(origin: HeaderValue, answer: &mut HeaderMap) {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        answer.append(VARY, HeaderValue::from_static("Origin"));
    }
}

/// Whether a text follows a pattern in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_follow_patterns() {
        for (pattern, text, expected) in [
            ("*", "https://app.example.com", true),
            ("https://app.example.com", "https://app.example.com", true),
            ("https://app.example.com", "https://app.example.com.evil.org", false),
            ("https://*.example.com", "https://app.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("http://localhost:*", "http://localhost:5173", true),
            ("http://*:*/x", "http://a:1/x", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
