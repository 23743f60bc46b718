//! Who may come in: keys from the usual headers, looked up among the tokens by their hashes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};

use super::options::TokenOptions;
use super::refusal::Refusal;
use crate::support::base64;
use crate::support::keyring::Keyring;

/// Headers that carry a key, in the order in which they are tried. gRPC metadata has the same names.
static KEY_HEADERS: [HeaderName; 3] =
    [AUTHORIZATION, HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];

type Hash = [u8; 32];

/// The keys that are let in.
#[derive(Debug)]
pub(super) struct Auth {
    /// Tenants by the hashes of their tokens. How much of a hash matched says nothing of the token.
    tenants: HashMap<Hash, String>,
    /// Where callers' keys are kept, if a sink acts in their name.
    keys: Option<Arc<Keyring>>,
}

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Identity {
    /// The tenant that the token stands for; empty where there are no tokens.
    pub(super) tenant: String,
    /// First 16 hexadecimal digits of the SHA-256 of the key; empty without one.
    pub(super) key_fingerprint: String,
}

impl Auth {
    /// The keys that are let in; without any, everybody is.
    pub(super) fn new(tokens: &[TokenOptions], keys: Option<Arc<Keyring>>) -> Self {
        let hash = |token: &TokenOptions| Sha256::digest(token.token.as_bytes()).into();
        let tenants = tokens.iter().map(|token| (hash(token), token.tenant.clone()));
        Self { tenants: tenants.collect(), keys }
    }

    /// Who sends this, if they are let in.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        let keys = KEY_HEADERS.iter().filter_map(|name| headers.get(name));
        let mut hashes = keys.map(|value| Hash::from(Sha256::digest(key_in(value.as_bytes()))));
        if self.tenants.is_empty() {
            let key_fingerprint = hashes.next().map(fingerprint).unwrap_or_default();
            return Ok(Identity { tenant: String::new(), key_fingerprint });
        }
        let known = hashes.find_map(|hash| {
            let tenant = self.tenants.get(&hash)?.clone();
            Some(Identity { tenant, key_fingerprint: fingerprint(hash) })
        });
        known.ok_or(Refusal::Unauthenticated)
    }

    /// Keeps the key that a request carries, in memory, if a sink acts in its caller's name: only a bearer key, and only the one that
    /// the caller is known by. Where there are tokens, it must look like a key of OpenAI's: other tokens are nobody else's business.
    pub(super) fn remember(&self, headers: &HeaderMap, identity: &Identity) {
        let Some(keyring) = &self.keys else { return };
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, key)) = value.and_then(|value| value.split_once(' ')) else { return };
        let key = key.trim();
        let is_bearer = scheme.eq_ignore_ascii_case("bearer") && !key.is_empty();
        let may_be_openais = self.tenants.is_empty() || key.starts_with(OPENAI_KEY_PREFIX);
        let is_callers = || fingerprint(Sha256::digest(key).into()) == identity.key_fingerprint;
        if is_bearer && may_be_openais && is_callers() {
            keyring.remember(&identity.key_fingerprint, key);
        }
    }
}

/// What keys of OpenAI begin with.
const OPENAI_KEY_PREFIX: &str = "sk-";

/// The key itself: without `Bearer`, and as `user:password` for `Basic`.
fn key_in(value: &[u8]) -> Cow<'_, [u8]> {
    let (scheme, rest) = match value.iter().position(|byte| *byte == b' ') {
        Some(space) => value.split_at(space),
        None => return Cow::Borrowed(value),
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

/// The first 64 bits of a hash: they tell all keys of a fleet apart and give none away.
fn fingerprint(hash: Hash) -> String {
    let first = hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
    format!("{first:016x}")
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;
    use crate::support::secret::Secret;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn tokens(keys: Option<Arc<Keyring>>) -> Auth {
        let token = |token: &str, tenant: &str| TokenOptions {
            token: token.to_owned(),
            tenant: tenant.to_owned(),
        };
        Auth::new(&[token("sk-one", "one"), token("pk:sk", "two")], keys)
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
            assert_eq!(tokens(None).identify(&pairs).unwrap().tenant, tenant, "{pairs:?}");
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
            assert_eq!(tokens(None).identify(&pairs), Err(Refusal::Unauthenticated), "{pairs:?}");
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
            let auth = Auth::new(&[], Some(Arc::clone(&keyring)));
            let identity = auth.identify(&pairs).unwrap();
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
            let identity = auth.identify(&pairs).unwrap();
            auth.remember(&pairs, &identity);
            let found = keyring.get(&identity.key_fingerprint);
            assert_eq!(found.as_ref().map(Secret::reveal), kept, "{pairs:?}");
        }
    }

    #[test]
    fn without_tokens_everybody_comes_in_and_leaves_a_fingerprint() {
        let auth = Auth::new(&[], None);
        assert_eq!(auth.identify(&headers(&[])).unwrap(), Identity::default());
        let identity = auth.identify(&headers(&[("authorization", "Bearer abc")])).unwrap();
        // The start of SHA-256("abc") as in FIPS 180-2, appendix B.1.
        assert_eq!(identity.key_fingerprint, "ba7816bf8f01cfea");
    }
}
