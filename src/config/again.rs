//! An effective configuration, to be read again and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::environment::{Environment, read_file};
use super::layers::Layers;
use super::show::{Hiding, parsed, shown};
use super::{Loaded, Report, Request, read, read_files};

/// Where a configuration was read from.
#[derive(Clone)]
pub struct Origin {
    pub(super) request: Request,
    pub(super) environment: Environment,
    /// The files, each padded for [`Layers::add_file`].
    pub(super) files: Vec<(PathBuf, String)>,
}

impl Origin {
    pub(super) fn new(request: &Request, environment: &Environment) -> Result<Self, Report> {
        let (request, environment) = (request.clone(), environment.clone());
        Ok(Self { files: read_files(&request, &environment)?, request, environment })
    }

    /// Reads everything again. Blocks on the disk.
    pub fn read_again(&self) -> Result<Loaded, Report> {
        read(Self::new(&self.request, &self.environment)?)
    }

    /// Reads again what the files refer to, but not the files themselves. Blocks on the disk.
    pub fn expand_again(&self) -> Result<Loaded, Report> {
        read(self.clone())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The texts may hold credentials.
        out.debug_struct("Origin").field("request", &self.request).finish_non_exhaustive()
    }
}

/// Keys with this suffix, or the key `file`, name a file that is read once, such as a certificate; its contents are part of the value.
const FILE_KEY: &str = "_file";

/// Hashes of all effective values, for comparison. It covers the values of `config show`, so new options are included.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Effective(BTreeMap<String, u64>);

impl Effective {
    pub(super) fn of(layers: &Layers<'_>) -> Self {
        let values = shown(layers, &[], Hiding::Nothing).into_iter().map(|shown| {
            let mut value = shown.value;
            let is_file = |key: &str| key.ends_with(FILE_KEY) || key == "file";
            if is_file(&shown.key)
                && let Some(toml::Value::String(path)) = parsed(&value)
            {
                // The owner of an unreadable file reports it.
                value.extend(read_file(Path::new(&path)));
            }
            let path =
                if shown.table.is_empty() { shown.key } else { shown.table + "." + &shown.key };
            (path, xxh3_64(value.as_bytes()))
        });
        Self(values.collect())
    }

    /// Returns the paths of values that differ, such as `sinks.archive.path`.
    pub fn differences<'e>(&'e self, other: &'e Self) -> BTreeSet<&'e str> {
        let paths = self.0.keys().chain(other.0.keys()).map(String::as_str);
        paths.filter(|path| self.0.get(*path) != other.0.get(*path)).collect()
    }
}

impl fmt::Debug for Effective {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.0.keys()).finish()
    }
}
