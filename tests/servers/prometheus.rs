//! Prometheus and its `promtool`, from Debian's package, which requires only the C library.
//!
//! Installed by `apt-get download` and `dpkg -x`, in seconds. Started as `prometheus --config.file prometheus.yml`; ready by `/-/ready`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::process::free_port;
use super::{POLL_EVERY, Recipe, Server, get, run};

const RECIPE: Recipe = Recipe {
    name: "prometheus",
    folder: "prometheus",
    source: "prometheus, as the distribution has it",
    is_bound_to_its_path: false,
    make,
};

const START_MAX: Duration = Duration::from_secs(20);

fn make(folder: &Path) -> Result<(), String> {
    run(Command::new("apt-get").args(["download", "prometheus"]).current_dir(folder))?;
    let files = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let mut packages = files.filter_map(|file| Some(file.ok()?.path()));
    let package = packages.find(|path| path.extension().is_some_and(|it| it == "deb"));
    let package = package.ok_or("apt-get left no package")?;
    run(Command::new("dpkg").arg("-x").args([&package, folder]))
}

/// Returns the folder of the programs; `None` if they were not opted in.
pub(crate) fn programs() -> Option<PathBuf> {
    Some(RECIPE.have()?.join("usr/bin"))
}

/// A running Prometheus.
pub(crate) struct Prometheus {
    _server: Server,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one that scrapes this address every second.
    pub(crate) async fn start(programs: &Path, target: SocketAddr) -> Self {
        let (dir, address) = (tempfile::tempdir().unwrap(), free_port());
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs: [{{job_name: spanferry, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let mut command = Command::new(programs.join("prometheus"));
        command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address={address}"));
        command.args(["--enable-feature=exemplar-storage", "--log.level=warn"]);
        let mut server = Server::start(&mut command, dir);
        server.listens(&[address.port()], START_MAX).await;
        let started = Instant::now();
        while get(&format!("http://{address}/-/ready")).await.0 != 200 {
            assert!(started.elapsed() < START_MAX, "it is not ready");
            tokio::time::sleep(POLL_EVERY).await;
        }
        Self { _server: server, address }
    }

    /// Returns the answer to a query, as rows with their labels and values.
    pub(crate) async fn query(&self, query: &str) -> Vec<Value> {
        self.ask("query", query, "").await
    }

    /// Returns the exemplars that it has for a metric.
    pub(crate) async fn exemplars(&self, metric: &str) -> Vec<Value> {
        self.ask("query_exemplars", metric, "&start=0&end=9999999999").await
    }

    async fn ask(&self, what: &str, query: &str, more: &str) -> Vec<Value> {
        let query =
            percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
        let url = format!("http://{}/api/v1/{what}?query={query}{more}", self.address);
        let (status, answer) = get(&url).await;
        assert_eq!(status, 200, "{answer}");
        let rows = answer["data"]["result"].as_array().or_else(|| answer["data"].as_array());
        rows.cloned().unwrap_or_default()
    }

    /// Waits until the sum of a query is at least this.
    pub(crate) async fn reaches(&self, query: &str, least: f64, patience: Duration) {
        let started = Instant::now();
        loop {
            let sum: f64 = self.query(query).await.iter().map(value).sum();
            if least <= sum {
                return;
            }
            assert!(started.elapsed() < patience, "{query} is {sum} and not {least}");
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

/// Returns the value of a row.
pub(crate) fn value(row: &Value) -> f64 {
    row["value"][1].as_str().unwrap().parse().unwrap()
}
