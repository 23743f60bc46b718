//! What `doctor` finds out: whether the backend is there, takes the credentials, grants the privileges, and which of
//! our templates it has. Nothing is left there.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::options::{ManageTemplates, Settings, TraceSummary};
use super::server::{Flavor, Server};
use super::templates::{self, Installed, SCHEMA_VERSION};

/// Asks; the sentence says what was found, or what is wrong and how to mend it.
pub(super) async fn probe(settings: &Settings) -> Result<String, String> {
    let cluster = Cluster::new(settings).map_err(|error| error.to_string())?;
    let response =
        cluster.ask_plainly(Method::GET, "", None).await.map_err(|failure| failure.to_string())?;
    let status = response.reason();
    match response.status {
        StatusCode::UNAUTHORIZED => {
            return Err(format!("{status}: set `api_key`, `user` and `password`, or `bearer`"));
        }
        // A key with few privileges may not be allowed to ask.
        StatusCode::FORBIDDEN => {}
        asked if asked.is_success() => {}
        _ => return Err(format!("{status}: this address does not lead to a cluster")),
    }
    let server = Server::read(settings.options.flavor, &response.body);
    let mut said = vec![server.describe()];
    if settings.is_stream() && !server.has_data_streams() {
        return Err(format!("{} has no data streams: choose another `rotation`", said.concat()));
    }
    if server.flavor == Flavor::Elasticsearch {
        said.extend(privileges(settings, &cluster).await?);
    }
    if server.has_indices() && settings.options.manage_templates != ManageTemplates::Off {
        said.push(template_difference(settings, server, &cluster).await?);
        mapping_difference(settings, server, &cluster).await?;
    }
    Ok(said.join("; "))
}

/// Which privileges are missing. A cluster without security has nothing to say, and that is fine.
async fn privileges(settings: &Settings, cluster: &Cluster) -> Result<Option<String>, String> {
    let mut wanted = vec!["create_index", "index", "create"];
    if settings.options.trace_summary == TraceSummary::On {
        wanted.push("read");
    }
    let is_managed = settings.options.manage_templates != ManageTemplates::Off;
    let of_cluster = Vec::from_iter(is_managed.then_some("manage_index_templates"));
    let names = settings.indices().map(|index| format!("{index}*"));
    let body = json!({
        "cluster": of_cluster, "index": [{ "names": names, "privileges": wanted }]
    });
    let path = "/_security/user/_has_privileges";
    let answer = cluster.ask_plainly(Method::POST, path, Some(body.to_string())).await;
    let response = answer.map_err(|failure| failure.to_string())?;
    let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    match answer["has_all_requested"].as_bool() {
        None => return Ok(None),
        Some(true) => return Ok(Some("all privileges granted".to_owned())),
        Some(false) => {}
    }
    let missing = |granted: &Value| {
        let granted = granted.as_object().into_iter().flatten();
        let missing = granted.filter(|(_, granted)| **granted == Value::Bool(false));
        let missing: Vec<_> = missing.map(|(name, _)| name.as_str()).collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    };
    let of_indices = answer["index"].as_object().into_iter().flatten();
    let mut lacks: Vec<_> = of_indices
        .filter_map(|(name, granted)| Some(format!("{} on {name}", missing(granted)?)))
        .collect();
    let others_can_help = lacks.is_empty();
    lacks.extend(missing(&answer["cluster"]));
    let lacks = format!("the key lacks {}", lacks.join("; "));
    if others_can_help {
        return Ok(Some(format!("{lacks} (print the templates and have them installed)")));
    }
    Err(lacks)
}

/// Which templates are there, and what would be done about them.
async fn template_difference(
    settings: &Settings,
    server: Server,
    cluster: &Cluster,
) -> Result<String, String> {
    let (mut due, mut is_newer) = (Vec::new(), false);
    for step in templates::steps(settings, server) {
        let path = step.bare_path();
        let found =
            Installed::find(path, cluster).await.map_err(|obstacle| obstacle.to_string())?;
        match found {
            Installed::Hidden => {
                return Ok("the templates cannot be looked at with this key".to_owned());
            }
            Installed::Nothing => due.push(path.to_owned()),
            Installed::Version(version, _) if step.is_due(&found) => due
                .push(format!("{path} (version {version}, or made from other options, is there)")),
            Installed::Version(version, _) => is_newer |= SCHEMA_VERSION < version,
        }
    }
    Ok(if is_newer {
        "the templates are of a newer version and stay".to_owned()
    } else if due.is_empty() {
        format!("templates of version {SCHEMA_VERSION} are installed")
    } else {
        format!("would install {}", due.join(", "))
    })
}

/// Fields of the index that is there that have other types than ours, which holds the sink.
async fn mapping_difference(
    settings: &Settings,
    server: Server,
    cluster: &Cluster,
) -> Result<(), String> {
    for index in settings.indices() {
        let answer = cluster.ask_plainly(Method::GET, &format!("/{index}/_mapping"), None).await;
        let response = answer.map_err(|failure| failure.to_string())?;
        // An index that is not there has no other mapping; a key may not be allowed to look.
        let Ok(Value::Object(there)) = serde_json::from_slice(&response.body) else { continue };
        // Of a data stream the next index will be right.
        if settings.is_streamed(&index) && 1 < there.len() {
            continue;
        }
        let wanted = templates::index_body(settings, server, &index);
        let fields = wanted["mappings"]["properties"].as_object();
        for there in there.values().filter_map(|there| there.pointer("/mappings/properties")) {
            let differs = |(name, field): &(&String, &Value)| {
                let there = there.get(name).map(|there| there.get("type"));
                field.get("type").is_some_and(|ours| there.is_some_and(|it| it != Some(ours)))
            };
            let other = fields.into_iter().flatten().filter(differs);
            let other: Vec<&str> = other.map(|(name, _)| name.as_str()).collect();
            if !other.is_empty() {
                return Err(format!(
                    "index {index} was made for other options: {} differ; set them back, or give a new `index_prefix`",
                    other.join(", ")
                ));
            }
        }
    }
    Ok(())
}

/// The commands that install everything, for a server that nobody has to ask.
pub(super) fn commands(settings: &Settings) -> String {
    templates::print(&templates::steps(settings, Server::assumed(settings.options.flavor)))
}
