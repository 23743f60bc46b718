//! What happens before the first document: finding out what the backend is, installing templates, and seeing to it that the indices
//! that are there have our mapping.
//!
//! No document is sent to an index that lacks it: a mapping that a server guesses from the first document stays for good. What differs
//! is migrated where it can be (templates, fields that are new, a data stream's next index), said where the next index makes it right,
//! and holds the sink where only an operator can.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::{Method, StatusCode};
use tracing::{info, warn};

use super::cluster::Cluster;
use super::options::{ManageTemplates, Rotation, Settings};
use super::response::error_of;
use super::server::Server;
use super::templates::{self, Care, Installed, Step};
use crate::sinks::Report;
use crate::sinks::http::Response;
use crate::sinks::http::classify::{self, StatusClass};

/// What is known of the backend, and what was done there.
#[derive(Debug)]
pub(super) struct Setup {
    server: Mutex<Server>,
    /// What an operator should know although documents arrive.
    notice: Mutex<Option<String>>,
    /// Held while something is done; whether the backend was asked what it is.
    stage: tokio::sync::Mutex<bool>,
    is_done: AtomicBool,
}

/// Why something is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Obstacle {
    /// The backend cannot be reached, or fails: it may work later.
    #[error("{0}")]
    Away(String),
    /// The key may not.
    #[error("{0}")]
    Forbidden(String),
    /// The backend will not take it as it is.
    #[error("{0}")]
    Refused(String),
}

impl Setup {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            server: Mutex::new(Server::assumed(settings.flavor)),
            notice: Mutex::new(None),
            stage: tokio::sync::Mutex::default(),
            is_done: AtomicBool::new(false),
        }
    }

    /// What the backend is, as far as is known.
    pub(super) fn server(&self) -> Server {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an operator should know although documents arrive.
    pub(super) fn notice(&self) -> Option<String> {
        self.notice_of().clone()
    }

    fn notice_of(&self) -> MutexGuard<'_, Option<String>> {
        self.notice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, sink: &str, text: String) {
        warn!(sink, "{text}");
        *self.notice_of() = Some(text);
    }

    /// Makes ready, once. A report says why nothing can be delivered now.
    pub(super) async fn prepare(
        &self,
        sink: &str,
        settings: &Settings,
        cluster: &Cluster,
    ) -> Result<(), Report> {
        if self.is_done.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut is_detected = self.stage.lock().await;
        if self.is_done.load(Ordering::Acquire) {
            return Ok(());
        }
        if !*is_detected {
            self.detect(sink, settings, cluster).await?;
            *is_detected = true;
        }
        if settings.manage_templates != ManageTemplates::Off && self.server().has_indices() {
            self.install(sink, settings, cluster).await.map_err(|obstacle| match obstacle {
                Obstacle::Away(reason) => Report::down(None, reason),
                Obstacle::Forbidden(reason) | Obstacle::Refused(reason) => Report::hold(reason),
            })?;
        }
        self.is_done.store(true, Ordering::Release);
        Ok(())
    }

    /// Asks what the backend is.
    async fn detect(
        &self,
        sink: &str,
        settings: &Settings,
        cluster: &Cluster,
    ) -> Result<(), Report> {
        // A document sent now would make an index without our mapping, should the backend come back in between.
        let answer = cluster.ask(Method::GET, "", None).await;
        let response = answer.map_err(|failure| failure.report())?;
        let status = classify::describe(response.status, &response.headers);
        if response.status == StatusCode::UNAUTHORIZED {
            return Err(Report::hold(format!("{status}: the credentials are wrong")));
        }
        if let StatusClass::Throttled { after } | StatusClass::Retry { after } =
            classify::classify(response.status, &response.headers)
        {
            return Err(Report::down(after, status));
        }
        // A key with few privileges may not be allowed to ask; then the usual is assumed.
        if response.status.is_success() {
            let server = Server::read(settings.flavor, &response.body);
            *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
        }
        info!(sink, server = self.server().describe(), "found");
        Ok(())
    }

    /// Installs what is missing, older or made from other options, and sees to the indices that are there.
    async fn install(
        &self,
        sink: &str,
        settings: &Settings,
        cluster: &Cluster,
    ) -> Result<(), Obstacle> {
        *self.notice_of() = None;
        let server = self.server();
        let mut steps = templates::steps(settings, server);
        for at in 0..steps.len() {
            let Some(step) = steps.get(at) else { break };
            match put(sink, step, settings.manage_templates, cluster).await {
                Ok(()) => {}
                Err(Obstacle::Away(reason)) => return Err(Obstacle::Away(reason)),
                Err(obstacle) if step.is_retention() => {
                    // A cluster without this feature, or a key without the privilege: the indices are kept until somebody deletes them.
                    let reason = obstacle.to_string();
                    warn!(sink, reason, "no rule for deleting old indices could be installed");
                    steps.iter_mut().for_each(Step::forget_retention);
                }
                Err(Obstacle::Forbidden(reason)) => {
                    let commands = templates::print(&steps);
                    warn!(sink, commands, "somebody who may can run these commands");
                    let text = format!("the index templates could not be installed ({reason})");
                    self.say(sink, text);
                    make_indices(settings, server, cluster).await?;
                    break;
                }
                Err(Obstacle::Refused(reason)) => {
                    let path = &step.path;
                    let text = format!("the backend refuses {path} as configured ({reason})");
                    return Err(Obstacle::Refused(text));
                }
            }
        }
        for (index, is_spans) in [(settings.spans_index(), true), (settings.traces_index(), false)]
        {
            self.check(sink, &index, is_spans, settings, cluster).await?;
        }
        Ok(())
    }

    /// An index was made by its first document just now. An error says why it must not be used.
    pub(super) async fn check_new(
        &self,
        index: &str,
        settings: &Settings,
        cluster: &Cluster,
    ) -> Result<(), String> {
        if settings.manage_templates == ManageTemplates::Off || !self.server().has_indices() {
            return Ok(());
        }
        let is_spans = index.starts_with(&settings.spans_index());
        let body = templates::mapping(settings, self.server(), is_spans);
        match update_mapping(index, &body, cluster).await {
            Err(Obstacle::Refused(reason)) => {
                self.is_done.store(false, Ordering::Release);
                Err(format!(
                    "index {index} was made without our mapping, since its template was deleted ({reason}); what it has \
                     is to be reindexed or deleted"
                ))
            }
            _ => Ok(()),
        }
    }

    /// Gives an index that is there the fields that it lacks.
    async fn check(
        &self,
        sink: &str,
        index: &str,
        is_spans: bool,
        settings: &Settings,
        cluster: &Cluster,
    ) -> Result<(), Obstacle> {
        let is_rotated =
            is_spans && matches!(settings.rotation, Rotation::Daily | Rotation::Monthly);
        let target = if is_rotated { format!("{index}-*") } else { index.to_owned() };
        let body = templates::mapping(settings, self.server(), is_spans);
        let Err(Obstacle::Refused(reason)) = update_mapping(&target, &body, cluster).await else {
            return Ok(());
        };
        if is_rotated {
            self.say(
                sink,
                format!(
                    "indices that are there keep the mapping that they were made with ({reason})"
                ),
            );
            return Ok(());
        }
        if is_spans && settings.is_stream() {
            let answer = cluster.ask(Method::POST, &format!("/{index}/_rollover"), None).await;
            if answer.is_ok_and(|response| response.status.is_success()) {
                info!(sink, index, reason, "the data stream has a new index with the new mapping");
                return Ok(());
            }
        }
        Err(Obstacle::Refused(format!(
            "index {index} was made for other options and cannot be changed ({reason}); set them back, give a new \
             `index_prefix`, or delete the index"
        )))
    }
}

/// Adds fields to indices that are there.
async fn update_mapping(
    target: &str,
    mapping: &serde_json::Value,
    cluster: &Cluster,
) -> Result<(), Obstacle> {
    let path = format!("/{target}/_mapping");
    ask(Method::PUT, &path, Some(mapping.to_string()), cluster).await.map(drop)
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
        let Err(obstacle) = make_index(&index, is_spans, settings, server, cluster).await else {
            continue;
        };
        let Obstacle::Forbidden(reason) = &obstacle else { return Err(obstacle) };
        // Somebody may have made it. Where nobody has, its first document would, without our mapping.
        let answer = cluster.ask(Method::HEAD, &format!("/{index}"), None).await;
        let response = answer.map_err(|failure| Obstacle::Away(failure.to_string()))?;
        if response.status == StatusCode::NOT_FOUND && reason.contains("security_exception") {
            return Err(Obstacle::Forbidden(format!(
                "index {index} is missing and may not be made ({reason}); the log has the commands for somebody who may"
            )));
        }
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
) -> Result<(), Obstacle> {
    let body = templates::index_body(settings, server, is_spans).to_string();
    match ask(Method::PUT, &format!("/{index}"), Some(body), cluster).await {
        Err(Obstacle::Refused(reason)) if reason.contains("resource_already_exists_exception") => {
            Ok(())
        }
        answer => answer.map(drop),
    }
}

async fn put(
    sink: &str,
    step: &Step,
    manage: ManageTemplates,
    cluster: &Cluster,
) -> Result<(), Obstacle> {
    let mut was_there = false;
    if manage != ManageTemplates::Overwrite || step.care == Care::Theirs {
        let found = installed(step.bare_path(), cluster).await?;
        if !step.is_due(&found) {
            return Ok(());
        }
        was_there = found.is_there();
    }
    let path = format!("/{}", step.path);
    match ask(Method::PUT, &path, Some(step.body.to_string()), cluster).await {
        // Somebody was faster.
        Err(Obstacle::Refused(reason))
            if step.care == Care::Theirs && reason.contains("already exists") =>
        {
            Ok(())
        }
        Ok(_) if was_there => {
            info!(sink, path, "what was installed differed from the options and was replaced");
            Ok(())
        }
        answer => answer.map(drop),
    }
}

/// Looks at what is there of something that we would install.
pub(super) async fn installed(path: &str, cluster: &Cluster) -> Result<Installed, Obstacle> {
    let answer = cluster.ask(Method::GET, &format!("/{path}"), None).await;
    let response = answer.map_err(|failure| Obstacle::Away(failure.to_string()))?;
    match classify::classify(response.status, &response.headers) {
        StatusClass::Taken => Ok(Installed::read(&response.body)),
        _ if response.status == StatusCode::NOT_FOUND => Ok(Installed::Nothing),
        StatusClass::Retry { .. } | StatusClass::Throttled { .. } | StatusClass::Fault => {
            Err(Obstacle::Away(said(&response)))
        }
        _ => Ok(Installed::Hidden),
    }
}

async fn ask(
    method: Method,
    path: &str,
    body: Option<String>,
    cluster: &Cluster,
) -> Result<Response, Obstacle> {
    let answer = cluster.ask(method, path, body).await;
    let response = answer.map_err(|failure| Obstacle::Away(failure.to_string()))?;
    match classify::classify(response.status, &response.headers) {
        StatusClass::Taken => Ok(response),
        StatusClass::Retry { .. } | StatusClass::Throttled { .. } | StatusClass::Fault => {
            Err(Obstacle::Away(said(&response)))
        }
        // A key that is not known now says nothing about what it may do when it is.
        StatusClass::Stop if response.status == StatusCode::UNAUTHORIZED => {
            Err(Obstacle::Away(said(&response)))
        }
        StatusClass::Stop => Err(Obstacle::Forbidden(said(&response))),
        StatusClass::TooLarge | StatusClass::Malformed => Err(Obstacle::Refused(said(&response))),
    }
}

fn said(response: &Response) -> String {
    let status = classify::describe(response.status, &response.headers);
    let (error, reason) = error_of(&response.body);
    if error.is_empty() { status } else { format!("{status}: {error}: {reason}") }
}
