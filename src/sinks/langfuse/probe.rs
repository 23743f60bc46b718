//! Asks a server for its version, and whether it accepts the keys. Sends no span.

use hyper::{HeaderMap, StatusCode};
use serde_json::Value;

use super::options::Settings;
use crate::sinks::http::{Client, Request, Response};

/// The first version that accepts OTLP.
const OTLP_SINCE: (u32, u32, u32) = (3, 22, 0);
/// The first version that knows agents, tools, chains and similar types.
const TYPES_SINCE: (u32, u32, u32) = (3, 98, 2);

/// Runs the probe. Returns a sentence with the result, or with the problem and how to solve it.
pub(super) async fn probe(settings: &Settings) -> Result<String, String> {
    let client =
        Client::new(&settings.options.connection.client()).map_err(|error| error.to_string())?;
    let base = settings.options.base_url.reveal();
    let ask = async |path: &str, headers: HeaderMap| {
        let uri =
            format!("{base}{path}").parse().map_err(|_| format!("{base} is not an address"))?;
        let sent = client.send(&Request::get(uri, headers)).await;
        sent.map_err(|failure| format!("{base} cannot be reached: {failure}"))
    };
    let health = ask("/api/public/health", HeaderMap::new()).await?;
    let version = version_of(&health).ok_or_else(|| {
        let status = health.reason();
        format!("{base} is not Langfuse: /api/public/health answered {status}; check base_url")
    })?;
    let note = judged(&version)?;
    let projects = ask("/api/public/projects", settings.authorization.clone()).await?;
    match projects.status {
        StatusCode::OK => {
            let said: Value = serde_json::from_slice(&projects.body).unwrap_or_default();
            let project = said.pointer("/data/0/name").and_then(Value::as_str);
            let project = project.unwrap_or("without a name");
            Ok(format!("Langfuse {version} at {base} accepts the keys: project {project}{note}"))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(format!(
            "Langfuse {version} at {base} rejects the keys; check that they belong to this server (the cloud has one for each \
             region), or create new ones in the project's settings"
        )),
        _ => Err(format!(
            "Langfuse {version} at {base} could not check the keys: {}",
            projects.reason()
        )),
    }
}

/// Returns the version that a server reports. An unhealthy server answers 503 but includes its version.
fn version_of(response: &Response) -> Option<String> {
    let health: Value = serde_json::from_slice(&response.body).ok()?;
    let version = health.get("version")?.as_str()?;
    numbers(version).map(|_| version.trim_start_matches('v').to_owned())
}

/// Returns a remark on a version; `Err` if it is not supported.
fn judged(version: &str) -> Result<&'static str, String> {
    let numbers = numbers(version).unwrap_or_default();
    let why = match numbers {
        (..3, ..) => ": version 2 has no OTLP endpoint",
        _ if numbers < OTLP_SINCE => "; OTLP came with 3.22.0",
        _ if numbers < TYPES_SINCE => {
            return Ok("; before 3.98.2 agents, tools and chains are shown as plain spans");
        }
        _ => return Ok(""),
    };
    Err(format!(
        "the server is Langfuse {version}, which does not accept OTLP{why}; update to 3.98.2 or later"
    ))
}

/// Parses `4.16.0`, `v3.22.0`, `3.98.2-rc.1`.
fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version
        .trim_start_matches('v')
        .splitn(3, '.')
        .map(|part| part.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_judged_by_what_they_can_do() {
        for version in ["2.95.12", "1.0.0"] {
            assert!(
                judged(version).unwrap_err().contains("version 2 has no OTLP endpoint"),
                "{version}"
            );
        }
        for version in ["3.0.0", "v3.21.9"] {
            assert!(judged(version).unwrap_err().contains("3.22.0"), "{version}");
        }
        for version in ["3.22.0", "3.98.1", "3.98"] {
            assert!(judged(version).unwrap().contains("plain spans"), "{version}");
        }
        for version in ["3.98.2", "3.225.4", "4.16.0", "v4.17.0-rc.1", "10.0.0"] {
            assert_eq!(judged(version), Ok(""), "{version}");
        }
        assert_eq!(numbers("latest"), None);
    }
}
