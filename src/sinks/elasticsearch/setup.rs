//! Prepares the backend before the first document: identifies it, installs templates, and ensures that existing indices have the sink's
//! mapping.
//!
//! No document is sent to an index without this mapping, because a server that guesses one from the first document keeps it forever.
//! Differences are migrated if possible (templates, new fields, a data stream's next index), or reported if the next index will be right.
//! If only an operator can fix them, the sink holds.

use hyper::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tracing::{info, warn};

use super::cluster::{ClusterError, Why};
use super::options::{ManageTemplates, Rotation};
use super::server::Server;
use super::templates::{self, Step, Version, version_of};
use super::{Backend, lock};
use crate::sinks::Report;
use crate::sinks::http::Response;
use crate::sinks::http::classify::StatusClass;

impl Backend {
    /// Returns the identified server, or the assumed one.
    pub(super) fn server(&self) -> Server {
        let known = self.server.get().copied();
        known.unwrap_or_else(|| Server::assumed(self.settings.options.flavor))
    }

    fn say(&self, text: String) {
        warn!(sink = self.name, "{text}");
        *lock(&self.notice) = Some(text);
    }

    /// Returns whether the sink manages templates and mappings.
    pub(super) fn is_managed(&self) -> bool {
        let manage = self.settings.options.manage_templates;
        manage != ManageTemplates::Off && self.server().has_indices()
    }

    /// Runs the setup, unless all mappings are verified. A report explains why nothing can be delivered now.
    pub(super) async fn prepare(&self) -> Result<(), Report> {
        let _stage = self.stage.lock().await;
        if lock(&self.doubted).is_empty() {
            return Ok(());
        }
        if self.server.get().is_none() {
            let server = Server::read(self.settings.options.flavor, &self.detect().await?.body);
            info!(sink = self.name, server = server.describe(), "found");
            self.server.set(server).ok();
        }
        if !self.is_managed() {
            lock(&self.doubted).clear();
            return Ok(());
        }
        self.install().await.map_err(ClusterError::report)
    }

    /// Repeats the setup before the next delivery, because these indices were created by their first document. If the template was deleted,
    /// the server guessed their mapping.
    pub(super) fn doubt(&self, indices: impl IntoIterator<Item = String>) {
        if self.is_managed() {
            lock(&self.doubted).extend(indices);
        }
    }

    /// Does the same if a missing answer would have named the new index. The name of a daily index is unknown; if it has an older mapping,
    /// it keeps it.
    pub(super) fn doubt_all(&self) {
        self.doubt(self.undated_indices());
    }

    fn undated_indices(&self) -> impl Iterator<Item = String> {
        let is_one = self.settings.options.rotation == Rotation::None;
        self.settings.indices.iter().skip(usize::from(!is_one)).cloned()
    }

    /// Asks the backend to identify itself.
    pub(super) async fn detect(&self) -> Result<Response, Report> {
        // If the backend recovered after this failed, a document sent now would create an index without the sink's mapping.
        let answer = self.cluster.send(Method::GET, "", HeaderMap::new(), "").await;
        let response = answer.map_err(|failure| failure.report())?;
        if response.status == StatusCode::UNAUTHORIZED {
            let remedy = "set `api_key`, `user` and `password`, or `bearer`";
            return Err(Report::hold(format!("{}: {remedy}", response.reason())));
        }
        if let StatusClass::Throttled { after } | StatusClass::Retry { after } = response.class() {
            return Err(Report::down(after, response.reason()));
        }
        // A key with few privileges may not be allowed to ask. Then the usual features are assumed.
        Ok(response)
    }

    /// Installs what is missing, older or made from other options, and updates existing indices.
    async fn install(&self) -> Result<(), ClusterError> {
        *lock(&self.notice) = None;
        let sink = &self.name;
        let mut steps = templates::steps(&self.settings, self.server());
        let (mut at, count) = (0, steps.len());
        while let Some(step) = steps.get(at) {
            at += 1;
            let Err(obstacle) = self.put(step).await else { continue };
            let reason = obstacle.to_string();
            match obstacle.why {
                Why::Away => return Err(obstacle),
                _ if step.is_retention() => {
                    // The cluster lacks this feature, or the key the privilege: indices are kept until someone deletes them.
                    warn!(
                        sink,
                        reason, "the policy that deletes old indices could not be installed"
                    );
                    steps.iter_mut().for_each(Step::forget_retention);
                }
                Why::Forbidden | Why::Missing => {
                    let commands = templates::print(&steps);
                    warn!(sink, commands, "an administrator can run these commands");
                    self.say(format!("the index templates could not be installed ({reason})"));
                    self.make_bare_indices().await?;
                    break;
                }
                // Elasticsearch rejects the part of a template for plain indices (its timestamp field would be an alias) while the installed
                // template is still that of a data stream. So a part is installed again after its template; otherwise `rotation` could not
                // be changed back.
                Why::Refused if at <= count && step.path.starts_with("_component_template/") => {
                    steps.push(step.clone());
                }
                Why::Refused => {
                    let path = &step.path;
                    let reason = format!("the backend refuses {path} as configured ({reason})");
                    return Err(ClusterError { reason, ..obstacle });
                }
            }
        }
        // Indices that are doubted meanwhile are checked before the next delivery.
        let mut indices = lock(&self.doubted).clone();
        indices.extend(self.settings.indices.clone());
        for index in indices {
            self.check(&index).await?;
            lock(&self.doubted).remove(&index);
        }
        Ok(())
    }

    /// Adds missing fields to an existing index. An error explains why nothing may be delivered to it.
    async fn check(&self, index: &str) -> Result<(), ClusterError> {
        let rotation = self.settings.options.rotation;
        let is_rotated = matches!(rotation, Rotation::Daily | Rotation::Monthly)
            && index == self.settings.indices[0];
        let path = format!("/{index}{}/_mapping", if is_rotated { "-*" } else { "" });
        let put = |mut body: Value, at: &str| {
            let mapping = body.pointer_mut(at).map(Value::take).unwrap_or_default().to_string();
            self.cluster.ask(Method::PUT, &path, mapping)
        };
        let ours = templates::index_body(&self.settings, self.server(), index);
        let mut updated = put(ours, "/mappings").await;
        if updated.as_ref().is_err_and(|obstacle| obstacle.why == Why::Refused) {
            // A user's `@custom` template may override types, and an index that has them is correct.
            let simulate = format!("/_index_template/_simulate_index/{index}");
            let composed = self.cluster.ask(Method::POST, &simulate, "").await.ok();
            let composed = composed.and_then(|answer| serde_json::from_slice(&answer.body).ok());
            if let Some(body) = composed {
                updated = put(body, "/template/mappings").await;
            }
        }
        let Err(obstacle) = updated else { return Ok(()) };
        match obstacle.why {
            Why::Refused => {}
            Why::Away => return Err(obstacle),
            // A missing index is created by the template. A key that may not change an index may still write to it.
            Why::Missing | Why::Forbidden => return Ok(()),
        }
        let reason = &obstacle.reason;
        if is_rotated {
            self.say(format!("existing indices keep their mapping ({reason})"));
            return Ok(());
        }
        let path = format!("/{index}/_rollover");
        if self.settings.is_streamed(index)
            && self.cluster.ask(Method::POST, &path, "").await.is_ok()
        {
            let sink = &self.name;
            info!(sink, index, reason, "the data stream has a new index with the new mapping");
            return Ok(());
        }
        let reason = format!(
            "index {index} was made for other options, or while its template was missing, and cannot be changed ({reason}); set the \
             options back, give a new `index_prefix`, or reindex or delete what it has"
        );
        Err(ClusterError { reason, ..obstacle })
    }

    /// Creates the indices directly, if templates may not be installed.
    async fn make_bare_indices(&self) -> Result<(), ClusterError> {
        for index in self.undated_indices() {
            let Err(refused) = self.make_index(&index).await else { continue };
            if matches!(refused.why, Why::Away | Why::Refused) {
                return Err(refused);
            }
            // Another writer may have created it. Otherwise its first document would, without the sink's mapping.
            let ClusterError { why, reason } = refused;
            match self.cluster.ask(Method::HEAD, &format!("/{index}"), "").await {
                Err(obstacle) if obstacle.why == Why::Away => return Err(obstacle),
                Err(ClusterError { why: Why::Missing, .. })
                    if reason.contains("security_exception") =>
                {
                    let reason = format!(
                        "index {index} is missing and this key may not create it ({reason}); the log has the commands for an administrator"
                    );
                    return Err(ClusterError { why, reason });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Creates an index with the sink's mapping. An existing one is accepted.
    pub(super) async fn make_index(&self, index: &str) -> Result<(), ClusterError> {
        let body = templates::index_body(&self.settings, self.server(), index).to_string();
        match self.cluster.ask(Method::PUT, &format!("/{index}"), body).await {
            Err(made) if made.reason.contains("resource_already_exists_exception") => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn put(&self, step: &Step) -> Result<(), ClusterError> {
        let is_theirs = step.hash.is_none();
        let mut found = None;
        if self.settings.options.manage_templates != ManageTemplates::Overwrite || is_theirs {
            found = match self.installed(step.bare_path()).await {
                Err(obstacle) if obstacle.why == Why::Away => return Err(obstacle),
                // A key that may not look may be allowed to install.
                found => found.ok().flatten(),
            };
        }
        if !step.is_due(found.as_ref()) {
            return Ok(());
        }
        let path = format!("/{}", step.path);
        match self.cluster.ask(Method::PUT, &path, step.body.to_string()).await {
            // Another writer was faster.
            Err(faster) if is_theirs && faster.reason.contains("already exists") => {}
            answer => drop(answer?),
        }
        if found.is_some() {
            let sink = &self.name;
            info!(
                sink,
                path, "the installed templates differed from the options and were replaced"
            );
        }
        Ok(())
    }

    /// Looks up what is installed.
    pub(super) async fn installed(&self, path: &str) -> Result<Option<Version>, ClusterError> {
        match self.cluster.ask(Method::GET, &format!("/{path}"), "").await {
            Err(obstacle) if obstacle.why == Why::Missing => Ok(None),
            answer => Ok(Some(version_of(&answer?.body))),
        }
    }
}
