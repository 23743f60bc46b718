//! Determines the account with which each item is sent.

use std::sync::{Arc, Mutex};

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::options::{Options, Prefer};
use crate::span::{Receiver, Source, TraceId};
use crate::support::keyring::Keyring;
use crate::support::lock::lock;
use crate::support::recent::Recent;
use crate::support::secret::Secret;

/// The account with which a request is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) key: Key,
    /// The headers that accompany the key.
    pub(super) headers: HeaderMap,
}

/// The key of an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// The caller's own, identified by its fingerprint.
    Caller(String),
    /// The configured one.
    Configured,
    /// The caller had none, and none is configured.
    None,
}

/// All accounts.
#[derive(Debug)]
pub(super) struct Accounts {
    pub(super) options: Options,
    keys: Arc<Keyring>,
    /// Traces for which a trace object was created.
    announced: Mutex<Recent<ANNOUNCED_MAX, TraceId>>,
}

/// Traces that are remembered, in about 4 MiB. For a forgotten one, the trace object is sent again, which does no harm.
const ANNOUNCED_MAX: usize = 65_536;

/// The value that the SDKs send, used for callers that sent none.
const BETA: &str = "traces=v1";

impl Accounts {
    pub(super) fn new(options: Options, keys: Arc<Keyring>) -> Self {
        Self { options, keys, announced: Mutex::default() }
    }

    /// Returns the account for a source's items.
    pub(super) fn of(&self, source: &Source) -> Account {
        let key = Key::Caller(source.key_fingerprint.clone());
        // OTLP requests carry no OpenAI key, whatever their headers contain.
        let has_own = source.receiver == Receiver::OpenAi
            && self.options.prefer == Prefer::Caller
            && !source.key_fingerprint.is_empty();
        if has_own && (self.options.api_key.is_none() || self.key(&key).is_some()) {
            let header = |name| source.header(name);
            let headers = headers(source, header("openai-organization"), header("openai-project"));
            return Account { key, headers };
        }
        self.configured(source)
    }

    /// Returns the account of callers without a key of their own.
    pub(super) fn configured(&self, source: &Source) -> Account {
        let Options { api_key, organization, project, .. } = &self.options;
        Account {
            key: if api_key.is_some() { Key::Configured } else { Key::None },
            headers: headers(source, organization.as_deref(), project.as_deref()),
        }
    }

    /// Returns the key itself, if it is known.
    pub(super) fn key(&self, key: &Key) -> Option<Secret> {
        match key {
            Key::Caller(fingerprint) => self.keys.get(fingerprint),
            Key::Configured => self.options.api_key.clone(),
            Key::None => None,
        }
    }

    /// Returns whether a trace object was created for a trace before.
    pub(super) fn is_announced(&self, trace: TraceId) -> bool {
        lock(&self.announced).get(&trace).is_some()
    }

    /// Records that the created trace objects of these traces were delivered.
    pub(super) fn announce(&self, traces: impl Iterator<Item = TraceId>) {
        let mut announced = lock(&self.announced);
        for trace in traces {
            announced.insert(trace, ());
        }
    }
}

fn headers(source: &Source, organization: Option<&str>, project: Option<&str>) -> HeaderMap {
    let all = [
        ("openai-beta", Some(source.header("openai-beta").unwrap_or(BETA))),
        ("openai-organization", organization),
        ("openai-project", project),
    ];
    let valid = all.into_iter().filter_map(|(name, value)| {
        Some((HeaderName::from_static(name), HeaderValue::from_str(value?).ok()?))
    });
    valid.collect()
}
