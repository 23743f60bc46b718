//! What `validate --probe` finds out: whether the far side is there, takes the credentials, grants the privileges, and which of
//! our templates it has. Nothing is left there.

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::cluster::Cluster;
use super::options::{ManageTemplates, Settings, TraceSummary};
use super::server::{Flavor, Server};
use super::setup::{Installed, look};
use super::templates::{self, Care, SCHEMA_VERSION};
use crate::sinks::http::classify;

/// Asks; the sentence says what was found, or what is wrong and how to mend it.
pub(super) async fn probe(settings: &Settings) -> Result<String, String> {
    let cluster = Cluster::new(settings).map_err(|error| error.to_string())?;
    let response =
        cluster.ask(Method::GET, "", None).await.map_err(|failure| failure.to_string())?;
    let status = classify::describe(response.status, &response.headers);
    if response.status == StatusCode::UNAUTHORIZED {
        return Err(format!("{status}: set `api_key`, `user` and `password`, or `bearer`"));
    }
    // A key with few privileges may not be allowed to ask.
    let may_ask = response.status != StatusCode::FORBIDDEN;
    if may_ask && !response.status.is_success() {
        return Err(format!("{status}: this address does not lead to a cluster"));
    }
    let server = if may_ask {
        Server::read(settings.flavor, &response.body)
    } else {
        Server::assumed(settings.flavor)
    };
    let mut said = vec![server.describe()];
    if settings.rotation == super::options::Rotation::DataStream && !server.has_data_streams() {
        return Err(format!("{} has no data streams: choose another `rotation`", said.concat()));
    }
    if server.flavor == Flavor::Elasticsearch {
        said.extend(privileges(settings, &cluster).await?);
    }
    if server.has_indices() && settings.manage_templates != ManageTemplates::Off {
        said.push(template_difference(settings, server, &cluster).await?);
    }
    Ok(said.join("; "))
}

/// Which privileges are missing. A cluster without security has nothing to say, and that is fine.
async fn privileges(settings: &Settings, cluster: &Cluster) -> Result<Option<String>, String> {
    #[derive(Deserialize)]
    struct Answer {
        has_all_requested: bool,
        #[serde(default)]
        index: std::collections::BTreeMap<String, std::collections::BTreeMap<String, bool>>,
        #[serde(default)]
        cluster: std::collections::BTreeMap<String, bool>,
    }
    let mut wanted = vec!["create_index", "index", "create"];
    if settings.trace_summary == TraceSummary::On {
        wanted.push("read");
    }
    let cluster_wanted: &[&str] = match settings.manage_templates {
        ManageTemplates::Off => &[],
        _ => &["manage_index_templates"],
    };
    let names = [format!("{}*", settings.spans_index()), format!("{}*", settings.traces_index())];
    let body = json!({
        "cluster": cluster_wanted, "index": [{ "names": names, "privileges": wanted }]
    });
    let path = "/_security/user/_has_privileges";
    let answer = cluster.ask(Method::POST, path, Some(body.to_string())).await;
    let response = answer.map_err(|failure| failure.to_string())?;
    let Ok(answer) = serde_json::from_slice::<Answer>(&response.body) else { return Ok(None) };
    if answer.has_all_requested {
        return Ok(Some("all privileges granted".to_owned()));
    }
    let missing_here = |granted: &std::collections::BTreeMap<String, bool>| {
        let missing = granted.iter().filter(|(_, granted)| !**granted);
        missing.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let mut missing: Vec<String> = answer
        .index
        .iter()
        .filter(|(_, granted)| granted.values().any(|granted| !granted))
        .map(|(name, granted)| format!("{} on {name}", missing_here(granted).join(", ")))
        .collect();
    let of_cluster = missing_here(&answer.cluster);
    if missing.is_empty() {
        // Somebody else can install the templates.
        let text = format!(
            "the key lacks {} (print the templates and have them installed)",
            of_cluster.join(", ")
        );
        return Ok(Some(text));
    }
    missing.extend(of_cluster);
    Err(format!("the key lacks {}", missing.join("; ")))
}

/// Which templates are there, and what would be done about them.
async fn template_difference(
    settings: &Settings,
    server: Server,
    cluster: &Cluster,
) -> Result<String, String> {
    let mut would_install = Vec::new();
    let mut newer = 0;
    for step in templates::steps(settings, server) {
        let path = step.path.split('?').next().unwrap_or_default();
        match look(path, cluster).await? {
            Installed::Nothing => would_install.push(path.to_owned()),
            Installed::Hidden => {
                return Ok("the templates cannot be looked at with this key".to_owned());
            }
            Installed::Version(_) if step.care == Care::Theirs => {}
            Installed::Version(version) if version < SCHEMA_VERSION => {
                would_install.push(format!("{path} (version {version} is there)"));
            }
            Installed::Version(version) => newer += u64::from(SCHEMA_VERSION < version),
        }
    }
    if 0 < newer {
        return Ok("the templates are of a newer version and stay".to_owned());
    }
    if would_install.is_empty() {
        return Ok(format!("templates of version {SCHEMA_VERSION} are installed"));
    }
    Ok(format!("would install {}", would_install.join(", ")))
}

/// The commands that install everything, for a server that nobody has to ask.
pub(super) fn commands(settings: &Settings) -> String {
    templates::print(&templates::steps(settings, Server::assumed(settings.flavor)))
}
