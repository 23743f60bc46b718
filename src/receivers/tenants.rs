//! Counts what each tenant sends, and limits its rate.
//!
//! A limit is a bucket that fills at its rate and holds the amount of [`BURST`]. A request is accepted while the bucket is not empty, and
//! its actual size is taken, if necessary on credit: the size is known only after reading the request, and one larger than the bucket must
//! be accepted eventually. Over any period, at most the rate is accepted, plus the contents of the bucket.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::options::{LimitOptions, ReceiverOptions};
use super::refusal::Refusal;
use crate::support::lock::lock;
use crate::telemetry::{Figure, Label, Metrics};

/// Exporters send every five seconds: two rounds of all exporters may come together.
const BURST: Duration = Duration::from_secs(10);
/// Maximum number of separate tenants. There are fewer tokens; the limit is for authorities that sign any number of names.
const TENANTS_MAX: usize = 1024;
/// The common name of all further tenants.
const OTHERS: &str = "(others)";

const REQUESTS: Figure = ("receiver_tenant_requests", "Accepted requests of a tenant");
const ITEMS: Figure = ("receiver_tenant_items", "Items in the requests of a tenant");
const BYTES: Figure = ("receiver_tenant_bytes", "Bytes of a tenant's request bodies on the wire");
const LIMITED: Figure =
    ("receiver_tenant_limited_requests", "Requests of a tenant refused because of its limits");

/// The counters of each tenant, with their names in `/status`.
pub const TENANT_FIGURES: [(&str, Figure); 4] =
    [("requests", REQUESTS), ("items", ITEMS), ("bytes", BYTES), ("limited", LIMITED)];

#[derive(Debug)]
pub(super) struct Tenants {
    limits: Option<LimitOptions>,
    metrics: Metrics,
    known: Mutex<HashMap<String, Arc<Tenant>>>,
}

#[derive(Debug)]
pub(super) struct Tenant {
    metrics: Metrics,
    /// `None` if requests have no tenant: then nothing is counted separately.
    label: Option<[Label; 1]>,
    /// Limits of items and of bytes.
    buckets: [Option<Mutex<Bucket>>; 2],
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    /// Per second.
    rate: f64,
    level: f64,
    filled: Instant,
}

impl Tenants {
    /// Creates tenants with these limits, counted in `metrics`.
    pub(super) fn new(options: &ReceiverOptions, metrics: Metrics) -> Self {
        Self { limits: options.limits.clone(), metrics, known: Mutex::default() }
    }

    /// Accepts a request of this tenant, unless it has exceeded its limits.
    pub(super) fn enter(&self, name: &str) -> Result<Arc<Tenant>, Refusal> {
        let tenant = self.tenant(name);
        let buckets = tenant.buckets.iter().flatten();
        let wait = buckets.map(|bucket| lock(bucket).wait(Instant::now())).max();
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            tenant.add(LIMITED, 1);
            return Err(Refusal::Limited(wait));
        }
        tenant.add(REQUESTS, 1);
        Ok(tenant)
    }

    fn tenant(&self, name: &str) -> Arc<Tenant> {
        let mut known = lock(&self.known);
        let name = match known.get(name) {
            Some(tenant) => return Arc::clone(tenant),
            None if known.len() < TENANTS_MAX => name,
            None => OTHERS,
        };
        let tenant = || {
            let limits = self.limits.as_ref().map(|limits| limits.of(name));
            let (items, bytes) = limits.unwrap_or_default();
            Arc::new(Tenant {
                metrics: self.metrics.clone(),
                label: (!name.is_empty()).then(|| [("tenant", name.to_owned().into())]),
                buckets: [items, bytes].map(|rate| rate.map(|rate| Bucket::new(rate).into())),
            })
        };
        Arc::clone(known.entry(name.to_owned()).or_insert_with(tenant))
    }
}

impl Tenant {
    pub(super) fn came(&self, bytes: usize) {
        let [_, bucket] = &self.buckets;
        self.take(BYTES, bucket.as_ref(), bytes as u64);
    }

    pub(super) fn sent(&self, items: u64) {
        let [bucket, _] = &self.buckets;
        self.take(ITEMS, bucket.as_ref(), items);
    }

    fn take(&self, figure: Figure, bucket: Option<&Mutex<Bucket>>, count: u64) {
        if let Some(bucket) = bucket {
            lock(bucket).take(count);
        }
        self.add(figure, count);
    }

    fn add(&self, figure: Figure, count: u64) {
        self.label.iter().for_each(|label| self.metrics.add(figure, label, count));
    }
}

#[expect(clippy::cast_precision_loss, reason = "of more than 2^53 nobody misses one")]
impl Bucket {
    fn new(rate: u64) -> Self {
        let rate = rate as f64;
        Self { rate, level: rate * BURST.as_secs_f64(), filled: Instant::now() }
    }

    /// Returns how long it takes until the bucket is not empty.
    fn wait(&mut self, now: Instant) -> Duration {
        let came = self.rate * now.duration_since(self.filled).as_secs_f64();
        self.level = (self.level + came).min(self.rate * BURST.as_secs_f64());
        self.filled = now;
        if self.level > 0.0 {
            return Duration::ZERO;
        }
        // A debt is never paid in zero time.
        let until = Duration::try_from_secs_f64(-self.level / self.rate).unwrap_or(Duration::MAX);
        until.max(Duration::from_millis(1))
    }

    fn take(&mut self, count: u64) {
        self.level -= count as f64;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::receivers::RateOptions;
    use crate::support::byte_size::ByteSize;

    fn tenants() -> Tenants {
        let shop = RateOptions { items_per_second: Some(1000), bytes_per_second: None };
        let limits = LimitOptions {
            items_per_second: Some(10),
            bytes_per_second: Some(ByteSize(1000)),
            tenants: [("shop".to_owned(), shop)].into(),
        };
        let options = ReceiverOptions { limits: Some(limits), ..ReceiverOptions::default() };
        Tenants::new(&options, Metrics::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_sent_too_much_waits_until_that_is_paid_and_others_do_not() {
        let tenants = tenants();
        // The bucket holds a hundred; this exceeds it by 50.
        tenants.enter("a").unwrap().sent(150);
        assert_eq!(tenants.enter("a").unwrap_err(), Refusal::Limited(Duration::from_secs(5)));
        tenants.enter("b").unwrap();
        tenants.enter("").unwrap();
        advance(Duration::from_secs(4)).await;
        assert_eq!(tenants.enter("a").unwrap_err(), Refusal::Limited(Duration::from_secs(1)));
        advance(Duration::from_millis(1001)).await;
        tenants.enter("a").unwrap();
    }

    /// Sends three independent requests; returns the number of accepted items.
    fn three_at_once(tenants: &Tenants, name: &str, size: u64) -> u64 {
        let let_in: Vec<_> = (0..3).filter_map(|_| tenants.enter(name).ok()).collect();
        for tenant in &let_in {
            tenant.sent(size);
        }
        size * let_in.len() as u64
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_rate_comes_in_however_the_requests_are_cut() {
        let tenants = tenants();
        for size in [1, 7, 60, 1000] {
            let name = size.to_string();
            let mut items = 0;
            for _ in 0..1000 {
                items += three_at_once(&tenants, &name, size);
                advance(Duration::from_secs(1)).await;
            }
            let most = 1000 * 10 + 100 + 3 * size;
            let least = (1000 * 3 * size).min(1000 * 10);
            assert!((least..=most).contains(&items), "{size}: {items}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_limited_too_and_a_tenant_may_have_limits_of_its_own() {
        let tenants = tenants();
        tenants.enter("shop").unwrap().sent(5000);
        tenants.enter("shop").unwrap().came(10_500);
        // Its limit of items applies, and the common limit of bytes.
        let wait = tenants.enter("shop").unwrap_err();
        assert_eq!(wait, Refusal::Limited(Duration::from_millis(500)));
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_beyond_the_most_share_one_account() {
        let tenants = Tenants::new(&ReceiverOptions::default(), Metrics::default());
        for number in 0..2 * TENANTS_MAX {
            tenants.enter(&number.to_string()).unwrap().sent(1);
        }
        assert_eq!(lock(&tenants.known).len(), TENANTS_MAX + 1);
        let counted = tenants.metrics.by_label(ITEMS);
        assert_eq!(counted.len(), TENANTS_MAX + 1);
        assert_eq!(counted.get(OTHERS), Some(&(TENANTS_MAX as u64)));
    }
}
