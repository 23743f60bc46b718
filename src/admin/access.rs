//! Access to metrics and commands.
//!
//! | | without admin tokens or client certificates | with them |
//! |---|---|---|
//! | health, readiness | everyone | everyone |
//! | `/metrics`, `/status` | everyone; only this machine, if no other can reach the port | authenticated callers, or everyone with `read_without_token` |
//! | commands, contents of traces | this machine | authenticated callers, from anywhere |
//! | the console's files | this machine, if no other can reach the port | everyone; what it shows comes from metrics and commands |
//!
//! Authenticated callers have one of the tokens (`Authorization: Bearer`), or a certificate signed by an authority of `[admin.tls]`.
//!
//! Every page in a browser on the same machine can reach a port on loopback. So, without a token, a command is accepted only if its `Host`
//! is an address or `localhost`: a page whose name was rebound to 127.0.0.1 has another. A command is never accepted with the `Origin` of
//! another site, and only as a POST of `application/json`, which a page cannot send to another origin without a preflight, which is never
//! answered. Commands that change nothing are also available as GET. A page of another origin cannot read the answer; if its browser
//! identifies it (`Sec-Fetch-Site`), it gets none, so that it learns nothing from timing either.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};

use crate::server::{Peer, Tls, bearer, header_text};
use crate::support::lock::lock;
use crate::support::secret::Secret;
use crate::support::sha256::{self, Hash};

/// The challenge for callers that are not authenticated.
pub(super) const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Bearer realm=\"spanferry admin\"");

/// How a browser describes the relation of the requesting page to the address.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is denied, with its status.
#[derive(Debug)]
pub(super) struct Denied(pub(super) StatusCode, pub(super) String);

/// The current policy. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub struct Access(Arc<Mutex<Arc<Policy>>>);

/// Who may read metrics and give commands.
#[derive(Debug, Default)]
pub struct Policy {
    /// Hashes, so that the time of a comparison reveals nothing about a token.
    tokens: Vec<Hash>,
    /// Whether TLS verifies client certificates, which count like a token.
    pub knows_certificates: bool,
    /// Whether metrics are public.
    pub read_without_token: bool,
    /// Whether other machines can reach the port.
    pub is_exposed: bool,
    /// Encryption of connections to a port.
    pub tls: Option<Tls>,
}

impl Access {
    /// Replaces the policy.
    pub fn set(&self, rules: Policy) {
        *lock(&self.0) = Arc::new(rules);
    }

    pub(super) fn now(&self) -> Arc<Policy> {
        Arc::clone(&lock(&self.0))
    }
}

impl Policy {
    /// Creates a policy with these tokens.
    pub fn new(tokens: &[Secret]) -> Self {
        let tokens = tokens.iter().map(|token| sha256::of(token.reveal().as_bytes())).collect();
        Self { tokens, ..Self::default() }
    }

    /// Checks access to metrics.
    pub(super) fn may_look(&self, peer: Option<&Peer>, headers: &HeaderMap) -> Result<(), Denied> {
        let is_public = self.read_without_token || self.is_exposed && !self.asks();
        if is_public { Ok(()) } else { self.admit(peer, headers) }
    }

    /// Checks whether a command is allowed.
    pub(super) fn may_command(
        &self,
        peer: Option<&Peer>,
        headers: &HeaderMap,
    ) -> Result<(), Denied> {
        self.may_ask(peer, headers)?;
        let kind = header_text(headers, header::CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let is_json = kind.eq_ignore_ascii_case("application/json");
        let denied = |why: &str| Err(Denied(StatusCode::UNSUPPORTED_MEDIA_TYPE, why.to_owned()));
        if is_json { Ok(()) } else { denied("commands must be sent as application/json") }
    }

    /// Checks access to the contents of traces, which changes nothing.
    pub(super) fn may_ask(&self, peer: Option<&Peer>, headers: &HeaderMap) -> Result<(), Denied> {
        let text = |name| header_text(headers, name);
        let host = text(header::HOST).unwrap_or_default();
        self.admit(peer, headers)?;
        // The scheme is ignored, because a proxy that terminates TLS leaves the host unchanged.
        let is_other = |origin: &str| origin.split_once("://").is_none_or(|(_, it)| it != host);
        let is_foreign = |site: &str| site != "same-origin" && site != "none";
        if text(header::ORIGIN).is_some_and(is_other) || text(FETCH_SITE).is_some_and(is_foreign) {
            let why = "requests from pages of another origin are refused".to_owned();
            return Err(Denied(StatusCode::FORBIDDEN, why));
        }
        Ok(())
    }

    /// Checks access to the console. Its files are public, but a page that cannot send requests is useless.
    pub(super) fn may_open(&self, peer: Option<&Peer>, headers: &HeaderMap) -> Result<(), Denied> {
        if self.is_exposed && !self.asks() {
            let why = "other machines can reach this port (admin.listen) without authentication: set admin.tokens, or listen on 127.0.0.1";
            return Err(Denied(StatusCode::FORBIDDEN, why.to_owned()));
        }
        self.may_stand_here(peer, headers)
    }

    /// Admits authenticated callers; without authentication, those that may stand here.
    fn admit(&self, peer: Option<&Peer>, headers: &HeaderMap) -> Result<(), Denied> {
        if self.asks() && !self.is_known(peer, headers) {
            let why = "send one of admin.tokens as Authorization: Bearer";
            return Err(Denied(StatusCode::UNAUTHORIZED, why.to_owned()));
        }
        self.may_stand_here(peer, headers)
    }

    /// Without authentication, admits only callers on this machine, and no page whose name was rebound to it.
    fn may_stand_here(&self, peer: Option<&Peer>, headers: &HeaderMap) -> Result<(), Denied> {
        let host = header_text(headers, header::HOST);
        let is_socket = peer.is_some_and(|peer| peer.address.is_none());
        let why = if self.asks() || is_socket {
            return Ok(());
        } else if !peer.is_some_and(Peer::is_local) {
            "only requests from this machine, or with one of admin.tokens, are answered"
        } else if !is_address(host.unwrap_or_default()) {
            "the Host is neither an IP address nor localhost, so the request may come from a web page: send one of admin.tokens"
        } else {
            return Ok(());
        };
        Err(Denied(StatusCode::FORBIDDEN, why.to_owned()))
    }

    /// Returns whether callers must authenticate.
    fn asks(&self) -> bool {
        self.knows_certificates || !self.tokens.is_empty()
    }

    fn is_known(&self, peer: Option<&Peer>, headers: &HeaderMap) -> bool {
        bearer(headers).is_some_and(|token| self.tokens.contains(&sha256::of(token.as_bytes())))
            || peer.is_some_and(|peer| peer.certificate.is_some())
    }
}

/// Sets the `Host` header, where HTTP/1.1 has the host; HTTP/2 has it in the address.
pub(super) fn with_host<B>(mut request: Request<B>) -> Request<B> {
    let host = request.uri().authority().and_then(|host| host.as_str().parse().ok());
    if let Some(host) = host.filter(|_| !request.headers().contains_key(header::HOST)) {
        request.headers_mut().insert(header::HOST, host);
    }
    request
}

/// Returns whether a `Host` is an address or `localhost`, with or without a port.
fn is_address(host: &str) -> bool {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
    const HOST: (&str, &str) = ("host", "127.0.0.1:13133");

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn status(outcome: Result<(), Denied>) -> u16 {
        outcome.map_or_else(|Denied(status, _)| status.as_u16(), |()| 200)
    }

    fn from(address: &str) -> Peer {
        Peer { address: address.parse().ok(), ..Peer::default() }
    }

    #[test]
    fn commands_are_taken_from_this_machine_and_never_from_a_page() {
        let access = Policy::default();
        let (socket, named) = ("", ("host", "spanferry"));
        for (peer, pairs, expected) in [
            ("127.0.0.1:5", vec![HOST, JSON], 200),
            ("[::1]:5", vec![("host", "[::1]:13133"), JSON], 200),
            ("[::ffff:127.0.0.1]:5", vec![("host", "localhost"), JSON], 200),
            ("127.0.0.1:5", vec![HOST, JSON, ("origin", "http://127.0.0.1:13133")], 200),
            (socket, vec![named, JSON], 200),
            (socket, vec![JSON], 200),
            ("10.0.0.9:5", vec![HOST, JSON], 403),
            ("127.0.0.1:5", vec![("host", "rebound.example:13133"), JSON], 403),
            ("127.0.0.1:5", vec![("host", "localhost.example"), JSON], 403),
            ("127.0.0.1:5", vec![JSON], 403),
            ("127.0.0.1:5", vec![HOST, JSON, ("origin", "https://page.example")], 403),
            ("127.0.0.1:5", vec![HOST, JSON, ("origin", "https://127.0.0.1:13133")], 200),
            ("127.0.0.1:5", vec![HOST, JSON, ("origin", "http://127.0.0.1:8080")], 403),
            ("127.0.0.1:5", vec![HOST, JSON, ("origin", "null")], 403),
            (socket, vec![named, JSON, ("origin", "null")], 403),
            ("127.0.0.1:5", vec![HOST], 415),
            ("127.0.0.1:5", vec![HOST, ("content-type", "text/plain")], 415),
            ("127.0.0.1:5", vec![HOST, JSON, ("sec-fetch-site", "same-origin")], 200),
            ("127.0.0.1:5", vec![HOST, JSON, ("sec-fetch-site", "cross-site")], 403),
            ("127.0.0.1:5", vec![HOST, JSON, ("sec-fetch-site", "same-site")], 403),
        ] {
            let (peer, headers) = (from(peer), headers(&pairs));
            let outcome = access.may_command(Some(&peer), &headers);
            assert_eq!(status(outcome), expected, "{peer:?} {pairs:?}");
            // A query that changes nothing needs no content type.
            let may_ask = if expected == 415 { 200 } else { expected };
            assert_eq!(status(access.may_ask(Some(&peer), &headers)), may_ask, "{pairs:?}");
        }
        assert_eq!(status(access.may_command(None, &headers(&[HOST, JSON]))), 403);
    }

    #[test]
    fn figures_are_for_everybody_who_is_meant_to_reach_the_port_and_not_for_a_rebound_name() {
        let exposed = || Policy { is_exposed: true, ..Policy::default() };
        let named = ("host", "rebound.example:13133");
        for (policy, peer, pairs, expected) in [
            (Policy::default(), "127.0.0.1:5", vec![HOST], 200),
            (Policy::default(), "", vec![named], 200),
            (Policy::default(), "127.0.0.1:5", vec![named], 403),
            (exposed(), "127.0.0.1:5", vec![named], 200),
            (exposed(), "10.0.0.9:5", vec![named], 200),
        ] {
            let outcome = policy.may_look(Some(&from(peer)), &headers(&pairs));
            assert_eq!(status(outcome), expected, "{policy:?} {peer} {pairs:?}");
        }
    }

    #[test]
    fn the_console_is_shown_on_this_machine_and_off_where_others_reach_it_and_nobody_is_asked() {
        let token = || Policy::new(&[Secret::from("one".to_owned())]);
        let exposed = |policy| Policy { is_exposed: true, ..policy };
        let named = ("host", "rebound.example:13133");
        for (policy, peer, pairs, expected) in [
            (Policy::default(), "127.0.0.1:5", vec![HOST], 200),
            (Policy::default(), "127.0.0.1:5", vec![named], 403),
            (Policy::default(), "10.0.0.9:5", vec![HOST], 403),
            (exposed(Policy::default()), "127.0.0.1:5", vec![HOST], 403),
            (exposed(token()), "10.0.0.9:5", vec![named], 200),
        ] {
            let outcome = policy.may_open(Some(&from(peer)), &headers(&pairs));
            assert_eq!(status(outcome), expected, "{policy:?} {peer} {pairs:?}");
        }
    }

    #[test]
    fn a_host_that_is_said_as_http2_says_it_is_as_good() {
        for (address, expected) in [
            ("https://127.0.0.1:13133/api/v1/reload", 200),
            ("https://rebound.example:13133/api/v1/reload", 403),
            ("/api/v1/reload", 403),
        ] {
            let request = Request::post(address).header("content-type", "application/json");
            let request = request.header("origin", "https://127.0.0.1:13133");
            let request = with_host(request.body(()).unwrap());
            let peer = Peer { is_encrypted: true, ..from("127.0.0.1:5") };
            let outcome = Policy::default().may_command(Some(&peer), request.headers());
            assert_eq!(status(outcome), expected, "{address}");
        }
        let said = Request::get("http://evil.example/").header("host", "127.0.0.1").body(());
        assert_eq!(with_host(said.unwrap()).headers()["host"], "127.0.0.1");
    }

    #[test]
    fn with_tokens_who_has_one_may_command_from_anywhere_and_nobody_else() {
        let tokens = ["one", "two"].map(|token| Secret::from(token.to_owned()));
        let access = Policy::new(&tokens);
        let named = ("host", "spanferry.example:13133");
        let known = ("authorization", "Bearer two");
        for (peer, pairs, expected) in [
            ("10.0.0.9:5", vec![named, JSON, known], 200),
            ("127.0.0.1:5", vec![HOST, JSON, ("authorization", "bearer  one ")], 200),
            ("127.0.0.1:5", vec![HOST, JSON], 401),
            ("", vec![HOST, JSON], 401),
            ("127.0.0.1:5", vec![HOST, JSON, ("authorization", "Bearer tw")], 401),
            ("127.0.0.1:5", vec![HOST, JSON, ("authorization", "Basic two")], 401),
            ("10.0.0.9:5", vec![named, JSON, known, ("origin", "https://page.example")], 403),
            ("10.0.0.9:5", vec![named, known], 415),
        ] {
            let (peer, headers) = (from(peer), headers(&pairs));
            assert_eq!(status(access.may_command(Some(&peer), &headers)), expected, "{pairs:?}");
            let may_look = if expected == 401 { 401 } else { 200 };
            assert_eq!(status(access.may_look(Some(&peer), &headers)), may_look, "{pairs:?}");
        }
        let open = Policy { read_without_token: true, ..Policy::new(&tokens) };
        assert_eq!(status(open.may_look(None, &HeaderMap::new())), 200);
        assert_eq!(
            status(open.may_command(Some(&from("127.0.0.1:5")), &headers(&[HOST, JSON]))),
            401
        );
    }

    #[test]
    fn a_certificate_is_as_good_as_a_token() {
        let access = Policy { knows_certificates: true, ..Policy::default() };
        let far = from("10.0.0.9:5");
        let shown =
            Peer { certificate: Some("operator".into()), is_encrypted: true, ..far.clone() };
        let pairs = headers(&[("host", "a.example"), JSON]);
        assert_eq!(status(access.may_command(Some(&far), &pairs)), 401);
        assert_eq!(status(access.may_look(Some(&far), &pairs)), 401);
        assert_eq!(status(access.may_command(Some(&shown), &pairs)), 200);
        assert_eq!(status(access.may_look(Some(&shown), &pairs)), 200);
    }
}
