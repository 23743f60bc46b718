//! Checks whether the files could be written, without creating or opening any.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Checks the folder of a path's files, the part of the path before the first placeholder. Missing folders are created with the first file,
/// so the nearest existing one decides.
pub(super) fn probe(path: &Path) -> Result<String, String> {
    if path.is_dir() {
        return Err(format!("{} is a directory, not a file", path.display()));
    }
    let folder = fixed_folder(path);
    let Some(existing) = folder.ancestors().find(|ancestor| ancestor.exists()) else {
        return Err(format!("no parent directory of {} exists", folder.display()));
    };
    if !existing.is_dir() {
        return Err(format!("{} is not a directory, so it cannot hold files", existing.display()));
    }
    let target = if path.exists() { path } else { existing };
    let wanted =
        if target.is_dir() { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
    match access(target, wanted) {
        Ok(()) => Ok(format!("files can be written in {}", folder.display())),
        Err(problem) => Err(format!("cannot write to {}: {problem}", target.display())),
    }
}

fn fixed_folder(path: &Path) -> PathBuf {
    let is_fixed =
        |part: &std::path::Component<'_>| !part.as_os_str().to_string_lossy().contains('{');
    let fixed: PathBuf = path.components().take_while(is_fixed).collect();
    match fixed.parent() {
        Some(parent) if fixed == path => parent.to_owned(),
        _ => fixed,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_that_is_there_or_can_be_made_is_good() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a.jsonl", "{date}.jsonl", "new/folder/{date}.jsonl", "new{hour}/{date}.jsonl"]
        {
            let found = probe(&dir.path().join(path));
            assert!(found.as_ref().is_ok_and(|said| said.contains("can be written")), "{found:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
    }

    #[test]
    fn what_cannot_be_written_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let below = probe(&file.join("below/{date}.jsonl")).unwrap_err();
        assert!(below.contains("is not a directory"), "{below}");
        let folder = probe(dir.path()).unwrap_err();
        assert!(folder.contains("is a directory"), "{folder}");
    }

    #[test]
    fn a_folder_that_this_user_may_not_write_to_is_said() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
        let said = probe(&dir.path().join("below/{date}.jsonl"));
        // Root may write everywhere.
        if rustix::process::geteuid().is_root() {
            assert!(said.is_ok(), "{said:?}");
        } else {
            assert!(said.unwrap_err().contains("cannot write to"));
        }
    }
}
