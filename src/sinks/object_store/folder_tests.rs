//! Tests of the sink over a folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path as FilePath, PathBuf};

use rustix::io::Errno;

use super::tests::{HOUR_5, begun_over, lines_of, place, spans};
use super::*;

/// Returns a sink over this folder, with these options.
pub(crate) fn folder_lake(folder: &FilePath, options: &str, state: Bytes) -> Lake {
    let options = format!("url = \"file://{}\"\n{options}", folder.display());
    let options: Options = toml::from_str(&options).unwrap();
    assert_eq!(options.check(), []);
    let parts = Parts { name: "lake".to_owned(), state, ..Parts::default() };
    Lake::over(connect::store(&options).unwrap(), &options, parts)
}

/// Returns all files below a folder by name, including hidden ones.
pub(crate) fn files_in(folder: &FilePath) -> BTreeMap<String, Bytes> {
    let (mut all, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                all.insert(name, fs::read(path).unwrap().into());
            }
        }
    }
    all
}

fn only_file(folder: &FilePath) -> PathBuf {
    let files = files_in(folder);
    assert_eq!(files.len(), 1, "{:?}", files.keys());
    folder.join(files.keys().next().unwrap())
}

async fn begun(folder: &FilePath) -> Lake {
    begun_over(folder_lake(folder, "", Bytes::new())).await
}

#[tokio::test]
async fn a_file_has_its_rows_its_place_and_the_partition_of_its_hour() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("made/when needed");
    let sink = begun(&root).await;
    sink.deliver(&spans(HOUR_5, 0..3)).await;
    assert!(!root.exists(), "nothing is there before it is whole");
    sink.checkpoint_at(place("1")).await.unwrap();
    let path = only_file(&root);
    assert!(path.starts_with(root.join("dt=2026-11-21/hour=05")), "{}", path.display());
    assert_eq!(lines_of(&fs::read(&path).unwrap().into()), 3);
    let mut text = [0; 1024];
    let length = rustix::fs::getxattr(&path, "user.spanferry", &mut text).unwrap();
    let facts = ObjectNote::read(std::str::from_utf8(&text[..length]).unwrap()).unwrap();
    assert_eq!((facts.place(), facts.rows), (place("1"), 3));
}

#[tokio::test]
async fn after_a_crash_behind_the_link_the_lane_goes_on_behind_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let sink = begun(dir.path()).await;
    let state = sink.checkpoint_at(place("0")).await.unwrap().state;
    for at in ["1", "2"] {
        sink.deliver(&spans(HOUR_5, 0..3)).await;
        sink.checkpoint_at(place(at)).await.unwrap();
    }
    let before = files_in(dir.path());
    // The crash happened before the last file's hidden name was removed, and while another was written.
    let (last, _) = before.last_key_value().unwrap();
    let (folder, name) = last.rsplit_once('/').unwrap();
    let folder = dir.path().join(folder);
    fs::hard_link(folder.join(name), folder.join(format!(".{name}.0000000000000001"))).unwrap();
    let next = name.replace("0000000001", "0000000002");
    fs::write(folder.join(format!(".{next}.0000000000000002")), "hal").unwrap();
    fs::write(folder.join(".another"), "stays").unwrap();

    let sink = folder_lake(dir.path(), "", state);
    assert_eq!(sink.deliver(&spans(HOUR_5, 0..3)).await.pace, Pace::Checkpoint);
    assert_eq!(sink.checkpoint_at(place("0")).await.unwrap().go_on, Some(place("2")));
    fs::remove_file(folder.join(".another")).unwrap();
    assert_eq!(files_in(dir.path()), before);
}

#[tokio::test]
async fn a_put_that_is_repeated_is_recognised_and_anothers_file_is_never_touched() {
    let dir = tempfile::tempdir().unwrap();
    let sink = begun(dir.path()).await;
    sink.deliver(&spans(HOUR_5, 0..3)).await;
    let state = sink.checkpoint_at(place("1")).await.unwrap().state;
    let path = only_file(dir.path());
    let whole = fs::read(&path).unwrap();
    let facts = |sha256: &str| ObjectNote {
        place: base64::text(&place("9")),
        sha256: sha256.to_owned(),
        rows: 3,
        format: String::new(),
    };
    let name = Path::from(path.strip_prefix(dir.path()).unwrap().to_str().unwrap());
    let again = sink.store.create(&name, &Bytes::from_static(b"others"), &facts("x")).await;
    assert_eq!((again, fs::read(&path).unwrap()), (Ok(false), whole), "and its place stays");
    assert_eq!(sink.store.facts_of(&name).await.unwrap().place(), place("1"));

    let next = path.to_str().unwrap().replace("0000000000", "0000000001");
    fs::write(&next, "another's").unwrap();
    let sink = folder_lake(dir.path(), "", state);
    sink.deliver(&spans(HOUR_5, 3..4)).await;
    let Err(Pace::Hold { reason }) = sink.checkpoint_at(place("1")).await else { panic!() };
    assert!(reason.contains(&next) && reason.contains("move it away"), "{reason}");
    assert_eq!(fs::read(&next).unwrap(), b"another's");
}

#[tokio::test]
async fn what_a_folder_cannot_do_is_said_and_nothing_is_left_of_asking() {
    let dir = tempfile::tempdir().unwrap();
    let asked = |folder: PathBuf| async move {
        let options = format!("url = \"file://{}\"", folder.display());
        toml::from_str::<Options>(&options).unwrap().probe().unwrap().await
    };
    let said = asked(dir.path().join("not/there/yet")).await.unwrap();
    assert!(said.contains("can be written in") && said.contains("/not/there/yet"), "{said}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::write(dir.path().join("file"), "").unwrap();
    let said = asked(dir.path().join("file/below")).await.unwrap_err();
    assert!(said.contains("correct `url`"), "{said}");

    let sink = begun(&dir.path().join("file")).await;
    sink.deliver(&spans(HOUR_5, 0..3)).await;
    for _ in 0..2 {
        let Err(Pace::Hold { reason }) = sink.checkpoint_at(place("1")).await else { panic!() };
        assert!(reason.contains("correct `url`"), "{reason}");
    }
    fs::remove_file(dir.path().join("file")).unwrap();
    sink.checkpoint_at(place("1")).await.unwrap();
    assert_eq!(lines_of(&fs::read(only_file(dir.path())).unwrap().into()), 3);

    let folder = folder::Folder("/lake".into());
    for (error, advice) in [
        (Errno::OPNOTSUPP, "extended attributes"),
        (Errno::ACCESS, "allow this process"),
        (Errno::ROFS, "correct `url`"),
    ] {
        let Pace::Hold { reason } = folder.pace(&error.into()) else { panic!("{error}") };
        assert!(reason.starts_with("/lake/: ") && reason.contains(advice), "{reason}");
    }
    assert!(matches!(folder.pace(&Errno::NOSPC.into()), Pace::Down { .. }));
}
