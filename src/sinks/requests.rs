//! A delivery that goes out in several requests, one after the other.

use std::future::Future;
use std::ops::Range;

use bytes::Bytes;

use super::Report;
use super::report::Reports;

/// A request that is ready, and what is in it.
pub(super) struct Ready {
    /// Places of its items in the delivery.
    pub(super) items: Range<usize>,
    /// The body as it is sent; none where the items are nothing to send.
    pub(super) body: Option<Bytes>,
}

/// Sends requests one after the other, given the items and the body of each. The first that would be no different for
/// those behind it ends the attempt.
pub(super) async fn send_in_order<Sending>(
    requests: Vec<Ready>,
    send: impl Fn(Range<usize>, Bytes) -> Sending,
) -> Report
where
    Sending: Future<Output = Report>,
{
    let items = requests.iter().map(|request| request.items.end).max().unwrap_or_default();
    let mut reports = Reports::new(items);
    let mut has_ended = false;
    for Ready { items, body } in requests {
        match body {
            None => reports.add(items, Report::delivered()),
            Some(_) if has_ended => {}
            Some(body) => {
                let report = send(items.clone(), body).await;
                has_ended = report.ends_attempt();
                reports.add(items, report);
            }
        }
    }
    reports.finish()
}
