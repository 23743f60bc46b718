//! The stop signal: one switch, many who wait for it.

use tokio_util::sync::CancellationToken;

/// Says when to stop. Clones share the switch; a child stops with its parent, but not the other way round.
#[derive(Debug, Clone, Default)]
pub struct Stop(CancellationToken);

impl Stop {
    /// A switch of its own that is also turned by this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Turns the switch.
    pub fn stop(&self) {
        self.0.cancel();
    }

    /// Whether it was turned.
    pub fn is_stopped(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it is turned.
    pub async fn stopped(&self) {
        self.0.cancelled().await;
    }
}
