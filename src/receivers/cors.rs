//! Decides which web pages may send from a browser.
//!
//! A browser sets `Origin` to the page of a request (<https://fetch.spec.whatwg.org/#origin-header>), and sends a plain `POST` for any page
//! without asking first. A request with an origin that is not allowed is therefore refused, whatever it is for; one without an origin does
//! not come from a browser. `tower-http` writes the headers of the protocol. `sendBeacon` always sends credentials, for which a literal `*`
//! is invalid, so the origin is echoed.

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, ORIGIN};
use regex::Regex;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::options::CorsOptions;
use super::refusal::Refusal;
use crate::rules::glob;

/// Headers that OpenTelemetry's web exporters and the Agents SDK send.
#[rustfmt::skip]
const HEADERS: [&str; 10] = [
    "content-type", "content-encoding", "authorization", "x-api-key", "traceparent", "tracestate", "baggage",
    "openai-beta", "openai-organization", "openai-project",
];

/// The web pages that may send; none by default.
#[derive(Debug, Default)]
pub(super) struct Origins {
    patterns: Vec<Regex>,
    layer: CorsLayer,
}

impl Origins {
    /// Creates the rules from the options.
    pub(super) fn new(options: &CorsOptions) -> Self {
        let own = options.allowed_headers.iter().map(String::as_str);
        let headers = HEADERS.into_iter().chain(own).filter_map(|name| name.parse().ok());
        let layer = CorsLayer::new()
            .allow_origin(AllowOrigin::mirror_request())
            .allow_credentials(true)
            .allow_methods([Method::POST])
            .allow_headers(headers.collect::<Vec<HeaderName>>())
            .max_age(options.max_age)
            .vary([ORIGIN]);
        let patterns = options.allowed_origins.iter();
        let patterns = patterns.filter_map(|origin| glob(&origin.to_lowercase()));
        Self { patterns: patterns.collect(), layer }
    }

    /// Returns the CORS layer for a request from an allowed page; `None` if it is not from a page.
    pub(super) fn admit(&self, request: &HeaderMap) -> Result<Option<&CorsLayer>, Refusal> {
        let origins = request.get_all(ORIGIN);
        if !origins.iter().all(|origin| self.allows(origin)) {
            return Err(Refusal::Origin);
        }
        Ok(request.contains_key(ORIGIN).then_some(&self.layer))
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let origin = origin.to_lowercase();
        self.patterns.iter().any(|pattern| pattern.is_match(&origin))
    }
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
            assert_eq!(glob(pattern).unwrap().is_match(text), expected, "{pattern} {text}");
        }
    }
}
