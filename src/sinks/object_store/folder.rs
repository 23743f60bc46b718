//! A store in a folder.
//!
//! A file and its metadata (the attribute `user.spanferry`) are one inode. Both are written and synced under a hidden name; then the inode
//! is linked under the object's name, which fails if that exists. So at no moment, nor after a crash, does a name lead to half a file or to
//! a file without its place, and two writers cannot interfere. With a second file for the metadata, the order of two names would matter,
//! and a late put of an earlier run would violate it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use ::object_store::path::Path as Name;
use glob::{Pattern, glob};
use rustix::fs::{XattrFlags, fsetxattr, getxattr};
use rustix::io::Errno;
use tokio::task::spawn_blocking;

use crate::sinks::Pace;

/// The attribute with a file's metadata.
const ATTRIBUTE: &str = "user.spanferry";
/// The metadata has a few hundred bytes; file systems limit attributes to a block.
const ATTRIBUTE_BYTES_MAX: usize = 4096;

/// A writer's objects by number.
pub(super) type Numbered = BTreeMap<u64, Name>;

/// Returns the number in a name with this prefix.
pub(super) fn number_of(name: &str, stem: &str) -> Option<u64> {
    name.strip_prefix(stem)?.split_once('.')?.0.parse().ok()
}

/// The folder that holds the objects.
#[derive(Debug, Clone)]
pub(super) struct Folder(pub(super) PathBuf);

impl fmt::Display for Folder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/", self.0.display())
    }
}

impl Folder {
    /// See `Store::numbered`. Also removes files that an earlier run did not finish.
    pub(super) async fn numbered(&self, from: &Name, stem: &str) -> Result<Numbered, Pace> {
        let (from, stem) = (from.to_string(), stem.to_owned());
        self.run(move |root| {
            let (mut found, start) = (Numbered::new(), Pattern::escape(&stem));
            for partition in matching(root, "dt=*/hour=*")? {
                let below = partition.strip_prefix(root).unwrap_or(&partition).to_string_lossy();
                if *below < *from {
                    continue;
                }
                for unfinished in matching(&partition, &format!(".{start}*"))? {
                    fs::remove_file(unfinished)?;
                }
                for file in matching(&partition, &format!("{start}*"))? {
                    let name = file.file_name().unwrap_or_default().to_string_lossy();
                    let path = || Name::from(format!("{below}/{name}"));
                    found.extend(number_of(&name, &stem).map(|number| (number, path())));
                }
            }
            Ok(found)
        })
        .await
    }

    /// Returns a file's metadata; empty if no sink wrote it.
    pub(super) async fn text_of(&self, name: &Name) -> Result<String, Pace> {
        let name = name.to_string();
        self.run(move |root| {
            let mut text = vec![0; ATTRIBUTE_BYTES_MAX];
            match getxattr(root.join(name), ATTRIBUTE, &mut text) {
                Ok(length) => text.truncate(length),
                Err(Errno::NODATA | Errno::OPNOTSUPP) => text.clear(),
                Err(error) => return Err(error.into()),
            }
            Ok(String::from_utf8(text).unwrap_or_default())
        })
        .await
    }

    /// Writes a file in the nearest existing folder, and removes it.
    pub(super) async fn probe(&self) -> Result<String, Pace> {
        let probed = self.run(|root| {
            let existing = root.ancestors().find(|folder| folder.exists()).unwrap_or(root);
            let hidden = hidden(existing, "spanferry-doctor");
            let written = write(&hidden, b"", "");
            fs::remove_file(&hidden).ok();
            written
        });
        probed.await.map(|()| format!("files can be written in {self}"))
    }

    /// Runs work that blocks on the disk.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Pace> {
        let root = self.0.clone();
        let done = spawn_blocking(move || work(&root)).await.map_err(io::Error::other).flatten();
        done.map_err(|error| self.pace(&error))
    }

    pub(super) fn pace(&self, error: &io::Error) -> Pace {
        let advice = match error.kind() {
            ErrorKind::Unsupported => {
                " (no extended attributes (user.*) or hard links): use a file system that has them, such as ext4, XFS, Btrfs, ZFS or APFS"
            }
            ErrorKind::PermissionDenied => ": allow this process to write there",
            ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidFilename => ": correct `url`",
            _ => "",
        };
        let reason = format!("{self}: {error}{advice}");
        match advice {
            "" => Pace::down(reason),
            _ => Pace::hold(reason),
        }
    }
}

/// Returns the matching paths below a folder; none if the folder does not exist.
fn matching(folder: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let folder = Pattern::escape(&folder.to_string_lossy());
    let found = glob(&format!("{folder}/{pattern}")).map_err(io::Error::other)?;
    found.map(|path| path.map_err(io::Error::from)).collect()
}

/// Returns a hidden name that is unique to each try, because an abandoned try may still be running.
fn hidden(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.{:016x}", RandomState::new().hash_one(name)))
}

/// See `Store::create`.
pub(super) fn create(root: &Path, name: &str, bytes: &[u8], facts: &str) -> io::Result<bool> {
    let path = &root.join(name);
    let folder = path.parent().unwrap_or(root);
    let new = root.ancestors().take_while(|folder| !folder.exists()).filter_map(Path::parent);
    let above: Vec<&Path> = new.collect();
    fs::create_dir_all(folder)?;
    let hidden = hidden(folder, &path.file_name().unwrap_or_default().to_string_lossy());
    let linked = write(&hidden, bytes, facts).and_then(|()| fs::hard_link(&hidden, path));
    fs::remove_file(&hidden).ok();
    let is_new = match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        linked => linked.map(|()| true)?,
    };
    // Sync even if the name exists, because an earlier try may have failed before this.
    let below = folder.ancestors().take_while(|folder| folder.starts_with(root));
    below.chain(above).try_for_each(sync)?;
    Ok(is_new)
}

fn write(path: &Path, bytes: &[u8], facts: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    fsetxattr(&file, ATTRIBUTE, facts.as_bytes(), XattrFlags::CREATE)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).open(folder)?.sync_all()
}
