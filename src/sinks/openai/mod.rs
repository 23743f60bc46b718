//! `type = "openai"`: OpenAI's own trace dashboard.
//!
//! ```toml
//! [sinks.openai]
//! type = "openai"     # with each caller's own key, held in memory only
//! ```
//!
//! **Items.** Agents SDK items are sent as the SDK itself would have sent them: unchanged, byte for byte, unless one of the SDK's own rules
//! for OpenAI applies (reasoning is omitted, `input` and `output` are cut to 100,000 bytes, `usage` gets the shape that OpenAI knows;
//! Python's or JavaScript's rules, by the sender's user agent). Data that apps add to `response` spans for other sinks is removed. Items of
//! older clients that write spaces and escapes keep them; repaired items are written in the shortest form. With `forward_otlp`, OTLP spans
//! become items too, with one trace object for each trace; without it, a rule filters them out.
//!
//! **Keys.** Each item is sent with the `Authorization`, `OpenAI-Organization`, `OpenAI-Project` and `OpenAI-Beta` of the request that
//! brought it; items of one account share requests of at most 128 items. Callers' keys are only in memory, so they are unknown after a
//! restart. An item is then sent with `api_key`, if configured; otherwise it waits for its caller's next request, at most until `key_wait`
//! after the start, and is sent as soon as that arrives. Items of a key that OpenAI refuses (401, 403) wait for `refused_key_wait` from the
//! first refusal on; the key is tried every 5 s at first and every 5 minutes later. Waiting items are deferred: other callers' items
//! overtake them (`deferred` in `/status` counts them). The cursor stays before them, so a restart in that time resends what overtook them.
//! Items that waited in vain become dead letters, which can be replayed; the oldest do so earlier if 32 MiB or 1,024 deliveries of them are
//! in memory, 65,536 requests arrived since, or the journal is full because of them. An organisation without data retention (403
//! `zdr_forbidden`) gets nothing more until the daemon restarts. If `api_key` itself is refused, the lane holds. `/status` shows refused
//! keys, and health is degraded.
//!
//! **Rejections.** If a 400 names an item, only that item is repaired (an unknown member removed, a value cut, metadata made text) or
//! becomes a dead letter, and the others are sent again. The table of `response` has all other cases.

mod options;
mod accounts;
mod encode;
mod edit;
mod sanitize;
mod reasoning;
mod agents_sdk;
mod response;
mod repair;
mod key_status;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use tokio::time::Instant;
use tracing::{error, warn};

use super::http::{self, Endpoint, secret_header};
use super::report::Reports;
use super::{
    BuildError, Deferral, Delivery, Kind, Pace, Parts, Pending, Plan, RejectClass, Report, Sink,
    Verdict, read_options,
};
use crate::span::{RootSpan, Source, TraceNeeds};
use crate::support::lock::lock;
use accounts::{Account, Accounts, Key};
pub use agents_sdk::{write_custom, write_items};
use encode::Body;
use key_status::{KeyStatus, Standings};
pub use options::{Options, Prefer};
use response::{Answer, Complaint};

/// The rule that applies without `forward_otlp`. It routes, so that no rule that keeps a span overrides it.
const AGENTS_SDK_ONLY: &str = "[[rules]]\nname = \"agents_sdk_only\"\nmatch = { not = { receiver = \"openai\" } }\nroute = []\n";

/// OpenAI.
pub static KIND: Kind = Kind {
    name: "openai",
    summary: "OpenAI's trace dashboard, with each caller's own key or one of yours",
    example: "api_key = \"sk-example\"\n",
    schema: crate::support::options::schema_of::<Options>,
    parse: |table| Ok(Box::new(read_options(table, Options::check)?)),
};

impl Plan for Options {
    fn build(&self, parts: Parts) -> Result<Arc<dyn Sink>, BuildError> {
        Ok(Arc::new(OpenAi::new(self.clone(), parts)?))
    }

    fn expanded(&self) -> toml::Table {
        http::shown(self)
    }

    fn rules(&self) -> &'static str {
        if self.forward_otlp { "" } else { AGENTS_SDK_ONLY }
    }

    fn uses_keys(&self) -> bool {
        self.prefer == Prefer::Caller
    }

    fn probe(&self) -> Option<Pending<'_, Result<String, String>>> {
        Some(Box::pin(probe(self)))
    }
}

/// Sends items to OpenAI.
#[derive(Debug)]
pub struct OpenAi {
    endpoint: Endpoint,
    standings: Mutex<Standings>,
    accounts: Arc<Accounts>,
}

/// Concurrent requests: the JavaScript SDK has been seen with 14.
const REQUESTS_MAX: usize = 8;
/// How often an item is repaired before it becomes a dead letter.
const REPAIRS_MAX: u32 = 8;

impl OpenAi {
    /// Reads certificates; does not connect.
    pub fn new(options: Options, parts: Parts) -> Result<Self, BuildError> {
        let client = options.connection.client();
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let endpoint = Endpoint::new(&client, &options.endpoint, HeaderMap::from_iter([json]))?;
        let began = Instant::now().into_std();
        let standings =
            Standings::new(began, options.key_wait.into(), options.refused_key_wait.into());
        let standings = Mutex::new(standings);
        Ok(Self { endpoint, standings, accounts: Arc::new(Accounts::new(options, parts.keys)) })
    }

    async fn send(&self, delivery: &Delivery) -> Report {
        let bytes_max = self.accounts.options.request_bytes_max.as_usize();
        let accounts = Arc::clone(&self.accounts);
        let encode = move |delivery: &Delivery| encode::encode(delivery, bytes_max, &accounts);
        let bodies = match http::encode(delivery, encode).await {
            Ok(bodies) => bodies,
            Err(problem) => {
                return Report::down(None, format!("cannot write the requests: {problem}"));
            }
        };
        let mut reports = Reports::new(delivery.len());
        let mut ended: Vec<Arc<Account>> = Vec::new();
        for mut body in bodies {
            if ended.contains(&body.account) {
                continue;
            }
            let report = loop {
                if let Some(report) = self.attempt(delivery, &mut body, &mut reports).await {
                    break report;
                }
            };
            reports.add(body.places(), report.clone());
            ended.extend(report.ends_attempt().then_some(body.account));
        }
        reports.finish()
    }

    /// Sends one request and returns the report for its items; `None` if it must be sent again: with the item repaired that OpenAI complains
    /// about, or without it; or because OpenAI refuses its caller's key, which is left for its next try.
    async fn attempt(
        &self,
        delivery: &Delivery,
        body: &mut Body,
        reports: &mut Reports,
    ) -> Option<Report> {
        if body.entries.is_empty() {
            return Some(Report::delivered());
        }
        let key = &body.account.key;
        let headers = match (self.standing(key), self.headers(&body.account)) {
            (KeyStatus::Open, Some(headers)) => headers,
            // The key was known a moment ago.
            (KeyStatus::Open, None) => {
                return Some(Report::reject("its key was evicted by newer keys", ""));
            }
            (KeyStatus::Closed(reason), _) => return Some(Report::reject(reason, "")),
            (KeyStatus::Wait(reason), _) => return Some(deferred(key, reason)),
        };
        let mut request = self.endpoint.request(delivery, body.bytes());
        request.headers.extend(headers);
        let answer = match self.endpoint.send(&request).await {
            Ok(response) => response::read(&response),
            Err(report) => Answer::All(report),
        };
        match answer {
            Answer::Taken => {
                lock(&self.standings).taken(key);
                self.accounts.announce(body.entries.iter().filter_map(|it| it.announces));
                Some(Report::delivered())
            }
            Answer::KeyRefused { reason, is_final } if is_final || *key != Key::Configured => {
                let now = Instant::now().into_std();
                let is_news = lock(&self.standings).refused(key, reason.clone(), is_final, now);
                if is_final {
                    error!(
                        reason,
                        "OpenAI accepts no traces from this key's organisation: they become dead letters"
                    );
                } else if is_news {
                    warn!(reason, "OpenAI refuses a caller's key: its items wait");
                }
                None
            }
            Answer::KeyRefused { reason, .. } => {
                Some(Report::hold(format!("{reason}: it refuses `api_key`")))
            }
            Answer::Item(complaint) => {
                lock(&self.standings).taken(key);
                let Complaint { index, ref reason, ref answer, .. } = complaint;
                let Some(entry) = body.entries.get_mut(index) else {
                    let (reason, answer) = (reason.clone(), answer.clone());
                    return Some(Report::split(RejectClass::Malformed, reason, answer));
                };
                let is_last = REPAIRS_MAX <= entry.repairs;
                let repaired = repair::repaired(&entry.text, &complaint).filter(|_| !is_last);
                if let Some(text) = repaired {
                    (entry.text, entry.repairs) = (text, entry.repairs + 1);
                } else {
                    let place = body.entries.remove(index).place;
                    reports.add(place, Report::reject(reason, answer));
                }
                None
            }
            Answer::All(report) => Some(report),
        }
    }

    fn headers(&self, account: &Account) -> Option<HeaderMap> {
        let key = self.accounts.key(&account.key)?;
        let mut headers = account.headers.clone();
        headers.insert(AUTHORIZATION, secret_header(&format!("Bearer {}", key.reveal()))?);
        Some(headers)
    }

    fn standing(&self, key: &Key) -> KeyStatus {
        let is_known = self.accounts.key(key).is_some();
        lock(&self.standings).of(key, is_known, Instant::now().into_std())
    }
}

impl Sink for OpenAi {
    fn concurrency_max(&self) -> usize {
        REQUESTS_MAX
    }

    fn trace_needs(&self) -> Option<TraceNeeds> {
        // Items of the SDK are complete; only trace objects created here need more.
        let needs = TraceNeeds {
            root: RootSpan::Never,
            context_wait: Duration::ZERO,
            ..TraceNeeds::default()
        };
        self.accounts.options.forward_otlp.then_some(needs)
    }

    fn is_deferred(&self, key: &str) -> bool {
        matches!(self.standing(&Key::Caller(key.to_owned())), KeyStatus::Wait(_))
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(self.send(delivery))
    }

    fn notice(&self) -> Option<String> {
        lock(&self.standings).notice()
    }
}

/// Reports items that wait for a caller's key. No other keys are waited for.
fn deferred(key: &Key, reason: String) -> Report {
    let key = match key {
        Key::Caller(fingerprint) => fingerprint.clone(),
        Key::Configured | Key::None => String::new(),
    };
    Report::all(Verdict::Defer(Arc::new(Deferral { key, reason })), Pace::Go)
}

/// Sends an empty list, which leaves nothing at OpenAI.
async fn probe(options: &Options) -> Result<String, String> {
    let sink = OpenAi::new(options.clone(), Parts::default()).map_err(|error| error.to_string())?;
    let account = sink.accounts.configured(&Source::unknown());
    let headers = sink.headers(&account).unwrap_or_default();
    let has_key = options.api_key.is_some();
    let fine = if has_key { "it answers, and accepts `api_key`" } else { "it answers" };
    let body = Bytes::from_static(b"{\"data\":[]}");
    let mut request = sink.endpoint.request(&Delivery::default(), body);
    request.headers.extend(headers);
    let response = sink.endpoint.send(&request).await;
    let response =
        response.map_err(|report| report.pace.reason().unwrap_or_default().to_owned())?;
    match response::read(&response) {
        Answer::Taken | Answer::Item(_) => Ok(fine.to_owned()),
        // OpenAI may reject an empty list, but it checks the key first.
        Answer::All(report) if report.is_refused(RejectClass::Malformed) => Ok(fine.to_owned()),
        Answer::KeyRefused { .. } if !has_key && response.status == StatusCode::UNAUTHORIZED => {
            Ok("it answers; the callers' keys are checked when they arrive".to_owned())
        }
        Answer::KeyRefused { reason, is_final } => {
            let what = if is_final {
                "the organisation of `api_key` has zero data retention, so it accepts no traces"
            } else {
                "it refuses `api_key`"
            };
            Err(format!("{reason}: {what}"))
        }
        Answer::All(report) => {
            let refused = report.refusal().map(|found| found.reason.as_str());
            let reason = report.pace.reason().or(refused);
            Err(reason.unwrap_or("it gives an unknown answer").to_owned())
        }
    }
}
