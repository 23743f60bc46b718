//! A delivery that goes out in several requests, one after the other.

use std::future::Future;
use std::ops::Range;

use bytes::Bytes;

use super::{Outcome, Part};

/// A request that is ready, and what is in it.
pub(super) struct Ready {
    /// Places of its items in the delivery.
    pub(super) items: Range<usize>,
    /// The size of the message before compression.
    pub(super) bytes: usize,
    /// The body as it is sent; none where the items are nothing to send.
    pub(super) body: Option<Bytes>,
}

/// Sends requests one after the other, given the items, the size and the body of each. The first that would be no different for
/// those behind it ends the attempt.
pub(super) async fn send_in_order<Sending>(
    requests: Vec<Ready>,
    send: impl Fn(Range<usize>, usize, Bytes) -> Sending,
) -> Outcome
where
    Sending: Future<Output = Outcome>,
{
    let mut parts = Vec::with_capacity(requests.len());
    let mut is_open = true;
    for Ready { items, bytes, body } in requests {
        let outcome = match body {
            None => Outcome::Delivered,
            Some(body) if is_open => send(items.clone(), bytes, body).await,
            Some(_) => Outcome::Retry {
                after: None,
                reason: "a request before it has to be tried again".to_owned(),
            },
        };
        is_open &= !is_about_the_far_side(&outcome);
        parts.push(Part { items: items.collect(), outcome });
    }
    combined(parts)
}

/// Whether it would be no different for the next request.
fn is_about_the_far_side(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Retry { .. } | Outcome::Throttled { .. } | Outcome::Stop { .. })
}

/// One outcome for all, where there is one.
fn combined(mut parts: Vec<Part>) -> Outcome {
    let is_delivered = |part: &Part| part.outcome == Outcome::Delivered;
    if parts.iter().all(is_delivered) {
        return Outcome::Delivered;
    }
    // Where the first request could not be sent, the others were not tried: the outcome is one for all.
    if parts.len() == 1 || parts.first().is_some_and(|first| is_about_the_far_side(&first.outcome))
    {
        return parts.swap_remove(0).outcome;
    }
    Outcome::Parts(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_of_several_requests_are_one_where_they_agree() {
        let part = |items: &[usize], outcome: Outcome| Part { items: items.to_vec(), outcome };
        let retry = Outcome::Retry { after: None, reason: "no".to_owned() };
        let stop = Outcome::Stop { reason: "no".to_owned() };
        assert_eq!(combined(vec![]), Outcome::Delivered);
        let both = vec![part(&[0], Outcome::Delivered), part(&[1], Outcome::Delivered)];
        assert_eq!(combined(both), Outcome::Delivered);
        assert_eq!(combined(vec![part(&[0], stop.clone()), part(&[1], retry.clone())]), stop);
        let mixed = vec![part(&[0], Outcome::Delivered), part(&[1], retry)];
        assert_eq!(combined(mixed.clone()), Outcome::Parts(mixed));
    }
}
