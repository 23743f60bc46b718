//! Kafka 4.3.1 as one broker that is its own controller (`KRaft`), from Maven Central; it needs `mvn` and a JDK.
//!
//! It can be killed and started again on the same files and ports.

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
/// Half the CPU time of a start.
const JAVA: [&str; 3] = ["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];

fn make(folder: &Path) -> Result<(), String> {
    fs::write(folder.join("pom.xml"), POM).map_err(|error| error.to_string())?;
    let arguments =
        ["dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=lib"];
    run(Command::new("mvn").args(["-q", "-B"]).args(arguments).current_dir(folder))
}

/// A broker.
pub(crate) struct Kafka {
    lib: PathBuf,
    port: u16,
    files: tempfile::TempDir,
    server: Option<Server>,
}

impl Kafka {
    /// A broker with nothing in it; none where it was not opted in.
    pub(crate) async fn start() -> Option<Self> {
        let lib = RECIPE.have()?.join("lib");
        let (port, controller) = (free_port().port(), free_port().port());
        let files = tempfile::tempdir().unwrap();
        let logs = files.path().join("logs");
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=BROKER://127.0.0.1:{port}\n\
             listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=BROKER\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\ngroup.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n",
            logs.display()
        );
        fs::write(files.path().join("server.properties"), properties).unwrap();
        let mut kafka = Self { lib, port, files, server: None };
        let format = ["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c"];
        run(kafka.java().args(format).arg("server.properties")).unwrap();
        kafka.again().await;
        Some(kafka)
    }

    fn java(&self) -> Command {
        let mut command = Command::new("java");
        command.args(JAVA).arg("-cp").arg(self.lib.join("*")).stdin(Stdio::null());
        command.current_dir(self.files.path());
        command
    }

    /// Starts the broker, on what it kept.
    pub(crate) async fn again(&mut self) {
        let properties = self.files.path().join("server.properties");
        let mut command = self.java();
        command.arg("kafka.Kafka").arg(properties);
        let mut server = Server::start(&mut command, tempfile::tempdir().unwrap());
        server.listens(&[self.port], START_MAX).await;
        self.server = Some(server);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.server = None;
    }

    /// Where it listens.
    pub(crate) fn broker(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
