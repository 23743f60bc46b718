//! Operators: Unix sockets end to end, keys for the admin port, and the warning about a port that is open to everyone.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Authority, PROGRAM, run, said};

const START_MAX: Duration = Duration::from_secs(30);

/// A daemon in a directory with a configuration; killed when dropped.
struct Running {
    child: Child,
    dir: tempfile::TempDir,
}

impl Running {
    fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rest =
            "[journal]\ndir = 'DIR/state'\n[sinks.lines]\ntype = 'file'\npath = 'lines.jsonl'\n";
        let config = format!("{config}{rest}").replace("DIR", &dir.path().display().to_string());
        fs::write(dir.path().join("spanferry.toml"), config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(PROGRAM);
        command.current_dir(dir.path()).env_clear();
        let child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, dir }
    }

    /// Waits until `healthcheck` succeeds, which finds the daemon by its configuration.
    fn wait(&self) {
        let begun = Instant::now();
        loop {
            let health = self.run(&["healthcheck"]);
            if health.0 {
                return;
            }
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(begun.elapsed() < START_MAX, "{health:?}\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = run(self.dir.path(), arguments);
        (output.status.success(), said(&output))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn everything_works_over_unix_sockets() {
    let config = "[receivers]\nhttp = 'unix:DIR/http.sock'\ngrpc = 'unix:DIR/grpc.sock?mode=0600'\n\
                  [admin]\nlisten = 'unix:DIR/admin.sock'\n";
    let mut daemon = Running::start(config);
    daemon.wait();
    let dir = daemon.dir.path().to_owned();
    let sent = daemon.run(&["send"]);
    assert!(sent.0 && sent.1.contains("unix:"), "{sent:?}");
    let url = format!("unix:{}/admin.sock", dir.display());
    for arguments in [
        &["healthcheck", "--url", &format!("{url}:/readyz")][..],
        &["dead-letter", "list", "--url", &url],
        &["dead-letter", "list"],
        &["replay", "--sink", "lines", "--dry-run"],
    ] {
        let done = daemon.run(arguments);
        assert!(done.0, "{arguments:?}: {}", done.1);
    }
    let pid = rustix::process::Pid::from_child(&daemon.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(daemon.child.wait().unwrap().success());
    for name in ["http.sock", "grpc.sock", "admin.sock"] {
        assert!(!dir.join(name).exists(), "{name} is left");
    }
    assert!(16 <= fs::read_to_string(dir.join("lines.jsonl")).unwrap().lines().count());
}

#[test]
fn with_keys_only_operators_command_and_look() {
    let authority = Authority::new();
    authority.renew("spanferry.example.com");
    let port = super::process::free_port();
    let files = authority.options();
    let config = format!(
        "[receivers]\nhttp = 'unix:DIR/http.sock'\ngrpc = 'unix:DIR/grpc.sock'\n\
         [admin]\nlisten = '{port}'\ntokens = ['hunter2', 'other']\n[admin.tls]\n{files}"
    );
    let daemon = Running::start(&config);
    daemon.wait();
    // The command finds the key in the configuration.
    assert!(daemon.run(&["dead-letter", "list"]).0);
    let url = format!("https://{port}");
    let listing = ["dead-letter", "list", "--url", &url];
    let unknown = daemon.run(&listing);
    assert!(!unknown.0 && unknown.1.contains("admin.tokens"), "{unknown:?}");
    assert!(daemon.run(&[&listing[..], &["--admin-token", "other"]].concat()).0);
    for (path, is_open) in
        [("/health", true), ("/readyz", true), ("/metrics", false), ("/status", false)]
    {
        let asked = daemon.run(&["healthcheck", "--url", &format!("{url}{path}")]);
        assert_eq!(asked.0, is_open, "{path}: {}", asked.1);
        assert!(!asked.1.contains("hunter2"));
    }
    let examined = daemon.run(&["doctor"]);
    assert!(examined.0 && examined.1.contains("admin.tls"), "{examined:?}");
    authority.write("server.key", "hunter2");
    let examined = daemon.run(&["doctor"]);
    let why = "key cannot be used";
    assert!(
        !examined.0 && examined.1.contains(why) && !examined.1.contains("hunter2"),
        "{examined:?}"
    );
    let plain = daemon.run(&["healthcheck", "--url", &format!("http://{port}/health")]);
    assert!(!plain.0 && plain.1.contains("use https://"), "{plain:?}");
    let shown = daemon.run(&["config", "show"]);
    assert!(
        shown.0 && !shown.1.contains("hunter2") && !shown.1.contains("server.key"),
        "{shown:?}"
    );
}

#[test]
fn a_port_that_everybody_reaches_is_said_at_the_start_in_health_and_by_validate() {
    let config = "[receivers]\nhttp = '0.0.0.0:0'\ngrpc = '127.0.0.1:0'\n\
                  [admin]\nlisten = 'unix:DIR/admin.sock'\n";
    let daemon = Running::start(config);
    daemon.wait();
    let what = "anybody who can reach receivers.http (0.0.0.0:0) may send";
    let log = fs::read_to_string(daemon.dir.path().join("log")).unwrap();
    assert_eq!(log.matches(what).count(), 1, "{log}");
    let health: serde_json::Value = serde_json::from_str(&daemon.run(&["healthcheck"]).1).unwrap();
    assert_eq!(health["status"], "ok");
    assert!(health["warnings"][0].as_str().unwrap().starts_with(what), "{health}");
    let validated = daemon.run(&["validate"]);
    assert!(validated.0 && validated.1.contains(what), "{validated:?}");
    assert!(!daemon.run(&["validate", "--strict"]).0);
}

#[tokio::test]
async fn a_doctor_says_at_which_step_a_sinks_address_cannot_be_reached() {
    let world = super::World::new("", "").await;
    let dir = tempfile::tempdir().unwrap();
    let ca = world.authority.path("ca.pem").display().to_string();
    let port = world.place().http.port();
    for (address, tls, step) in [
        (
            format!("localhost:{port}"),
            format!("tls = {{ ca_file = '{ca}' }}"),
            "accepts connections within",
        ),
        (format!("localhost:{port}"), String::new(), "has no trusted certificate: "),
        ("localhost:9".to_owned(), String::new(), "accepts no connection: "),
        ("nobody.invalid:9".to_owned(), String::new(), "the name cannot be resolved: "),
    ] {
        let sink = format!("[sinks.far]\ntype = 'otlp'\nendpoint = 'https://{address}'\n{tls}\n");
        fs::write(dir.path().join("far.toml"), sink).unwrap();
        let said = said(&run(dir.path(), &["doctor", "-c", "far.toml"]));
        let what = format!("sink far (otlp) at {address}: ");
        let line =
            said.lines().find(|line| line.contains(&what)).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains(step), "{said}");
        assert_eq!(
            line.starts_with("FAIL"),
            !line.contains("; its certificate is valid for "),
            "{said}"
        );
    }
}
