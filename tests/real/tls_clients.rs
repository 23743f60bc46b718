//! `openssl s_client` and `curl` against the receivers over TLS.

use std::path::Path;
use std::process::{Command, Stdio};

use super::authority::Authority;
use super::opt_in::wants;
use super::process::{Config, Daemon, Place};

struct World {
    authority: Authority,
    daemon: Daemon,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new(is_mutual: bool) -> Self {
        let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
        authority.renew("localhost");
        let (certificate, key) = authority.sign("team-a");
        authority.write("client.crt", &certificate.pem());
        authority.write("client.key", &key.serialize_pem());
        let place = Place::new(dir.path());
        let mut files = authority.options().trim_end().replace('\n', ", ");
        if is_mutual {
            files = format!("{files}, client_ca = '{}'", authority.path("ca.pem").display());
        }
        let tables = "[sinks.none]\ntype = 'blackhole'\n".to_owned();
        let receivers = format!("tls = {{ {files} }}");
        place.configure(&Config { receivers, tables, ..Config::default() }).unwrap();
        let command = place.command(Path::new(env!("CARGO_BIN_EXE_spanferry"))).unwrap();
        let daemon = Daemon::start(&place, command).await.unwrap();
        Self { authority, daemon, _dir: dir }
    }

    /// Runs a program in the directory of the authority's files; returns whether it succeeded, and its output.
    fn run(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(program);
        command.current_dir(self.authority.dir.path()).args(arguments).stdin(Stdio::null());
        let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
        let (out, err) = (&output.stdout, &output.stderr);
        let said = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
        (output.status.success(), said)
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.daemon.place.http.port())
    }
}

#[tokio::test]
async fn openssl_agrees_on_each_version_and_on_no_older_one() {
    if !wants("openssl") {
        return;
    }
    let world = World::new(false).await;
    for address in [world.daemon.place.http, world.daemon.place.grpc] {
        let address = address.to_string();
        let session = |more: &[&str]| {
            let common =
                ["s_client", "-connect", &address, "-servername", "localhost", "-CAfile", "ca.pem"];
            let strict = ["-verify_return_error", "-verify_hostname", "localhost"];
            world.run("openssl", &[&common[..], &strict, more].concat())
        };
        for (version, name, protocol) in [
            ("-tls1_2", "TLSv1.2", "h2"),
            ("-tls1_3", "TLSv1.3", "http/1.1"),
            ("-tls1_3", "TLSv1.3", "h2"),
        ] {
            let (ended_well, said) = session(&[version, "-alpn", protocol]);
            assert!(ended_well && said.contains("Verify return code: 0 (ok)"), "{said}");
            assert!(
                said.contains(name) && said.contains(&format!("ALPN protocol: {protocol}")),
                "{said}"
            );
        }
        let (ended_well, said) = session(&["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]);
        assert!(!ended_well, "{said}");
    }
}

#[tokio::test]
async fn curl_sends_over_each_version_of_http_with_and_without_a_certificate() {
    if !wants("openssl") {
        return;
    }
    let item = r#"{"data":[{"object":"trace","id":"trace_1"}]}"#;
    for is_mutual in [false, true] {
        let world = World::new(is_mutual).await;
        let url = world.url("/v1/traces/ingest");
        let common = ["--silent", "--show-error", "--cacert", "ca.pem", "--json", item];
        let show = ["--output", "answer", "--write-out", "%{http_code} %{http_version}"];
        let shown = ["--cert", "client.crt", "--key", "client.key"];
        for (version, name) in [("--http1.1", "1.1"), ("--http2", "2")] {
            for tls in ["1.2", "1.3"] {
                let arguments = [&common[..], &show, &[version, "--tls-max", tls, &url]].concat();
                let (ended_well, said) = world.run("curl", &arguments);
                assert_eq!(ended_well, !is_mutual, "{said}");
                let (_, said) = world.run("curl", &[&arguments[..], &shown].concat());
                assert_eq!(said, format!("204 {name}"));
            }
        }
        let plain = url.replace("https:", "http:");
        let (_, said) = world.run("curl", &[&common[..], &[&plain]].concat());
        assert_eq!(said, "this port speaks TLS: use https://\n");
        let status: serde_json::Value =
            serde_json::from_str(&world.daemon.place.ask("/status").unwrap()).unwrap();
        let requests = &status["tenants"]["team-a"]["requests"];
        assert_eq!(requests.as_u64(), is_mutual.then_some(4), "{status}");
    }
}
