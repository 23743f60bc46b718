//! Packages that are installed once are installed again when necessary. This test needs none of them.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::opt_in;
use super::servers::Recipe;

static TIMES: AtomicUsize = AtomicUsize::new(0);

fn make(folder: &Path) -> Result<(), String> {
    TIMES.fetch_add(1, Ordering::Relaxed);
    std::fs::write(folder.join("program"), folder.to_string_lossy().as_bytes())
        .map_err(|error| error.to_string())
}

#[test]
fn a_server_that_has_its_path_written_in_it_is_made_again_where_it_was_copied_to() {
    let bound = Recipe {
        name: "nothing",
        folder: "nothing-1",
        source: "nothing==1",
        is_bound_to_its_path: true,
        make,
    };
    let movable = Recipe { folder: "nothing-2", is_bound_to_its_path: false, ..bound };
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for recipe in [&bound, &movable] {
        TIMES.store(0, Ordering::Relaxed);
        let made = recipe.made_below(here.path()).unwrap();
        assert_eq!(recipe.made_below(here.path()).unwrap(), made);
        assert_eq!(TIMES.load(Ordering::Relaxed), 1, "it is made once");
        let copy = there.path().join(recipe.folder);
        std::fs::create_dir(&copy).unwrap();
        for file in ["program", "made-from"] {
            std::fs::copy(made.join(file), copy.join(file)).unwrap();
        }
        assert_eq!(recipe.made_below(there.path()).unwrap(), copy);
        let knows_its_place =
            std::fs::read(copy.join("program")).unwrap() == copy.to_string_lossy().as_bytes();
        assert_eq!(knows_its_place, recipe.is_bound_to_its_path);
    }
}

#[test]
fn one_variable_says_what_the_tests_run_with() {
    assert_eq!(opt_in::chosen(""), Ok(vec![]));
    let quick = opt_in::chosen("1").unwrap();
    let all = opt_in::chosen("all").unwrap();
    assert!(quick.contains(&"sdk") && !quick.contains(&"jaeger"), "{quick:?}");
    assert!(quick.iter().all(|name| all.contains(name)) && all.contains(&"jaeger"), "{all:?}");
    assert_eq!(opt_in::chosen("jaeger, elasticsearch-9"), Ok(vec!["jaeger", "elasticsearch-9"]));
    assert!(opt_in::chosen("jaeger,eager").is_err_and(|error| error.contains("\"eager\"")));
}
