//! What happens before the first document: finding out what the backend is, installing templates, and seeing to it that the indices
//! that are there have our mapping.
//!
//! No document is sent to an index that lacks it: a mapping that a server guesses from the first document stays for good. What differs
//! is migrated where it can be (templates, fields that are new, a data stream's next index), said where the next index makes it right,
//! and holds the sink where only an operator can.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::{Method, StatusCode};
use serde_json::Value;
use tracing::{info, warn};

use super::cluster::{Cluster, Obstacle};
use super::options::{ManageTemplates, Rotation, Settings};
use super::server::Server;
use super::templates::{self, Care, Installed, Step};
use super::{Backend, lock};
use crate::sinks::Report;
use crate::sinks::http::classify::StatusClass;

/// What is known of the backend, and what was done there.
#[derive(Debug)]
pub(super) struct Setup {
    server: Mutex<Server>,
    /// What an operator should know although documents arrive.
    notice: Mutex<Option<String>>,
    /// Indices that may have been made by a document of ours just now, until they are known to have our mapping.
    doubted: Mutex<BTreeSet<String>>,
    /// Held while something is done; whether the backend was asked what it is.
    stage: tokio::sync::Mutex<bool>,
    is_done: AtomicBool,
}

impl Setup {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            server: Mutex::new(Server::assumed(settings.options.flavor)),
            notice: Mutex::new(None),
            doubted: Mutex::default(),
            stage: tokio::sync::Mutex::default(),
            is_done: AtomicBool::new(false),
        }
    }

    pub(super) fn server(&self) -> Server {
        *lock(&self.server)
    }

    pub(super) fn notice(&self) -> Option<String> {
        lock(&self.notice).clone()
    }
}

impl Backend {
    fn say(&self, text: String) {
        warn!(sink = self.name, "{text}");
        *lock(&self.setup.notice) = Some(text);
    }

    /// Whether templates and mappings are ours to see to.
    fn is_managed(&self) -> bool {
        let manage = self.settings.options.manage_templates;
        manage != ManageTemplates::Off && self.setup.server().has_indices()
    }

    /// Makes ready, once. A report says why nothing can be delivered now.
    pub(super) async fn prepare(&self) -> Result<(), Report> {
        let setup = &self.setup;
        if setup.is_done.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut is_detected = setup.stage.lock().await;
        if setup.is_done.load(Ordering::Acquire) {
            return Ok(());
        }
        if !*is_detected {
            self.detect().await?;
            *is_detected = true;
        }
        if self.is_managed() {
            self.install().await.map_err(|obstacle| match obstacle {
                Obstacle::Away(reason) => Report::down(None, reason),
                other => Report::hold(other.to_string()),
            })?;
        }
        // What was doubted meanwhile is looked at before the next delivery.
        let doubted = lock(&setup.doubted);
        setup.is_done.store(doubted.is_empty(), Ordering::Release);
        Ok(())
    }

    /// Has everything looked at again before more is delivered: these indices were made by their first document, which a server does
    /// with a mapping that it guesses where the template was deleted.
    pub(super) fn doubt(&self, indices: impl IntoIterator<Item = String>) {
        let mut doubted = lock(&self.setup.doubted);
        doubted.extend(indices.into_iter().filter(|_| self.is_managed()));
        if !doubted.is_empty() {
            self.setup.is_done.store(false, Ordering::Release);
        }
    }

    /// The same, where an answer is missing that would have said which index is new. Of an index for each day that is not known: its
    /// mapping may be an older one, which stays.
    pub(super) fn doubt_all(&self) {
        let is_one = self.settings.options.rotation == Rotation::None;
        let spans = is_one.then(|| self.settings.spans_index());
        self.doubt(spans.into_iter().chain([self.settings.traces_index()]));
    }

    /// Asks what the backend is.
    async fn detect(&self) -> Result<(), Report> {
        // A document sent now would make an index without our mapping, should the backend come back in between.
        let answer = self.cluster.ask_plainly(Method::GET, "", None).await;
        let response = answer.map_err(|failure| failure.report())?;
        if response.status == StatusCode::UNAUTHORIZED {
            return Err(Report::hold(format!("{}: the credentials are wrong", response.reason())));
        }
        if let StatusClass::Throttled { after } | StatusClass::Retry { after } = response.class() {
            return Err(Report::down(after, response.reason()));
        }
        // A key with few privileges may not be allowed to ask; then the usual is assumed.
        if response.status.is_success() {
            let server = Server::read(self.settings.options.flavor, &response.body);
            *lock(&self.setup.server) = server;
        }
        info!(sink = self.name, server = self.setup.server().describe(), "found");
        Ok(())
    }

    /// Installs what is missing, older or made from other options, and sees to the indices that are there.
    async fn install(&self) -> Result<(), Obstacle> {
        *lock(&self.setup.notice) = None;
        let sink = &self.name;
        let mut steps = templates::steps(&self.settings, self.setup.server());
        let mut at = 0;
        while let Some(step) = steps.get(at) {
            at += 1;
            match self.put_in_order(step, steps.get(at..).unwrap_or_default()).await {
                Ok(()) => {}
                Err(Obstacle::Away(reason)) => return Err(Obstacle::Away(reason)),
                Err(obstacle) if step.is_retention() => {
                    // A cluster without this feature, or a key without the privilege: the indices are kept until somebody deletes them.
                    let reason = obstacle.to_string();
                    warn!(sink, reason, "no rule for deleting old indices could be installed");
                    steps.iter_mut().for_each(Step::forget_retention);
                }
                Err(Obstacle::Forbidden(reason) | Obstacle::Missing(reason)) => {
                    let commands = templates::print(&steps);
                    warn!(sink, commands, "somebody who may can run these commands");
                    self.say(format!("the index templates could not be installed ({reason})"));
                    self.make_bare_indices().await?;
                    break;
                }
                Err(Obstacle::Refused(reason)) => {
                    let path = &step.path;
                    let text = format!("the backend refuses {path} as configured ({reason})");
                    return Err(Obstacle::Refused(text));
                }
            }
        }
        let mut indices = lock(&self.setup.doubted).clone();
        indices.extend([self.settings.spans_index(), self.settings.traces_index()]);
        for index in indices {
            self.check(&index).await?;
            lock(&self.setup.doubted).remove(&index);
        }
        Ok(())
    }

    /// Gives an index that is there the fields that it lacks. An error says why nothing must be delivered to it.
    async fn check(&self, index: &str) -> Result<(), Obstacle> {
        let (spans, rotation) = (self.settings.spans_index(), self.settings.options.rotation);
        let are_rotated = index == spans && matches!(rotation, Rotation::Daily | Rotation::Monthly);
        let target = if are_rotated { format!("{index}-*") } else { index.to_owned() };
        let reason = match self.update_mapping(&target, index).await {
            Err(Obstacle::Refused(reason)) => reason,
            Err(Obstacle::Away(reason)) => return Err(Obstacle::Away(reason)),
            // Where there is none, the template makes it; who may not change it may still write to it.
            Ok(()) | Err(Obstacle::Missing(_) | Obstacle::Forbidden(_)) => return Ok(()),
        };
        if are_rotated {
            self.say(format!(
                "indices that are there keep the mapping that they were made with ({reason})"
            ));
            return Ok(());
        }
        if index == spans && self.settings.is_stream() {
            let path = format!("/{index}/_rollover");
            if self.cluster.ask(Method::POST, &path, None).await.is_ok() {
                let sink = &self.name;
                info!(sink, index, reason, "the data stream has a new index with the new mapping");
                return Ok(());
            }
        }
        Err(Obstacle::Refused(format!(
            "index {index} was made for other options, or while its template was missing, and cannot be changed ({reason}); set the \
             options back, give a new `index_prefix`, or reindex or delete what it has"
        )))
    }

    /// Adds fields to indices that are there.
    async fn update_mapping(&self, target: &str, index: &str) -> Result<(), Obstacle> {
        let path = format!("/{target}/_mapping");
        let put = |mapping: Value| self.cluster.ask(Method::PUT, &path, Some(mapping.to_string()));
        let is_spans = index.starts_with(&self.settings.spans_index());
        let ours = templates::mapping(&self.settings, self.setup.server(), is_spans);
        let reason = match put(ours).await {
            Err(Obstacle::Refused(reason)) => reason,
            answer => return answer.map(drop),
        };
        // A user's `@custom` may say other types than we do, and an index that has them was made as it should be.
        let path = format!("/_index_template/_simulate_index/{index}");
        let Ok(composed) = self.cluster.ask(Method::POST, &path, None).await else {
            return Err(Obstacle::Refused(reason));
        };
        let mut composed: Value = serde_json::from_slice(&composed.body).unwrap_or_default();
        match composed.pointer_mut("/template/mappings") {
            Some(mapping) => put(mapping.take()).await.map(drop),
            None => Err(Obstacle::Refused(reason)),
        }
    }

    /// Makes the indices by hand, where there may be no templates.
    async fn make_bare_indices(&self) -> Result<(), Obstacle> {
        let mut indices = vec![(self.settings.traces_index(), false)];
        if self.settings.options.rotation == Rotation::None {
            indices.push((self.settings.spans_index(), true));
        }
        for (index, is_spans) in indices {
            let reason = match self.make_index(&index, is_spans).await {
                Ok(()) => continue,
                Err(Obstacle::Forbidden(reason) | Obstacle::Missing(reason)) => reason,
                Err(obstacle) => return Err(obstacle),
            };
            // Somebody may have made it. Where nobody has, its first document would, without our mapping.
            match self.cluster.ask(Method::HEAD, &format!("/{index}"), None).await {
                Err(Obstacle::Missing(_)) if reason.contains("security_exception") => {
                    return Err(Obstacle::Forbidden(format!(
                        "index {index} is missing and may not be made ({reason}); the log has the commands for somebody who may"
                    )));
                }
                Err(Obstacle::Away(reason)) => return Err(Obstacle::Away(reason)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes an index with our mapping. One that is there already is as good.
    pub(super) async fn make_index(&self, index: &str, is_spans: bool) -> Result<(), Obstacle> {
        let server = self.setup.server();
        let body = templates::index_body(&self.settings, server, is_spans).to_string();
        match self.cluster.ask(Method::PUT, &format!("/{index}"), Some(body)).await {
            Err(Obstacle::Refused(reason))
                if reason.contains("resource_already_exists_exception") =>
            {
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    /// Puts what is to be installed before these. Elasticsearch refuses the part of a template for plain indices ("data stream timestamp
    /// field [@timestamp] is of type [alias]") while the template that is there is still that of a data stream: then the template goes
    /// before its parts, or nobody could set `rotation` back.
    async fn put_in_order(&self, step: &Step, behind: &[Step]) -> Result<(), Obstacle> {
        let refused = match self.put(step).await {
            Err(Obstacle::Refused(reason)) if step.path.starts_with("_component_template/") => {
                Obstacle::Refused(reason)
            }
            done => return done,
        };
        let template = behind.iter().find(|step| step.path.starts_with("_index_template/"));
        let Some(template) = template else { return Err(refused) };
        self.put(template).await.map_err(|_| refused)?;
        self.put(step).await
    }

    async fn put(&self, step: &Step) -> Result<(), Obstacle> {
        let is_theirs = step.care == Care::Theirs;
        let mut was_there = false;
        if self.settings.options.manage_templates != ManageTemplates::Overwrite || is_theirs {
            let found = Installed::find(step.bare_path(), &self.cluster).await?;
            if !step.is_due(&found) {
                return Ok(());
            }
            was_there = found.is_there();
        }
        let path = format!("/{}", step.path);
        match self.cluster.ask(Method::PUT, &path, Some(step.body.to_string())).await {
            // Somebody was faster.
            Err(Obstacle::Refused(reason)) if is_theirs && reason.contains("already exists") => {}
            Ok(_) if was_there => {
                let sink = &self.name;
                info!(sink, path, "what was installed differed from the options and was replaced");
            }
            answer => drop(answer?),
        }
        Ok(())
    }
}

impl Installed {
    /// Looks at what is there of something that we would install.
    pub(super) async fn find(path: &str, cluster: &Cluster) -> Result<Self, Obstacle> {
        match cluster.ask(Method::GET, &format!("/{path}"), None).await {
            Ok(response) => Ok(Self::read(&response.body)),
            Err(Obstacle::Missing(_)) => Ok(Self::Nothing),
            Err(Obstacle::Away(reason)) => Err(Obstacle::Away(reason)),
            Err(Obstacle::Forbidden(_) | Obstacle::Refused(_)) => Ok(Self::Hidden),
        }
    }
}
