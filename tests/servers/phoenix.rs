//! Arize Phoenix 20.26.1 with its database in its own directory, and its APIs.
//!
//! The Python package `arize-phoenix` in its own virtual environment (855 MB), which takes a minute and requires Python with `venv` and
//! `PyPI`. Started as `phoenix serve` with its ports and directory in the environment, it answers after 10 to 20 s. It accepts OTLP as
//! protobuf only, and acknowledges before it stores.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::process::free_port;
use super::{Recipe, Server, get, post, run};

const PACKAGE: &str = "arize-phoenix==20.26.1";

const RECIPE: Recipe = Recipe {
    name: "phoenix",
    folder: "phoenix-20.26.1",
    source: PACKAGE,
    is_bound_to_its_path: true,
    make,
};

const START_MAX: Duration = Duration::from_mins(2);
/// Maximum number of spans in one page of its list.
const PAGE_SPANS: usize = 1000;

fn make(folder: &Path) -> Result<(), String> {
    let venv = folder.join("venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"])
        .arg(PACKAGE))
}

/// Returns the program; `None` if it was not opted in.
pub(crate) fn program() -> Option<PathBuf> {
    Some(RECIPE.have()?.join("venv/bin/phoenix"))
}

/// A running Phoenix.
pub(crate) struct Phoenix {
    _server: Server,
    /// The port for OTLP over HTTP and for its APIs.
    pub(crate) http: u16,
}

impl Phoenix {
    pub(crate) async fn start(program: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (http, grpc) = (free_port().port(), free_port().port());
        let mut command = Command::new(program);
        command
            .arg("serve")
            .env("PHOENIX_HOST", "127.0.0.1")
            .env("PHOENIX_PORT", http.to_string())
            .env("PHOENIX_GRPC_PORT", grpc.to_string())
            .env("PHOENIX_WORKING_DIR", dir.path())
            .env("PHOENIX_TELEMETRY_ENABLED", "false")
            .env("PHOENIX_ENABLE_MCP_SERVER", "false");
        let mut server = Server::start(&mut command, dir);
        server.listens(&[http], START_MAX).await;
        Self { _server: server, http }
    }

    /// Returns all spans of a project, as its REST API lists them; empty while the project does not exist.
    pub(crate) async fn spans(&self, project: &str) -> Vec<Value> {
        let (mut spans, mut cursor) = (Vec::new(), String::new());
        loop {
            let (status, page) = get(&format!(
                "http://127.0.0.1:{}/v1/projects/{project}/spans?limit={PAGE_SPANS}{cursor}",
                self.http
            ))
            .await;
            if status != 200 {
                return spans;
            }
            spans.extend(page["data"].as_array().cloned().unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return spans,
            }
        }
    }

    /// Returns what its pages show of a project, with a GraphQL query as they use it.
    pub(crate) async fn project(&self, name: &str, fields: &str) -> Value {
        let query = format!("{{ projects {{ edges {{ node {{ name {fields} }} }} }} }}");
        let url = format!("http://127.0.0.1:{}/graphql", self.http);
        let (status, answer) = post(&url, &json!({ "query": query })).await;
        assert!(status == 200 && answer["errors"].is_null(), "{answer}");
        let projects = answer["data"]["projects"]["edges"].as_array().cloned().unwrap_or_default();
        let found = projects.iter().find(|project| project["node"]["name"] == name);
        found.map(|project| project["node"].clone()).unwrap_or_default()
    }
}
