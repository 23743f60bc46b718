//! A running node: its directory, its process, and its end.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::client::Client;
use super::install::Installed;
use super::{Product, Server};

/// Time between two polls.
pub(crate) const POLL_EVERY: Duration = Duration::from_millis(20);
/// A start takes 3 to 6 s on an idle machine, and a multiple if concurrent tests compile or load it.
const START_MAX: Duration = Duration::from_mins(2);
/// An orderly stop takes a tenth of a second or two.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Half of the memory and half of the start time of the defaults; nothing here runs long enough to be optimised.
const JVM: [&str; 4] = ["-Xms512m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];

/// The settings of every node, in addition to a test's own.
const SETTINGS: [(&str, &str); 4] = [
    ("discovery.type", "single-node"),
    ("network.host", "127.0.0.1"),
    ("transport.port", "0"),
    // A full disk of the machine is not under test.
    ("cluster.routing.allocation.disk.threshold_enabled", "false"),
];

/// The user "nobody" of every Linux.
const NOBODY: u32 = 65534;

/// A node takes half a gigabyte and a core; at most two run at a time, however many tests there are.
static ROOM: Semaphore = Semaphore::const_new(2);

/// Runs a program until it ends or standard input closes, which happens when the test that started it ends in any way.
const GUARD: &str = "exec 3<&0\n\
    \"$@\" </dev/null 3<&- & node=$!\n\
    { cat <&3 >/dev/null; kill $node 2>/dev/null; } & wait $node";

/// A running node. Stopped when dropped; its directory is kept if the test fails.
pub(crate) struct Node {
    installed: Arc<Installed>,
    settings: Vec<(String, String)>,
    home: Option<TempDir>,
    process: Child,
    client: Client,
    port: u16,
    _room: SemaphorePermit<'static>,
}

impl Node {
    /// Starts a node with these settings in addition to the usual ones.
    pub(crate) async fn start(installed: &Arc<Installed>, settings: &[(&str, &str)]) -> Self {
        let room = ROOM.acquire().await.unwrap();
        let home = TempDir::with_prefix("spanferry-search-").unwrap();
        let settings: Vec<_> =
            settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let process = spawn(installed, home.path(), &settings, 0);
        let mut node = Self {
            installed: Arc::clone(installed),
            settings,
            home: Some(home),
            process,
            client: Client::new(0),
            port: 0,
            _room: room,
        };
        node.ready().await;
        node
    }

    /// Returns the shared node of tests that change only data with their own prefix. It stops with the last of them.
    pub(crate) async fn shared(installed: &Arc<Installed>) -> Arc<Self> {
        static SHARED: Mutex<BTreeMap<&Server, Weak<Node>>> = Mutex::const_new(BTreeMap::new());
        let mut shared = SHARED.lock().await;
        if let Some(node) = shared.get(installed.server).and_then(Weak::upgrade) {
            return node;
        }
        let node = Arc::new(Self::start(installed, &[]).await);
        shared.insert(installed.server, Arc::downgrade(&node));
        node
    }

    /// Sends SIGKILL to the server itself, as the kernel does when memory is short.
    pub(crate) fn kill(&mut self) {
        let server = server_below(self.process.id()).expect("the server's process is there");
        kill_process(server, Signal::KILL).unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on the same directory.
    pub(crate) async fn restart(&mut self) {
        self.process = spawn(&self.installed, self.home(), &self.settings, self.port);
        self.ready().await;
    }

    /// Returns its address.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn server(&self) -> &'static Server {
        self.installed.server
    }

    async fn ready(&mut self) {
        let started = Instant::now();
        loop {
            if let Some(port) = self.port_said() {
                self.port = port;
                self.client = Client::new(port);
                // The port opens shortly before the node has formed its cluster.
                let path = "/_cluster/health?wait_for_status=yellow&timeout=5s";
                if self.client.try_get(path).await.is_some_and(|(status, _)| status == 200) {
                    return;
                }
            }
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended: {}", self.server().name, self.said());
            let waited = started.elapsed();
            assert!(waited < START_MAX, "{} does not start: {}", self.server().name, self.said());
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Returns the port that the node reports in its log.
    fn port_said(&self) -> Option<u16> {
        let said = self.said();
        match self.server().product {
            Product::OpenSearch => {
                said.lines().find_map(|line| line.strip_prefix("READY "))?.trim().parse().ok()
            }
            Product::Elasticsearch => {
                let line = said.lines().find(|line| {
                    line.contains("HttpServerTransport") && line.contains("publish_address")
                })?;
                let (_, address) = line.split_once("publish_address {")?;
                address.split_once('}')?.0.rsplit(':').next()?.parse().ok()
            }
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.home().join("said")).unwrap_or_default()
    }

    fn home(&self) -> &Path {
        self.home.as_ref().expect("it is taken on drop only").path()
    }
}

impl std::ops::Deref for Node {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both products stop in an orderly way when their input closes.
        drop(self.process.stdin.take());
        let asked = Instant::now();
        while asked.elapsed() < STOP_MAX && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(POLL_EVERY);
        }
        if let (Ok(None), Some(server)) = (self.process.try_wait(), server_below(self.process.id()))
        {
            kill_process(server, Signal::KILL).ok();
        }
        self.process.kill().ok();
        self.process.wait().ok();
        if std::thread::panicking() {
            let kept = self.home.take().map(TempDir::keep);
            println!("{}: what it said and wrote is in {kept:?}", self.server().name);
        }
    }
}

// === Processes ===

fn spawn(installed: &Installed, home: &Path, settings: &[(String, String)], port: u16) -> Child {
    let mut all: Vec<(String, String)> =
        SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    all.push(("http.port".to_owned(), port.to_string()));
    all.extend_from_slice(settings);
    let mut command = match installed.server.product {
        Product::OpenSearch => opensearch(installed, home, &all),
        Product::Elasticsearch => elasticsearch(installed, home, &all),
    };
    let said = fs::File::create(home.join("said")).unwrap();
    command.stdin(Stdio::piped()).stdout(said.try_clone().unwrap()).stderr(said);
    command.spawn().unwrap()
}

fn opensearch(installed: &Installed, home: &Path, settings: &[(String, String)]) -> Command {
    let dir = installed.dir.display();
    let mut command = Command::new(installed.java_home.join("bin/java"));
    command.args(JVM).arg("-cp").arg(format!("{dir}/*:{dir}")).arg("SingleNode").arg(home);
    command.args(settings.iter().map(|(name, value)| format!("{name}={value}")));
    command
}

fn elasticsearch(installed: &Installed, home: &Path, settings: &[(String, String)]) -> Command {
    let config = home.join("config");
    fs::create_dir_all(&config).unwrap();
    for folder in ["data", "logs", "tmp"] {
        fs::create_dir_all(home.join(folder)).unwrap();
    }
    let mut lines: Vec<String> =
        settings.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    lines.push(format!("path.data: {}", home.join("data").display()));
    lines.push(format!("path.logs: {}", home.join("logs").display()));
    lines.push("xpack.security.enabled: false".to_owned());
    fs::write(config.join("elasticsearch.yml"), lines.join("\n")).unwrap();
    // Its configuration must not be below its directory for temporary files.
    let jvm = format!("-Djava.io.tmpdir=${{ES_TMPDIR}}\n{}\n", JVM.join("\n"));
    fs::write(config.join("jvm.options"), jvm).unwrap();
    let log4j = "log4j2.properties";
    fs::copy(installed.dir.join("config").join(log4j), config.join(log4j)).unwrap();

    let mut command = Command::new("sh");
    command.arg("-c").arg(GUARD).arg("guard").arg(installed.dir.join("bin/elasticsearch"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("ES_JAVA_HOME", &installed.java_home).env("ES_PATH_CONF", &config);
    command.env("ES_TMPDIR", home.join("tmp")).current_dir(home);
    if installed.runs_as_other() {
        give(home, NOBODY);
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Gives a directory and its contents to a user.
fn give(dir: &Path, user: u32) {
    chown(dir, Some(user), Some(user)).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            give(&path, user);
        } else {
            chown(&path, Some(user), Some(user)).unwrap();
        }
    }
}

/// Finds the server among a process and its descendants: its launchers are its ancestors, so it is the deepest Java process.
fn server_below(process: u32) -> Option<Pid> {
    let children = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(children).unwrap_or_default();
    let deeper = children.split_whitespace().filter_map(|child| child.parse().ok());
    let is_java = fs::read_link(PathBuf::from(format!("/proc/{process}/exe")))
        .is_ok_and(|program| program.ends_with("bin/java"));
    let itself = is_java.then(|| Pid::from_raw(process.try_into().ok()?)).flatten();
    deeper.into_iter().find_map(server_below).or(itself)
}
