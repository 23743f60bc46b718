//! Text that users copy works: the files of `config/`, and the blocks of the README.

use super::*;
use crate::support::kafka::{IS_BUILT, NOT_BUILT};

/// Kinds without an example: nobody starts with a sink that keeps nothing.
const WITHOUT_EXAMPLE: &[&str] = &["blackhole"];

/// Returns an environment in which every variable that a text refers to has a value.
fn surroundings(text: &str) -> Environment {
    let references = text.split("${").skip(1).filter_map(|rest| rest.split('}').next());
    // A reference with a default keeps it.
    let names = references.filter(|inner| !inner.contains(':'));
    let variables: Vec<_> = names.map(|name| (name, name)).collect();
    Environment::with(variables)
}

/// Loads a text that users copy; returns the kinds of its sinks.
fn kinds_of(text: &str, path: PathBuf) -> Vec<&'static str> {
    let is_of_image = path.ends_with("container.toml");
    let wants_kafka = text.contains("\n[receivers.kafka]") || text.contains("\"kafka\"");
    let request = Request { files: vec![path], flags: Vec::new() };
    match load(&request, &surroundings(text)) {
        Ok(Loaded { config, warnings: None, .. }) => {
            config.sinks.iter().map(|sink| sink.kind.name).collect()
        }
        // The user of the image decides who can reach its ports, and gets a warning.
        Ok(Loaded { config, warnings: Some(report), .. })
            if report.count() == 1 && config.receivers.exposed().is_some() && is_of_image =>
        {
            config.sinks.iter().map(|sink| sink.kind.name).collect()
        }
        Err(report) if wants_kafka && !IS_BUILT => {
            let said = report.render("error", Paint::Plain);
            assert!(said.contains(NOT_BUILT.1) && report.count() <= 2, "{said}");
            vec!["kafka"]
        }
        Ok(Loaded { warnings: Some(report), .. }) | Err(report) => {
            panic!("{}", report.render("error", Paint::Plain))
        }
    }
}

/// Checks that the examples include every kind that needs one.
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
fn the_tests_of_every_example_of_rules_pass() {
    let page = fs::read_to_string(root().join("docs/rules.md")).unwrap();
    let example = fs::read_to_string(root().join("config/rules.toml")).unwrap();
    let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut tests = 0;
    for block in blocks.chain([example.as_str()]) {
        let (_dir, request) = request(&[block], Vec::new());
        kinds_of(block, request.files[0].clone());
        let (count, failed) = test(&request, &surroundings(block)).unwrap();
        let failed = failed.map(|report| report.render("error", Paint::Plain));
        assert_eq!(failed, None, "{block}");
        tests += count;
    }
    assert!(tests >= 9, "{tests} tests were found");
}

#[test]
fn every_field_is_in_the_page_about_rules() {
    let page = fs::read_to_string(root().join("docs/rules.md")).unwrap();
    for fact in rules::Fact::ALL {
        assert!(page.contains(&format!("\n| `{}` |", fact.as_str())), "{}", fact.as_str());
    }
    for effect in ["keep", "drop", "sample", "route"] {
        assert!(page.contains(&format!("\n| `{effect} = ")), "{effect}");
    }
}

#[test]
fn a_test_of_rules_that_fails_is_shown_where_it_expects_something_else() {
    let text = "[[rules]]\nname = 'no_tools'\nmatch = { kind = 'tool' }\ndrop = true\n\
        [[tests]]\nopenai = { span_data = { type = 'function', name = 'f' } }\nexpect = 'kept'\n\
        [[tests]]\nspan = { name = 'a' }\nexpect = { name = 'b', absent = 'a' }\n\
        [[tests]]\nspan = { name = 'a' }\nexpect = 'dropped'\n";
    let (_dir, request) = request(&[text], Vec::new());
    let (count, failed) = test(&request, &Environment::with([])).unwrap();
    let said = failed.unwrap().render("error", Paint::Plain);
    assert_eq!(count, 3);
    for line in [
        "the test fails: the span is dropped",
        "hint: `no_tools`: dropped",
        "7 | expect = 'kept'",
        "the test fails: this does not hold for the result",
        "hint: no rule matches it",
        "the test fails: the result contains this text",
        "the test fails: the span is kept",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
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

#[test]
fn no_two_rules_of_a_sink_have_one_name_and_rules_that_nothing_reaches_are_a_warning() {
    let sink = "[sinks.out]\ntype = 'blackhole'\n[sinks.kept]\ntype = 'stdout'\n";
    let rule = |list: &str, name: &str| format!("[[{list}]]\n{name}\ndrop = true\n");
    let of = |name: &str| {
        let text = rule("rules", name) + sink + &rule("sinks.out.rules", name);
        read_texts(&[&text], &[], Vec::new())
    };
    let said = of("name = 'same'").unwrap_err().render("error", Paint::Plain);
    assert!(said.contains("two rules are named `same`") && said.contains("0.toml:8:1"), "{said}");
    let warnings = of("").unwrap().warnings.unwrap().render("warning", Paint::Plain);
    assert!(warnings.contains("the rule `sink_rule_1` is never reached"), "{warnings}");
}
