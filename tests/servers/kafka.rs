//! Kafka 4.3.1 as one broker that is its own controller (`KRaft`), from Maven Central; it requires `mvn` and a JDK.
//!
//! It can be killed and started again on the same files and ports, have listeners with TLS and SASL, and get a second broker.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::super::process::free_port;
use super::{Recipe, Server, run};

const POM: &str = "\
<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
<groupId>t</groupId><artifactId>t</artifactId><version>1</version><dependencies><dependency>\
<groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.3.1</version>\
</dependency></dependencies></project>";

const RECIPE: Recipe =
    Recipe { name: "kafka", folder: "kafka-4.3.1", source: POM, is_bound_to_its_path: false, make };

const START_MAX: Duration = Duration::from_mins(1);
/// Halves the CPU time of a start.
const JAVA: [&str; 3] = ["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];

fn make(folder: &Path) -> Result<(), String> {
    fs::write(folder.join("pom.xml"), POM).map_err(|error| error.to_string())?;
    let arguments =
        ["dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=lib"];
    run(Command::new("mvn").args(["-q", "-B"]).args(arguments).current_dir(folder))
}

/// A broker, and an optional second one.
pub(crate) struct Kafka {
    lib: PathBuf,
    /// The ports of [`LISTENERS`], then that of the controller.
    ports: [u16; 5],
    files: tempfile::TempDir,
    server: Option<Server>,
    second: Option<Server>,
}

/// A listener for each security protocol. Without keys only the first is used.
const LISTENERS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
/// The user and the password on listeners with SASL.
pub(crate) const USER: &str = "spanferry";
pub(crate) const PASSWORD: &str = "hush-hush";

impl Kafka {
    /// Starts an empty broker; `None` if it was not opted in.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&LISTENERS[..1], "").await
    }

    /// Starts one with all listeners: `SSL` requires a certificate that the authority signed, those with `SASL` the user's password,
    /// `PLAIN` over TLS only. The broker's certificate chain is in PEM, with the authority's own certificate last.
    pub(crate) async fn start_secure(chain: &str, key: &str, authority: &str) -> Option<Self> {
        let [chain, key, authority] = [chain, key, authority].map(|pem| pem.replace('\n', "\\n"));
        let mut properties = format!(
            "ssl.keystore.type=PEM\nssl.keystore.certificate.chain={chain}\nssl.keystore.key={key}\n\
             ssl.truststore.type=PEM\nssl.truststore.certificates={authority}\n\
             listener.name.ssl.ssl.client.auth=required\n\
             sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512\n\
             listener.name.sasl_ssl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
             listener.name.sasl_ssl.plain.sasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";\n"
        );
        for listener in ["sasl_plaintext", "sasl_ssl"] {
            for mechanism in ["scram-sha-256", "scram-sha-512"] {
                let module = "org.apache.kafka.common.security.scram.ScramLoginModule";
                let key = format!("listener.name.{listener}.{mechanism}.sasl.jaas.config");
                writeln!(properties, "{key}={module} required;").unwrap();
            }
        }
        Self::start_with(&LISTENERS, &properties).await
    }

    async fn start_with(listeners: &[&str], more: &str) -> Option<Self> {
        let lib = RECIPE.have()?.join("lib");
        let ports = [(); 5].map(|()| free_port().port());
        let files = tempfile::tempdir().unwrap();
        let mut kafka = Self { lib, ports, files, server: None, second: None };
        let addresses = listeners.iter().zip(ports);
        let addresses: Vec<_> =
            addresses.map(|(listener, port)| format!("{listener}://127.0.0.1:{port}")).collect();
        let (addresses, controller) = (addresses.join(","), ports[4]);
        let own = format!(
            "process.roles=broker,controller\n\
             listeners={addresses},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners={addresses}\n{more}"
        );
        let mut users = Vec::new();
        for mechanism in ["256", "512"] {
            let user = format!("SCRAM-SHA-{mechanism}=[name={USER},password={PASSWORD}]");
            users.extend(["--add-scram".to_owned(), user]);
        }
        kafka.format(1, &own, &users);
        kafka.again().await;
        Some(kafka)
    }

    /// Creates the files of a broker.
    fn format(&self, node: usize, own: &str, more: &[String]) {
        let properties = format!(
            "node.id={node}\nlog.dirs={}/logs-{node}\n{own}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\ncontroller.quorum.voters=1@127.0.0.1:{}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\ngroup.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n",
            self.files.path().display(),
            self.ports[4]
        );
        let file = self.properties(node);
        fs::write(&file, properties).unwrap();
        let format = ["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c"];
        run(self.java().args(format).arg(file).args(more)).unwrap();
    }

    fn properties(&self, node: usize) -> PathBuf {
        self.files.path().join(format!("server-{node}.properties"))
    }

    async fn run(&self, node: usize, port: u16) -> Server {
        let mut command = self.java();
        command.arg("kafka.Kafka").arg(self.properties(node));
        let mut server = Server::start(&mut command, tempfile::tempdir().unwrap());
        server.listens(&[port], START_MAX).await;
        server
    }

    /// Starts a second broker.
    pub(crate) async fn add_second(&mut self) {
        let port = free_port().port();
        let address = format!("PLAINTEXT://127.0.0.1:{port}");
        self.format(2, &format!("process.roles=broker\nlisteners={address}\n"), &[]);
        self.second = Some(self.run(2, port).await);
    }

    fn java(&self) -> Command {
        let mut command = Command::new("java");
        command.args(JAVA).arg("-cp").arg(self.lib.join("*")).stdin(Stdio::null());
        command.current_dir(self.files.path());
        command
    }

    /// Starts the broker on its existing files.
    pub(crate) async fn again(&mut self) {
        self.server = Some(self.run(1, self.ports[0]).await);
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.server = None;
    }

    /// Returns the broker's address.
    pub(crate) fn broker(&self) -> String {
        self.broker_with("PLAINTEXT")
    }

    /// Returns the address for a security protocol.
    pub(crate) fn broker_with(&self, protocol: &str) -> String {
        let place = LISTENERS.iter().position(|listener| *listener == protocol).unwrap();
        format!("127.0.0.1:{}", self.ports[place])
    }
}
