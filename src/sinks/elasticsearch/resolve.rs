//! Stub.
use super::FarSide;
use std::sync::Arc;
pub(super) fn start(_far_side: &Arc<FarSide>) -> tokio::task::AbortHandle {
    tokio::spawn(async {}).abort_handle()
}
