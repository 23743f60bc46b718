//! The process's surroundings: environment variables, the places where a configuration may be, and the files that `${file:}` names.
//!
//! Only this module reads the environment. Tests create their own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Configuration files and secrets are written by people; a larger file is the wrong one.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Searched in this order if no file is given.
const USUAL_FILES: &[&str] = &["spanferry.toml", "/etc/spanferry/spanferry.toml"];
/// Conventional location of a service's journal.
const SERVICE_STATE_DIR: &str = "/var/lib/spanferry";

/// The environment of the process.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Values by name; `None` if a value is not UTF-8.
    variables: BTreeMap<String, Option<String>>,
    usual_files: Vec<PathBuf>,
    service_state_dir: Option<PathBuf>,
    pub(super) host_name: Option<String>,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn of_process() -> Self {
        let own = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()))
        };
        Self {
            variables: std::env::vars_os().filter_map(own).collect(),
            usual_files: USUAL_FILES.iter().map(PathBuf::from).collect(),
            service_state_dir: writable_service_dir(),
            host_name: rustix::system::uname().nodename().to_str().ok().map(str::to_owned),
        }
    }

    /// Returns a variable; an empty one counts as unset.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name)?.as_deref().filter(|value| !value.is_empty())
    }

    /// Returns a variable, even if it is empty. Returns `Err` if it is not UTF-8.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, &'static str> {
        let value = self.variables.get(name).map(Option::as_deref);
        // A line end after a secret is unintentional.
        let value = value.map(|value| value.map(|text| text.trim_end_matches(['\n', '\r'])));
        value.map(|value| value.ok_or("is not UTF-8")).transpose()
    }

    pub(super) fn beginning_with(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        let all = self.variables.iter().filter(move |(name, _)| name.starts_with(prefix));
        all.filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)))
    }

    /// Returns the configuration file to use if none is given.
    pub(super) fn usual_file(&self) -> Option<&Path> {
        self.usual_files.iter().map(PathBuf::as_path).find(|path| path.exists())
    }

    /// Returns the default directory for state.
    pub fn state_dir(&self) -> PathBuf {
        let below = |name, path| Some(Path::new(self.variable(name)?).join(path));
        let said = self.variable("SPANFERRY_STATE_DIR").map(PathBuf::from);
        said.or_else(|| below("XDG_STATE_HOME", "spanferry"))
            .or_else(|| self.service_state_dir.clone())
            .or_else(|| below("HOME", ".local/state/spanferry"))
            .unwrap_or_else(|| PathBuf::from("spanferry-state"))
    }
}

/// Returns the date of a file's last change (`2026-11-29`); empty if unknown.
pub(super) fn date_of(path: &Path) -> String {
    let written = fs::metadata(path).and_then(|about| about.modified()).ok();
    let written = written.and_then(|at| Timestamp::try_from(at).ok());
    written.map(|at| at.strftime("%Y-%m-%d").to_string()).unwrap_or_default()
}

/// Reads a text file, at most `FILE_BYTES_MAX`.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    #[expect(clippy::disallowed_types, reason = "configuration files are read here")]
    let file = fs::File::open(path)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("larger than 4 MiB, so not a configuration"));
    }
    Ok(text)
}

/// Returns the service's directory if the process may write to it: as root, or as the user it was created for.
fn writable_service_dir() -> Option<PathBuf> {
    let dir = Path::new(SERVICE_STATE_DIR);
    let writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    let existing = if dir.exists() { Some(dir) } else { dir.parent() };
    existing.is_some_and(writable).then(|| dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Environment {
        /// Creates an environment with only these variables.
        pub(crate) fn with<'v>(variables: impl IntoIterator<Item = (&'v str, &'v str)>) -> Self {
            let own = |(name, value): (&str, &str)| (name.to_owned(), Some(value.to_owned()));
            Self { variables: variables.into_iter().map(own).collect(), ..Self::default() }
        }
    }
}
