//! Installs the SDKs where the programs find them: once, in a cache under the target folder, in pinned versions.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::opt_in;

/// An interpreter and a program for it.
#[derive(Debug, Clone)]
pub(crate) struct Installed {
    /// Python's or Node's binary.
    pub(crate) interpreter: PathBuf,
    /// The program, at a path from which it finds its libraries.
    pub(crate) program: PathBuf,
}

/// Installs what `requirements-VERSION.txt` lists for a program in `tests/sdk/python`. `None` if SDKs were not opted in.
pub(crate) fn python(version: &str, program: &str) -> Option<Installed> {
    let requirements = source(&format!("python/requirements-{version}.txt"));
    let venv = once(&format!("python-{version}"), &requirements, |dir| {
        run(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-compile",
            "--disable-pip-version-check",
            "-r",
        ];
        run(Command::new(dir.join("bin/python")).args(pip).arg(&requirements))
    })?;
    Some(Installed {
        interpreter: venv.join("bin/python"),
        program: source(&format!("python/{program}")),
    })
}

/// Installs the Node modules in `VERSION/package.json` for a program in `tests/sdk/js`. `None` if SDKs were not opted in.
pub(crate) fn node(version: &str, program: &str) -> Option<Installed> {
    let package = source(&format!("js/{version}/package.json"));
    let modules = once(&format!("js-{version}"), &package, |dir| {
        fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        fs::copy(&package, dir.join("package.json")).map_err(|error| error.to_string())?;
        run(Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(dir))
    })?;
    // Node looks for modules next to the program.
    let copy = modules.join(program);
    fs::copy(source(&format!("js/{program}")), &copy).unwrap();
    Some(Installed { interpreter: PathBuf::from("node"), program: copy })
}

/// Installs into a folder of the cache unless that was done before for the same list. Fails the test if the installation fails.
fn once(
    name: &str,
    list: &Path,
    install: impl FnOnce(&Path) -> Result<(), String>,
) -> Option<PathBuf> {
    static DONE: Mutex<Option<HashMap<String, Result<(), String>>>> = Mutex::new(None);
    if !opt_in::wants("sdk") {
        return None;
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk").join(name);
    // Held while installing, so that tests that need the same folder wait for it.
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    let good = done.get_or_insert_default().entry(name.to_owned()).or_insert_with(|| {
        let stamp = dir.join("installed");
        let wanted = fs::read(list).unwrap();
        if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(());
        }
        fs::remove_dir_all(&dir).ok();
        fs::create_dir_all(dir.parent().unwrap()).unwrap();
        install(&dir)?;
        fs::write(&stamp, wanted).map_err(|error| error.to_string())
    });
    let good = good.clone();
    drop(done);
    good.unwrap_or_else(|reason| panic!("{name} cannot be installed: {reason}"));
    Some(dir)
}

fn run(command: &mut Command) -> Result<(), String> {
    let shown = command.get_program().display().to_string();
    let output = command.output().map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{shown} ended with {}: {}",
        output.status,
        said.trim().lines().last().unwrap_or_default()
    ))
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(path)
}
