//! Authentication: keys from the usual headers, looked up among the tokens by their hashes, and certificates.
//!
//! | certificates | tokens | accepted clients | tenant |
//! |---|---|---|---|
//! | none | none | all | none |
//! | none | some | those with a token | the token's |
//! | required | none | those with a certificate from an authority of `client_ca` | the certificate's |
//! | required | some | those with both | the token's |
//! | optional | none | all | the certificate's, if any |
//! | optional | some | those with either | the token's, else the certificate's |

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName};

use super::options::{ReceiverOptions, TokenOptions};
use super::refusal::Refusal;
use crate::server::{TlsOptions, bearer};
use crate::support::base64;
use crate::support::keyring::Keyring;
use crate::support::sha256::{self, Hash, fingerprint};

/// Headers that may contain a key, in order of precedence. gRPC metadata has the same names.
static KEY_HEADERS: [HeaderName; 3] =
    [AUTHORIZATION, HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];

/// The accepted keys.
#[derive(Debug)]
pub(super) struct Auth {
    /// Tenants by the hashes of their tokens. How far a hash matches reveals nothing about the token.
    tenants: HashMap<Hash, String>,
    /// Whether clients with a certificate need a token too.
    needs_both: bool,
    /// The store of callers' keys, if a sink uses them.
    keys: Option<Arc<Keyring>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Identity {
    /// The tenant of the token; empty without tokens.
    pub(super) tenant: String,
    /// First 16 hexadecimal digits of the SHA-256 of the key; empty without a key.
    pub(super) key_fingerprint: String,
}

impl Auth {
    /// Creates the authentication for these options.
    pub(super) fn new(options: &ReceiverOptions, keys: Option<Arc<Keyring>>) -> Self {
        let hash = |token: &TokenOptions| sha256::of(token.token.reveal().as_bytes());
        let tenants = options.tokens.iter().map(|token| (hash(token), token.tenant.clone()));
        let needs_both = options.tls.as_ref().is_some_and(TlsOptions::is_mutual);
        Self { tenants: tenants.collect(), needs_both, keys }
    }

    /// Identifies the sender, or refuses the request. `certificate` is the name in the certificate of the connection.
    pub(super) fn identify(
        &self,
        headers: &HeaderMap,
        certificate: Option<&str>,
    ) -> Result<Identity, Refusal> {
        let keys = KEY_HEADERS.iter().filter_map(|name| headers.get(name));
        let hashes: Vec<Hash> = keys.map(|value| sha256::of(&key_in(value.as_bytes()))).collect();
        let known = hashes.iter().find_map(|hash| Some((self.tenants.get(hash)?, hash)));
        let (tenant, hash) = match known {
            Some((tenant, hash)) => (tenant.clone(), Some(hash)),
            None if self.tenants.is_empty() || (certificate.is_some() && !self.needs_both) => {
                (certificate.unwrap_or_default().to_owned(), hashes.first())
            }
            None => return Err(Refusal::Unauthenticated),
        };
        let key_fingerprint = hash.map(|hash| fingerprint(*hash)).unwrap_or_default();
        Ok(Identity { tenant, key_fingerprint })
    }

    /// Keeps the key of a request in memory, if a sink uses callers' keys: only a bearer key, and only the one that identifies the caller.
    /// If there are tokens, it must look like an OpenAI key, because other tokens must not be passed on.
    pub(super) fn remember(&self, headers: &HeaderMap, identity: &Identity) {
        let Some(keyring) = &self.keys else { return };
        let Some(key) = bearer(headers).filter(|key| !key.is_empty()) else { return };
        let may_be_openais = self.tenants.is_empty() || key.starts_with(OPENAI_KEY_PREFIX);
        let is_callers = || fingerprint(sha256::of(key.as_bytes())) == identity.key_fingerprint;
        if may_be_openais && is_callers() {
            keyring.remember(&identity.key_fingerprint, key);
        }
    }
}

const OPENAI_KEY_PREFIX: &str = "sk-";

/// Extracts the key: without `Bearer`, and as `user:password` for `Basic`.
fn key_in(value: &[u8]) -> Cow<'_, [u8]> {
    let space = value.iter().position(|byte| *byte == b' ');
    let Some((scheme, rest)) = space.and_then(|space| value.split_at_checked(space)) else {
        return Cow::Borrowed(value);
    };
    let key = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Cow::Borrowed(key);
    }
    let basic = || base64::read(std::str::from_utf8(key).ok()?);
    match scheme.eq_ignore_ascii_case(b"basic").then(basic).flatten() {
        Some(decoded) => Cow::Owned(decoded),
        None => Cow::Borrowed(value),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;
    use crate::server::ClientAuth;
    use crate::support::secret::Secret;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn tokens(keys: Option<Arc<Keyring>>) -> Auth {
        let token = |token: &str, tenant: &str| TokenOptions {
            token: token.to_owned().into(),
            tenant: tenant.to_owned(),
        };
        let tokens = vec![token("sk-one", "one"), token("pk:sk", "two")];
        Auth::new(&ReceiverOptions { tokens, ..ReceiverOptions::default() }, keys)
    }

    fn open(keys: Option<Arc<Keyring>>) -> Auth {
        Auth::new(&ReceiverOptions::default(), keys)
    }

    #[test]
    fn a_known_key_is_let_in_from_every_header_that_carries_keys() {
        for (pairs, tenant) in [
            (headers(&[("authorization", "Bearer sk-one")]), "one"),
            (headers(&[("authorization", "bearer  sk-one")]), "one"),
            (headers(&[("authorization", "Basic cGs6c2s=")]), "two"),
            (headers(&[("x-api-key", "sk-one")]), "one"),
            (headers(&[("api-key", "sk-one")]), "one"),
            (headers(&[("authorization", "Bearer other"), ("api-key", "pk:sk")]), "two"),
        ] {
            assert_eq!(tokens(None).identify(&pairs, None).unwrap().tenant, tenant, "{pairs:?}");
        }
    }

    #[test]
    fn no_key_or_an_unknown_one_is_turned_away() {
        for pairs in [
            headers(&[]),
            headers(&[("authorization", "Bearer sk-on")]),
            headers(&[("authorization", "Bearer sk-one2")]),
            headers(&[("authorization", "Digest sk-one")]),
            headers(&[("authorization", "Basic %%%")]),
        ] {
            assert_eq!(
                tokens(None).identify(&pairs, None),
                Err(Refusal::Unauthenticated),
                "{pairs:?}"
            );
        }
    }

    #[test]
    fn only_the_bearer_key_that_a_caller_is_known_by_is_kept() {
        for (pairs, kept) in [
            (headers(&[("authorization", "Bearer sk-1")]), Some("sk-1")),
            (headers(&[("authorization", "bearer  sk-1 ")]), Some("sk-1")),
            (headers(&[("authorization", "Basic cGs6c2s=")]), None),
            (headers(&[("authorization", "Bearer ")]), None),
            (headers(&[("x-api-key", "sk-1")]), None),
            (headers(&[]), None),
        ] {
            let keyring = Arc::new(Keyring::default());
            let auth = open(Some(Arc::clone(&keyring)));
            let identity = auth.identify(&pairs, None).unwrap();
            auth.remember(&pairs, &identity);
            let found = keyring.get(&identity.key_fingerprint);
            assert_eq!(found.as_ref().map(Secret::reveal), kept, "{pairs:?}");
        }
        for (pairs, kept) in [
            (headers(&[("authorization", "Bearer sk-one")]), Some("sk-one")),
            (headers(&[("authorization", "Bearer pk:sk")]), None),
            (headers(&[("authorization", "Bearer sk-own"), ("api-key", "pk:sk")]), None),
        ] {
            let keyring = Arc::new(Keyring::default());
            let auth = tokens(Some(Arc::clone(&keyring)));
            let identity = auth.identify(&pairs, None).unwrap();
            auth.remember(&pairs, &identity);
            let found = keyring.get(&identity.key_fingerprint);
            assert_eq!(found.as_ref().map(Secret::reveal), kept, "{pairs:?}");
        }
    }

    #[test]
    fn without_tokens_everybody_comes_in_and_leaves_a_fingerprint() {
        let auth = open(None);
        assert_eq!(auth.identify(&headers(&[]), None).unwrap(), Identity::default());
        let identity = auth.identify(&headers(&[("authorization", "Bearer abc")]), None).unwrap();
        // The start of SHA-256("abc") as in FIPS 180-2, appendix B.1.
        assert_eq!(identity.key_fingerprint, "ba7816bf8f01cfea");
    }
    #[test]
    fn certificates_and_tokens_let_in_as_the_table_says() {
        let (key, wrong) =
            (headers(&[("x-api-key", "sk-one")]), headers(&[("x-api-key", "sk-own")]));
        for (client_auth, has_tokens, certificate, headers, tenant) in [
            (ClientAuth::Required, false, Some("cn"), &wrong, Some("cn")),
            (ClientAuth::Required, true, Some("cn"), &key, Some("one")),
            (ClientAuth::Required, true, Some("cn"), &wrong, None),
            (ClientAuth::Optional, false, Some("cn"), &wrong, Some("cn")),
            (ClientAuth::Optional, false, None, &wrong, Some("")),
            (ClientAuth::Optional, true, Some("cn"), &key, Some("one")),
            (ClientAuth::Optional, true, Some("cn"), &wrong, Some("cn")),
            (ClientAuth::Optional, true, None, &key, Some("one")),
            (ClientAuth::Optional, true, None, &wrong, None),
        ] {
            let client_ca = Some(String::new());
            let (cert, key) = (String::new(), Secret::from(String::new()));
            let tls = TlsOptions { cert, key, client_ca, client_auth: Some(client_auth) };
            let token =
                TokenOptions { token: "sk-one".to_owned().into(), tenant: "one".to_owned() };
            let tokens = if has_tokens { vec![token] } else { Vec::new() };
            let options = ReceiverOptions { tls: Some(tls), tokens, ..ReceiverOptions::default() };
            let identity = Auth::new(&options, None).identify(headers, certificate).ok();
            let found = identity.as_ref().map(|identity| identity.tenant.as_str());
            assert_eq!(found, tenant, "{client_auth:?} {has_tokens} {certificate:?}");
            let is_by_certificate = tenant == Some("cn") || tenant == Some("");
            let fingerprint = identity.map(|identity| identity.key_fingerprint);
            let own = sha256::fingerprint(sha256::of(b"sk-own"));
            assert_eq!(
                fingerprint == Some(own),
                is_by_certificate,
                "the caller's own key is kept apart"
            );
        }
    }
}
