//! What does not work now is tried again, until it does or nobody wants to wait any longer.

use std::time::{Duration, Instant};

use crate::cli::output::explain;
use crate::sinks::Pace;
use crate::support::backoff::Backoff;

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Why something did not work, in words.
pub(super) enum Trouble {
    /// It may work later; whoever was asked may want to be left alone for so long.
    Passes(String, Option<Duration>),
    Stays(String),
}

impl From<Pace> for Trouble {
    fn from(pace: Pace) -> Self {
        match pace {
            Pace::Slow { after, reason } | Pace::Down { after, reason } => {
                Self::Passes(reason, after)
            }
            Pace::Hold { reason } => Self::Stays(reason),
            Pace::Go | Pace::Checkpoint => Self::Passes(String::new(), None),
        }
    }
}

/// Tries until it works, for so long at most; then it says what is wrong.
pub(super) async fn patiently<T, E: Into<Trouble>>(
    give_up_after: Duration,
    attempt: impl AsyncFn() -> Result<T, E>,
) -> Result<T, String> {
    let (began, mut backoff) = (Instant::now(), Backoff::new(FIRST_WAIT, LONGEST_WAIT));
    let mut is_said = false;
    loop {
        let (said, wanted) = match attempt().await.map_err(E::into) {
            Ok(done) => return Ok(done),
            Err(Trouble::Stays(said)) => return Err(said),
            Err(Trouble::Passes(said, wanted)) => (said, wanted),
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
