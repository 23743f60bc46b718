//! Stub.
use super::Settings;
pub(super) async fn probe(_settings: &Settings) -> Result<String, String> {
    Ok(String::new())
}
