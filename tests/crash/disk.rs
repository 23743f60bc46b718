//! A small disk that only one daemon sees, and that can be filled and emptied from outside.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::process::{Daemon, Place};
use super::{opt_in, program};

/// Returns the command that runs a daemon with a disk of this size at `dir`, in its own mount namespace, so that the disk disappears with
/// the daemon. `None` if this is not permitted.
pub(crate) fn with_small_disk(place: &Place, dir: &Path, bytes: u64) -> Option<Command> {
    const MOUNT_AND_RUN: &str = r#"mount -t tmpfs -o "size=$1" small "$2" && shift 2 && exec "$@""#;
    fs::create_dir_all(dir).unwrap();
    let confined = |rest: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", MOUNT_AND_RUN, "sh", &bytes.to_string()])
            .arg(dir)
            .args(rest);
        command
    };
    if !confined(&["true"]).status().is_ok_and(|status| status.success()) {
        opt_in::skip("full disks (no small disk can be mounted here: it takes root and unshare)");
        return None;
    }
    let mut command = confined(&[
        program().to_str().unwrap(),
        "run",
        "-c",
        place.config_file().to_str().unwrap(),
    ]);
    place.at_home(&mut command).unwrap();
    Some(command)
}

/// Makes a file that cannot be opened (1024 is `F_SETLEASE` of Linux): an open blocks until the lease on the file is released, which this
/// process never does, or for 45 seconds. `None` if this is not possible.
pub(crate) fn hang(file: &Path) -> Option<Child> {
    const LEASE: &str = r#"use Fcntl; $SIG{IO} = "IGNORE"; $| = 1; open(F, "+>>", $ARGV[0]) or die; fcntl(F, 1024, F_WRLCK) or die; print "has it\n"; sleep 600"#;
    File::create(file).unwrap();
    let mut command = Command::new("perl");
    command.args(["-e", LEASE]).arg(file).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok();
    let mut said = [0; 7];
    let output = child.as_mut().and_then(|child| child.stdout.as_mut());
    if output.is_some_and(|output| output.read_exact(&mut said).is_ok()) {
        return child;
    }
    opt_in::skip(
        "a file system that hangs (nobody can lease a file here: it takes perl and Linux)",
    );
    None
}

/// Returns a path as the daemon sees it.
pub(crate) fn seen_by(daemon: &Daemon, path: &Path) -> PathBuf {
    Path::new(&format!("/proc/{}/root", daemon.pid())).join(path.strip_prefix("/").unwrap())
}

/// A file that fills a small disk.
pub(crate) struct Filler {
    path: PathBuf,
}

impl Filler {
    /// Fills the disk at `dir` except for some bytes.
    pub(crate) fn fill(daemon: &Daemon, dir: &Path, left: u64) -> Self {
        let dir = seen_by(daemon, dir);
        let disk = statvfs(&dir).unwrap();
        let path = dir.join("filler");
        let file = File::create(&path).unwrap();
        fallocate(file, FallocateFlags::empty(), 0, disk.f_bavail * disk.f_frsize - left).unwrap();
        Self { path }
    }

    pub(crate) fn remove(self) {
        fs::remove_file(self.path).unwrap();
    }
}
