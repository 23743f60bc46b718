//! What users copy works: the files of `config/`, and the blocks of the README.

use super::*;

/// Kinds that need no example: nobody starts from a sink that keeps nothing.
const WITHOUT_EXAMPLE: &[&str] = &["blackhole"];

/// Surroundings in which every variable that a text refers to has a value.
fn surroundings(text: &str) -> Environment {
    let references = text.split("${").skip(1).filter_map(|rest| rest.split('}').next());
    // One with a default is left to it.
    let names = references.filter(|inner| !inner.contains(':'));
    let variables: Vec<_> = names.map(|name| (name, "sk-example")).collect();
    Environment::with(variables)
}

/// Loads a text that users copy; returns the kinds of its sinks.
fn kinds_of(text: &str, path: PathBuf) -> Vec<&'static str> {
    let is_of_image = path.ends_with("container.toml");
    let request = Request { files: vec![path], flags: Vec::new() };
    match load(&request, &surroundings(text)) {
        Ok(Loaded { config, warnings: None, .. }) => {
            config.sinks.iter().map(|sink| sink.kind.name).collect()
        }
        // Whoever runs the image decides who reaches its ports, and is told.
        Ok(Loaded { config, warnings: Some(report), .. })
            if report.count() == 1 && config.receivers.exposed().is_some() && is_of_image =>
        {
            config.sinks.iter().map(|sink| sink.kind.name).collect()
        }
        Ok(Loaded { warnings: Some(report), .. }) | Err(report) => {
            panic!("{}", report.render("error", Paint::Plain))
        }
    }
}

/// Every kind whose name is one of these has to be among the examples that were found.
fn check_all_are_there(found: &[&str], place: &str) {
    for kind in KINDS.iter().filter(|kind| !WITHOUT_EXAMPLE.contains(&kind.name)) {
        assert!(found.contains(&kind.name), "{place} has no example of `{}`", kind.name);
    }
}

#[test]
fn every_example_file_loads_and_every_kind_has_one_of_its_name() {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let kinds = kinds_of(&text, path);
            found.extend(kinds.into_iter().filter(|kind| *kind == stem));
        }
    }
    check_all_are_there(&found, "config/");
}

#[test]
fn every_block_of_the_readme_loads_and_every_kind_has_one() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut found = Vec::new();
    for block in blocks {
        let (_dir, request) = request(&[block], Vec::new());
        found.extend(kinds_of(block, request.files[0].clone()));
    }
    check_all_are_there(&found, "README.md");
}
