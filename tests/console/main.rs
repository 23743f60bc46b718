//! The console in a real browser: Debian's Chromium, driven by playwright-core, on the real binary and captured requests.
//!
//! `drive.mjs` is the reader. It visits a list that continues automatically, filters, a trace with its tree, conversation and delivery, a
//! trace of 32,843 spans, sessions, sums and the pipeline with a replay, all of it also by keyboard. It compares what it sees with what the
//! same port answers, and Delivery and the marks of sinks with `/status`, also after a `kill -9`, which it requests from this suite. In
//! light, in dark and on a phone, axe must find nothing, no request may go anywhere but this machine, and what clients send must stay text.
//! A second daemon requires a token, and one that listens on all addresses shows no console.
//!
//! npm installs the packages into `target/tmp/console`, once. Screenshots of the pages are left there too, and `UPDATE_GOLDENS=1` renews
//! those in `docs/images/`: look at them before committing.
//!
//! Not proven here: other browsers; timings, which are only printed.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests may panic, and read files and the environment"
)]

#[path = "../opt_in.rs"]
mod opt_in;
#[path = "../process/mod.rs"]
mod process;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use process::{Config, Daemon, Place, free_port};

/// The sinks: one that works, one without a listener, and one whose backend is `drive.mjs`, which accepts nothing until it is told to.
const SINKS: &str = "[sinks.lines]\ntype = \"file\"\npath = \"lines.jsonl\"\n\n\
                     [sinks.collector]\ntype = \"otlp\"\nendpoint = \"http://NOBODY\"\n\
                     trace_url = \"http://127.0.0.1:9/{trace_id}?span={span_id}\"\n\n\
                     [sinks.warehouse]\ntype = \"otlp\"\nendpoint = \"http://BACKEND\"\n";
const TOKEN: &str = "for-the-test";

#[tokio::test]
async fn a_reader_sees_what_agents_did_and_whether_it_arrived() {
    if !opt_in::wants("console") {
        return;
    }
    let packages = install();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let [plain, asking, open] = ["plain", "asking", "open"].map(|name| {
        let dir = dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        Place::new(&dir)
    });
    let (backend, nobody) = (free_port(), free_port());
    let sinks =
        SINKS.replace("BACKEND", &backend.to_string()).replace("NOBODY", &nobody.to_string());
    let mut daemon = Some(start(&plain, &sinks, "").await);
    let none = "[sinks.none]\ntype = \"blackhole\"\n";
    let _asking = start(&asking, none, &format!("tokens = [\"{TOKEN}\"]\n")).await;
    let everywhere = format!("0.0.0.0:{}", open.admin.port());
    let _open = start(&open, none, &everywhere).await;

    let mut drive = Command::new("node");
    drive.arg(packages.join("drive.mjs")).current_dir(&packages);
    for (name, place) in [("PLAIN", &plain), ("ASKING", &asking), ("OPEN", &open)] {
        drive
            .env(name, place.admin.to_string())
            .env(format!("{name}_HTTP"), place.http.to_string());
    }
    drive.env("BACKEND", backend.to_string()).env("TOKEN", TOKEN);
    drive.env("GOLDEN", source("tests/golden")).env("IMAGES", packages.join("images"));
    let mut reader = drive.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut answers = reader.stdin.take().unwrap();
    for line in BufReader::new(reader.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        println!("{line}");
        if line == "restart" {
            drop(daemon.take());
            daemon = Some(start(&plain, &sinks, "").await);
            writeln!(answers, "done").unwrap();
        }
    }
    assert!(reader.wait().unwrap().success(), "the daemon said:\n{}", plain.said());
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        for kept in fs::read_dir(source("docs/images")).unwrap() {
            let kept = kept.unwrap();
            fs::copy(packages.join("images").join(kept.file_name()), kept.path()).unwrap();
        }
    }
}

/// Starts a daemon at a place, with these lines for its admin port, or at another admin address.
async fn start(place: &Place, sinks: &str, admin: &str) -> Daemon {
    place.configure(&Config { tables: sinks.to_owned(), ..Config::default() }).unwrap();
    let listen = format!("listen = \"{}\"\n", place.admin);
    let lines = match admin.parse::<std::net::SocketAddr>() {
        Ok(address) => format!("listen = \"{address}\"\n"),
        Err(_) => format!("{listen}{admin}"),
    };
    let config = fs::read_to_string(place.config_file()).unwrap().replace(&listen, &lines);
    fs::write(place.config_file(), config).unwrap();
    let command = place.command(Path::new(env!("CARGO_BIN_EXE_spanferry"))).unwrap();
    Daemon::start(place, command).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Installs the packages and the program; returns the folder.
fn install() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console");
    let wanted = fs::read(source("tests/console/package.json")).unwrap();
    if !fs::read(dir.join("installed")).is_ok_and(|installed| installed == wanted) {
        fs::remove_dir_all(&dir).ok();
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("package.json"), &wanted).unwrap();
        let npm = ["install", "--no-audit", "--no-fund", "--ignore-scripts"];
        let output = Command::new("npm").args(npm).current_dir(&dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::write(dir.join("installed"), &wanted).unwrap();
    }
    fs::copy(source("tests/console/drive.mjs"), dir.join("drive.mjs")).unwrap();
    dir
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Not a test: it ends the suite's output. See `opt_in.rs`.
#[test]
fn zz_what_was_skipped_is_said() {
    opt_in::say_what_was_skipped();
}
