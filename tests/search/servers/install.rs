//! Packages of a server, downloaded by Maven's ordinary client into `target/real-servers/`, and the Java to run them.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Product, Server};

/// The largest package has 124 MB, which takes ten minutes on a slow connection.
const DOWNLOAD_MAX: Duration = Duration::from_mins(10);

/// By default Maven waits minutes on a machine without a network; the first option is for Maven 3.8, the second for 3.9.
const CONNECT_TIMEOUTS: [&str; 2] =
    ["-Dmaven.wagon.http.connectionTimeout=10000", "-Daether.connector.connectTimeout=10000"];

/// A server whose packages and Java are installed.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) server: &'static Server,
    /// Elasticsearch: its distribution. OpenSearch: its jars.
    pub(super) dir: PathBuf,
    pub(super) java_home: PathBuf,
}

/// Installs a server, unless it is installed already.
pub(super) fn install(server: &'static Server) -> Result<Installed, String> {
    let java_home = java_home(server.java).ok_or_else(|| {
        let (lowest, highest) = server.java;
        format!("it needs a JDK of version {lowest} to {highest}, in JAVA_HOME or /usr/lib/jvm")
    })?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/real-servers");
    let dir = root.join(format!("{}-{}", server.product.name(), server.version));
    if !dir.exists() {
        // Downloads go into a temporary folder: an aborted or concurrent test must not leave an incomplete one.
        let partial = root.join(format!("{}.{}.partial", server.name, std::process::id()));
        let brought = match server.product {
            Product::Elasticsearch => bring_distribution(server, &java_home, &partial),
            Product::OpenSearch => bring_jars(server, &partial),
        };
        let moved = brought.and_then(|whole| fs::rename(whole, &dir).map_err(said));
        fs::remove_dir_all(&partial).ok();
        if !dir.exists() {
            moved?;
        }
    }
    if server.product == Product::OpenSearch {
        // Compiled once for all nodes: a start from the source takes a second more of a core.
        let program =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/search/servers/SingleNode.java");
        let mut javac = Command::new(java_home.join("bin/javac"));
        javac.args(["-proc:none", "-cp"]).arg(dir.join("*")).arg("-d").arg(&dir).arg(program);
        finish(&mut javac, DOWNLOAD_MAX)?;
    }
    let installed = Installed { server, dir, java_home };
    if installed.runs_as_other() {
        others_can_read(&installed.dir)?;
    }
    Ok(installed)
}

impl Installed {
    /// Returns whether the server must run as another user: Elasticsearch refuses to run as root.
    pub(super) fn runs_as_other(&self) -> bool {
        self.server.product == Product::Elasticsearch && rustix::process::geteuid().is_root()
    }
}

impl Product {
    const fn name(self) -> &'static str {
        match self {
            Self::Elasticsearch => "elasticsearch",
            Self::OpenSearch => "opensearch",
        }
    }
}

// === Packages ===

/// Downloads the distribution that Elastic makes for integration tests: the real start-up, few modules.
fn bring_distribution(server: &Server, java_home: &Path, into: &Path) -> Result<PathBuf, String> {
    let version = server.version;
    let artifact =
        format!("org.elasticsearch.distribution.integ-test-zip:elasticsearch:{version}:zip");
    fs::create_dir_all(into).map_err(said)?;
    maven(into, &["dependency:copy", &format!("-Dartifact={artifact}"), "-DoutputDirectory=."])?;
    // A JDK can unpack a zip, so no other program is needed.
    let zip = format!("elasticsearch-{version}.zip");
    finish(
        Command::new(java_home.join("bin/jar")).args(["-x", "-f", &zip]).current_dir(into),
        DOWNLOAD_MAX,
    )?;
    let unpacked = into.join(format!("elasticsearch-{version}"));
    make_readable(&unpacked).map_err(said)?;
    Ok(unpacked)
}

/// Downloads OpenSearch's jars into `lib/`.
fn bring_jars(server: &Server, into: &Path) -> Result<PathBuf, String> {
    const PLUGINS: [&str; 5] = [
        "transport-netty4-client",
        "lang-painless",
        "reindex-client",
        "mapper-extras-client",
        "ingest-common",
    ];
    let mut pom =
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
        <groupId>t</groupId><artifactId>t</artifactId><version>1</version><dependencies>"
            .to_owned();
    let mut add = |group: &str, artifact: &str, version: &str| {
        write!(pom, "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>").ok();
    };
    add("org.opensearch", "opensearch", server.version);
    for plugin in PLUGINS {
        add("org.opensearch.plugin", plugin, server.version);
    }
    add("org.apache.logging.log4j", "log4j-core", server.log4j);
    pom.push_str("</dependencies></project>");
    fs::create_dir_all(into).map_err(said)?;
    fs::write(into.join("pom.xml"), pom).map_err(said)?;
    maven(
        into,
        &["dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=lib"],
    )?;
    Ok(into.join("lib"))
}

fn maven(dir: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("mvn");
    command.args(["-q", "-B"]).args(CONNECT_TIMEOUTS).args(arguments).current_dir(dir);
    finish(&mut command, DOWNLOAD_MAX)
}

/// Runs a command to its end; if it fails, the first error in its output is the reason.
fn finish(command: &mut Command, patience: Duration) -> Result<(), String> {
    let program = command.get_program().display().to_string();
    let log = tempfile::NamedTempFile::new().map_err(said)?;
    let output = log.reopen().map_err(said)?;
    command.stdin(Stdio::null()).stdout(output.try_clone().map_err(said)?).stderr(output);
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    let started = Instant::now();
    loop {
        match child.try_wait().map_err(said)? {
            Some(status) if status.success() => return Ok(()),
            Some(_) => {
                let text = fs::read_to_string(log.path()).unwrap_or_default();
                let reason = text.lines().find(|line| line.contains("ERROR")).unwrap_or(&text);
                return Err(format!("{program} failed: {reason}"));
            }
            None if patience < started.elapsed() => {
                child.kill().ok();
                child.wait().ok();
                return Err(format!("{program} took longer than {patience:?}"));
            }
            None => std::thread::sleep(super::node::POLL_EVERY),
        }
    }
}

// === Rights ===

/// Restores permissions, which `jar` does not keep.
fn make_readable(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let programs = path.parent().is_some_and(|parent| parent.ends_with("bin"));
        let mode = if path.is_dir() || programs { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        if path.is_dir() {
            make_readable(&path)?;
        }
    }
    Ok(())
}

/// Checks that an unprivileged user can enter this directory.
fn others_can_read(dir: &Path) -> Result<(), String> {
    for above in dir.ancestors() {
        let mode = fs::metadata(above).map_err(said)?.permissions().mode();
        if mode & 0o001 == 0 {
            let above = above.display();
            return Err(format!("it does not run as root, and nobody else can enter {above}"));
        }
    }
    Ok(())
}

// === Java ===

/// Returns the oldest JDK with a version in this range.
fn java_home(versions: (u32, u32)) -> Option<PathBuf> {
    let named = std::env::var_os("JAVA_HOME").map(PathBuf::from);
    let listed = fs::read_dir("/usr/lib/jvm").into_iter().flatten();
    let homes = named.into_iter().chain(listed.filter_map(|entry| Some(entry.ok()?.path())));
    let suits = |home: PathBuf| {
        let version = java_version(&home)?;
        let whole = home.join("bin/javac").exists();
        (whole && versions.0 <= version && version <= versions.1).then_some((version, home))
    };
    homes.filter_map(suits).min().map(|(_, home)| home)
}

/// Returns the major version of a JDK, from the file that every JDK has.
fn java_version(home: &Path) -> Option<u32> {
    let release = fs::read_to_string(home.join("release")).ok()?;
    let version = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION="))?;
    version.trim_matches('"').split('.').next()?.parse().ok()
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` takes")]
fn said(error: io::Error) -> String {
    error.to_string()
}
