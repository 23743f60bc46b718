//! What happens before the first document: finding out what the far side is, and installing templates. It never stands in the way
//! of delivering for long.

use std::sync::{Mutex, PoisonError};

use hyper::{Method, StatusCode};
use tracing::{info, warn};

use super::cluster::Cluster;
use super::options::{ManageTemplates, Rotation, Settings};
use super::outcome::Outcome;
use super::response::error_of;
use super::server::Server;
use super::templates::{self, Care, SCHEMA_VERSION, Step};
use crate::sinks::http::Response;
use crate::sinks::http::classify::{self, StatusClass as Verdict};

/// What is known of the far side, and what was done there.
#[derive(Debug)]
pub(super) struct Setup {
    server: Mutex<Server>,
    stage: tokio::sync::Mutex<Stage>,
    is_done: std::sync::atomic::AtomicBool,
}

#[derive(Debug, Default)]
struct Stage {
    attempts: u32,
    is_detected: bool,
}

/// Attempts after which documents are sent without what could not be done.
const ATTEMPTS_MAX: u32 = 3;

/// Why it is not done yet.
enum Obstacle {
    /// The far side cannot be reached, or has too much to do: it would not take documents either.
    Away(String),
    /// It fails at this. It may work later.
    Broken(String),
    /// It will not, and documents can be sent all the same.
    Refused(String),
}

impl Setup {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            server: Mutex::new(Server::assumed(settings.flavor)),
            stage: tokio::sync::Mutex::default(),
            is_done: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// What the far side is, as far as is known.
    pub(super) fn server(&self) -> Server {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes ready, once. An outcome says why nothing can be delivered now.
    pub(super) async fn prepare(
        &self,
        sink: &str,
        settings: &Settings,
        cluster: &Cluster,
    ) -> Result<(), Outcome> {
        use std::sync::atomic::Ordering;
        if self.is_done.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut stage = self.stage.lock().await;
        if self.is_done.load(Ordering::Acquire) {
            return Ok(());
        }
        if !stage.is_detected {
            self.detect(sink, settings, cluster, &mut stage).await?;
        }
        if settings.manage_templates != ManageTemplates::Off {
            let obstacle = install(sink, settings, self.server(), cluster).await.err();
            match obstacle {
                None => {}
                Some(Obstacle::Away(reason)) => {
                    return Err(Outcome::Retry { after: None, reason });
                }
                Some(Obstacle::Broken(reason)) => {
                    stage.attempts += 1;
                    if stage.attempts < ATTEMPTS_MAX {
                        return Err(Outcome::Retry { after: None, reason });
                    }
                    warn!(sink, reason, "the index templates could not be installed");
                }
                Some(Obstacle::Refused(reason)) => {
                    warn!(sink, reason, "the index templates could not be installed");
                }
            }
        }
        self.is_done.store(true, Ordering::Release);
        Ok(())
    }

    /// Asks what the far side is.
    async fn detect(
        &self,
        sink: &str,
        settings: &Settings,
        cluster: &Cluster,
        stage: &mut Stage,
    ) -> Result<(), Outcome> {
        let response = match cluster.ask(Method::GET, "", None).await {
            Ok(response) => response,
            // A document sent now would make an index without our mapping, should the far side come back in between.
            Err(failure) => return Err(Outcome::of(failure.report())),
        };
        if response.status == StatusCode::UNAUTHORIZED {
            let reason = classify::describe(response.status, &response.headers);
            return Err(Outcome::Stop { reason: format!("{reason}: the credentials are wrong") });
        }
        if let Verdict::Throttled { after } | Verdict::Retry { after } =
            classify::classify(response.status, &response.headers)
        {
            let reason = classify::describe(response.status, &response.headers);
            return Err(Outcome::Retry { after, reason });
        }
        // A key with few privileges may not be allowed to ask; then the usual is assumed.
        if response.status.is_success() {
            let server = Server::read(settings.flavor, &response.body);
            *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
        }
        info!(sink, server = self.server().describe(), "found");
        stage.is_detected = true;
        Ok(())
    }
}

/// Installs what is missing or older.
async fn install(
    sink: &str,
    settings: &Settings,
    server: Server,
    cluster: &Cluster,
) -> Result<(), Obstacle> {
    let mut steps = templates::steps(settings, server);
    let mut at = 0;
    while let Some(step) = steps.get(at) {
        match put(step, settings.manage_templates, cluster).await {
            Ok(()) => {}
            Err(Obstacle::Refused(reason)) if step.is_retention() => {
                // A cluster without this feature, or a key without the privilege: the indices are kept until somebody deletes them.
                warn!(sink, reason, "no rule for deleting old indices could be installed");
                for step in &mut steps {
                    step.forget_retention();
                }
            }
            Err(Obstacle::Refused(reason)) => {
                let commands = templates::print(&steps);
                warn!(
                    sink,
                    reason,
                    commands,
                    "the index templates could not be installed; somebody who may can run these commands"
                );
                return make_indices(settings, server, cluster).await;
            }
            Err(passing) => return Err(passing),
        }
        at += 1;
    }
    Ok(())
}

/// Makes the indices by hand, where there may be no templates.
async fn make_indices(
    settings: &Settings,
    server: Server,
    cluster: &Cluster,
) -> Result<(), Obstacle> {
    let mut indices = vec![(settings.traces_index(), false)];
    if settings.rotation == Rotation::None {
        indices.push((settings.spans_index(), true));
    }
    for (index, is_spans) in indices {
        make_index(&index, is_spans, settings, server, cluster).await.map_err(Obstacle::Refused)?;
    }
    Ok(())
}

/// Makes an index with our mapping. One that is there already is as good.
pub(super) async fn make_index(
    index: &str,
    is_spans: bool,
    settings: &Settings,
    server: Server,
    cluster: &Cluster,
) -> Result<(), String> {
    let body = templates::index_body(settings, server, is_spans).to_string();
    let response = cluster
        .ask(Method::PUT, &format!("/{index}"), Some(body))
        .await
        .map_err(|failure| failure.to_string())?;
    let (error, reason) = error_of(&response.body);
    if response.status.is_success() || error == "resource_already_exists_exception" {
        return Ok(());
    }
    Err(said(&response, &error, &reason))
}

async fn put(step: &Step, manage: ManageTemplates, cluster: &Cluster) -> Result<(), Obstacle> {
    let bare = step.path.split('?').next().unwrap_or_default();
    let is_wanted = match (manage, step.care) {
        (ManageTemplates::Overwrite, Care::Ours) => true,
        _ => match installed(bare, cluster).await? {
            Installed::Nothing | Installed::Hidden => true,
            Installed::Version(version) => step.care == Care::Ours && version < SCHEMA_VERSION,
        },
    };
    if !is_wanted {
        return Ok(());
    }
    let path = format!("/{}", step.path);
    let answer = cluster.ask(Method::PUT, &path, Some(step.body.to_string())).await;
    let response = answer.map_err(|failure| Obstacle::Away(failure.to_string()))?;
    let (error, reason) = error_of(&response.body);
    match classify::classify(response.status, &response.headers) {
        Verdict::Taken => Ok(()),
        // Somebody was faster.
        _ if step.care == Care::Theirs && reason.contains("already exists") => Ok(()),
        Verdict::Retry { .. } | Verdict::Throttled { .. } => {
            Err(Obstacle::Away(said(&response, &error, &reason)))
        }
        Verdict::Fault => Err(Obstacle::Broken(said(&response, &error, &reason))),
        _ => Err(Obstacle::Refused(said(&response, &error, &reason))),
    }
}

/// What is there of something that we would install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Installed {
    /// Nothing.
    Nothing,
    /// This version; 0 where it does not say.
    Version(u64),
    /// We may not look.
    Hidden,
}

/// Looks at what is there.
async fn installed(path: &str, cluster: &Cluster) -> Result<Installed, Obstacle> {
    let answer = cluster.ask(Method::GET, &format!("/{path}"), None).await;
    let response = answer.map_err(|failure| Obstacle::Away(failure.to_string()))?;
    let status = || classify::describe(response.status, &response.headers);
    match classify::classify(response.status, &response.headers) {
        Verdict::Taken => Ok(Installed::Version(version_in(&response.body))),
        Verdict::Retry { .. } | Verdict::Throttled { .. } => Err(Obstacle::Away(status())),
        Verdict::Fault => Err(Obstacle::Broken(status())),
        _ if response.status == StatusCode::NOT_FOUND => Ok(Installed::Nothing),
        _ => Ok(Installed::Hidden),
    }
}

/// The same for whoever asks from outside: what is there, in words that need no judgement.
pub(super) async fn look(path: &str, cluster: &Cluster) -> Result<Installed, String> {
    installed(path, cluster).await.map_err(|obstacle| match obstacle {
        Obstacle::Away(reason) | Obstacle::Broken(reason) | Obstacle::Refused(reason) => reason,
    })
}

/// The version of ours in the answer about a template: wherever `schema_version` stands, or a legacy template's `version`.
fn version_in(body: &[u8]) -> u64 {
    fn find(value: &serde_json::Value) -> Option<u64> {
        match value {
            serde_json::Value::Object(members) => {
                let own = members.get("schema_version").and_then(serde_json::Value::as_u64);
                own.or_else(|| members.values().find_map(find))
            }
            serde_json::Value::Array(elements) => elements.iter().find_map(find),
            _ => None,
        }
    }
    let answer = serde_json::from_slice::<serde_json::Value>(body).ok();
    answer.as_ref().and_then(find).unwrap_or_default()
}

fn said(response: &Response, error: &str, reason: &str) -> String {
    let status = classify::describe(response.status, &response.headers);
    if error.is_empty() { status } else { format!("{status}: {error}: {reason}") }
}
