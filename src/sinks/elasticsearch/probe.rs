//! The checks of `doctor`: whether the backend is reachable, accepts the credentials, grants the privileges, and which templates it has.
//! They leave nothing there.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::Backend;
use super::cluster::{ClusterError, Why};
use super::options::TraceSummary;
use super::server::{DATA_STREAMS, Flavor, Server};
use super::templates::{self, SCHEMA_VERSION};

impl Backend {
    /// Checks the backend. Returns a sentence with the finding, or with the problem and its remedy.
    pub(super) async fn probe(&self) -> Result<String, ClusterError> {
        let response = self.detect().await?;
        // A key with few privileges may not be allowed to ask.
        if !response.status.is_success() && response.status != StatusCode::FORBIDDEN {
            let what = "this address does not lead to a cluster";
            return Err(ClusterError::away(format!("{}: {what}", response.reason())));
        }
        let flavor = self.settings.options.flavor;
        let server = *self.server.get_or_init(|| Server::read(flavor, &response.body));
        let mut said = vec![server.describe()];
        if self.settings.is_stream() && !server.has(DATA_STREAMS) {
            let what = "has no data streams: choose another `rotation`";
            return Err(ClusterError::away(format!("{} {what}", server.describe())));
        }
        if server.flavor == Flavor::Elasticsearch {
            said.extend(self.privileges().await?);
        }
        if self.is_managed() {
            said.push(self.template_difference().await?);
            self.mapping_difference().await?;
        }
        Ok(said.join("; "))
    }

    /// Reports missing privileges. A cluster without security does not answer the question, which is fine.
    async fn privileges(&self) -> Result<Option<String>, ClusterError> {
        let mut wanted = vec!["create_index", "index", "create"];
        wanted.extend((self.settings.options.trace_summary == TraceSummary::On).then_some("read"));
        let of_cluster = Vec::from_iter(self.is_managed().then_some("manage_index_templates"));
        let names = self.settings.indices.each_ref().map(|index| format!("{index}*"));
        let body = json!({
            "cluster": of_cluster, "index": [{ "names": names, "privileges": wanted }]
        });
        let path = "/_security/user/_has_privileges";
        let answer = self.cluster.ask(Method::POST, path, body.to_string()).await;
        let answer: Value = answer
            .map(|it| serde_json::from_slice(&it.body).unwrap_or_default())
            .unwrap_or_default();
        let Some(has_all) = answer.get("has_all_requested").and_then(Value::as_bool) else {
            return Ok(None);
        };
        let missing = |granted: &Value| {
            let granted = granted.as_object().into_iter().flatten();
            let missing = granted.filter(|(_, granted)| **granted == Value::Bool(false));
            let missing: Vec<_> = missing.map(|(name, _)| name.as_str()).collect();
            (!missing.is_empty()).then(|| missing.join(", "))
        };
        let of_indices = answer.get("index").and_then(Value::as_object).into_iter().flatten();
        let of_indices = of_indices
            .filter_map(|(name, granted)| Some(format!("{} on {name}", missing(granted)?)));
        let mut lacks: Vec<_> = of_indices.collect();
        let others_can_help = lacks.is_empty();
        lacks.extend(answer.get("cluster").and_then(missing));
        let lacks = format!("the key lacks {}", lacks.join("; "));
        match (has_all, others_can_help) {
            (true, _) => Ok(Some("all privileges granted".to_owned())),
            (_, true) => Ok(Some(format!(
                "{lacks} (print the templates with `spanferry config commands` and have them installed)"
            ))),
            (_, false) => Err(ClusterError::away(lacks)),
        }
    }

    /// Reports which templates are installed, and what would be changed.
    async fn template_difference(&self) -> Result<String, ClusterError> {
        let mut due = Vec::new();
        for step in templates::steps(&self.settings, self.server()) {
            let path = step.bare_path();
            match self.installed(path).await {
                Err(obstacle) if obstacle.why == Why::Away => return Err(obstacle),
                Err(_) => return Ok("this key may not read the templates".to_owned()),
                Ok(Some((version, _))) if SCHEMA_VERSION < version => {
                    return Ok("the installed templates are newer and stay".to_owned());
                }
                Ok(found) if !step.is_due(found.as_ref()) => {}
                Ok(None) => due.push(path.to_owned()),
                Ok(Some((version, _))) => due.push(format!(
                    "{path} (version {version}, or made from other options, is installed)"
                )),
            }
        }
        if due.is_empty() {
            return Ok(format!("templates of version {SCHEMA_VERSION} are installed"));
        }
        Ok(format!("would install {}", due.join(", ")))
    }

    /// Fails if an existing index has fields with other types than the sink's, which would make the sink hold.
    async fn mapping_difference(&self) -> Result<(), ClusterError> {
        for index in &self.settings.indices {
            let answer = self.cluster.ask(Method::GET, &format!("/{index}/_mapping"), "").await;
            // A missing index has no other mapping, and a key may not be allowed to look.
            let there = answer.ok().and_then(|it| serde_json::from_slice(&it.body).ok());
            let Some(Value::Object(there)) = there else { continue };
            // The next index of a data stream will be right.
            if self.settings.is_streamed(index) && 1 < there.len() {
                continue;
            }
            let wanted = templates::index_body(&self.settings, self.server(), index);
            let ours = wanted.pointer("/mappings/properties").and_then(Value::as_object);
            for there in there.values().filter_map(|there| there.pointer("/mappings/properties")) {
                let differs = |(name, field): &(&String, &Value)| {
                    let (ours, there) = (field.get("type"), there.get(name.as_str()));
                    ours.is_some() && there.is_some_and(|there| there.get("type") != ours)
                };
                let other = ours.into_iter().flatten().filter(differs);
                let other: Vec<&str> = other.map(|(name, _)| name.as_str()).collect();
                if !other.is_empty() {
                    return Err(ClusterError::away(format!(
                        "index {index} was made for other options: {} differ; restore them, or set a new `index_prefix`",
                        other.join(", ")
                    )));
                }
            }
        }
        Ok(())
    }
}
