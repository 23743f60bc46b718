//! Retries until success or a time limit.

use std::time::{Duration, Instant};

use crate::cli::output::explain;
use crate::sinks::Pace;
use crate::support::backoff::Backoff;

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Retries until success, at most for the given time. Returns an error that waiting cannot solve immediately, any other at the end.
pub(super) async fn patiently<T>(
    give_up_after: Duration,
    attempt: impl AsyncFn() -> Result<T, Pace>,
) -> Result<T, String> {
    let (began, mut backoff) = (Instant::now(), Backoff::new(FIRST_WAIT, LONGEST_WAIT));
    let mut is_said = false;
    loop {
        let (said, wanted) = match attempt().await {
            Ok(done) => return Ok(done),
            Err(Pace::Hold { reason }) => return Err(reason),
            Err(Pace::Slow { after, reason } | Pace::Down { after, reason }) => (reason, after),
            Err(Pace::Go | Pace::Checkpoint) => (String::new(), None),
        };
        let wait = wanted.unwrap_or_default().max(backoff.next_wait());
        if give_up_after < began.elapsed() + wait {
            return Err(said);
        }
        if !std::mem::replace(&mut is_said, true) {
            explain(&format!("waiting: {said}\n"));
        }
        tokio::time::sleep(wait).await;
    }
}
