//! Mistakes in rules are reported at their positions.

use super::tests::{rules, try_rules};

#[test]
fn every_rule_that_cannot_work_is_a_mistake_with_its_place() {
    for (text, at, what) in [
        ("rules = 7", "7", "list of tables"),
        ("rules = [7]", "7", "is a table"),
        ("[[rules]]\nmatch = { kind = \"tool\" }", "[[rules]]", "no action"),
        ("[[rules]]\ndrop = true\nkeep = true", "keep", "second action beside `drop`"),
        ("[[rules]]\ndrop = false", "false", "no action"),
        ("[[rules]]\ndorp = true", "dorp", "unknown key `dorp` for a rule"),
        ("[[rules]]\nsample = 2", "2", "not a rate"),
        ("[[rules]]\nroute = []", "[]", "no sink is named"),
        ("[[rules]]\ndrop = true\ndecide = \"all\"", "\"all\"", "not one of the allowed values"),
        ("[[rules]]\nroute = [\"a\"]\ndecide = \"trace\"", "\"trace\"", "cannot decide on a trace"),
        ("[[rules]]\nname = \"\"\ndrop = true", "\"\"", "not a valid rule name"),
        ("[[rules]]\nroute = [\"a\"]\nbefore_journal = true", "true", "before the journal"),
        ("[[rules]]\ndrop = true\nmatch = {}", "{}", "no condition"),
        ("[[rules]]\ndrop = true\nmatch = \"tool\"", "\"tool\"", "table of conditions"),
        ("[[rules]]\ndrop = true\nmatch = { knd = \"tool\" }", "knd", "unknown field `knd`"),
        ("[[rules]]\ndrop = true\nmatch = { kind = \"tol\" }", "\"tol\"", "no such value"),
        ("[[rules]]\ndrop = true\nmatch = { kind = \"x*\" }", "\"x*\"", "no such value"),
        ("[[rules]]\ndrop = true\nmatch = { agent = [] }", "[]", "an empty list"),
        ("[[rules]]\ndrop = true\nmatch = { agent = \"\" }", "\"\"", "an empty string"),
        ("[[rules]]\ndrop = true\nmatch = { agent = \"*\" }", "\"*\"", "matches everything"),
        ("[[rules]]\ndrop = true\nmatch = { agent = 7 }", "7", "text"),
        ("[[rules]]\ndrop = true\nmatch = { agent = \">2\" }", "\">2\"", "cannot be compared"),
        (
            "[[rules]]\ndrop = true\nmatch = { agent = { regex = \"(\" } }",
            "\"(\"",
            "not a regular expression",
        ),
        (
            "[[rules]]\ndrop = true\nmatch = { agent = { regex = \".*\" } }",
            "\".*\"",
            "matches everything",
        ),
        ("[[rules]]\ndrop = true\nmatch = { agent = { rgx = \"a\" } }", "rgx", "unknown test"),
        (
            "[[rules]]\ndrop = true\nmatch = { agent = { exists = 1 } }",
            "1",
            "not a value for `exists`",
        ),
        ("[[rules]]\ndrop = true\nmatch = { duration = \"2s\" }", "\"2s\"", "not a comparison"),
        ("[[rules]]\ndrop = true\nmatch = { duration = \">2\" }", "\">2\"", "not a comparison"),
        ("[[rules]]\ndrop = true\nmatch = { duration = 2 }", "2", "unit"),
        ("[[rules]]\ndrop = true\nmatch = { tokens = true }", "true", "a number"),
        ("[[rules]]\ndrop = true\nmatch = { tokens = { regex = \"1\" } }", "\"1\"", "not text"),
        ("[[rules]]\ndrop = true\nmatch = { llm = \"yes\" }", "\"yes\"", "true or false"),
        ("[[rules]]\ndrop = true\nmatch = { any = {} }", "{}", "list of conditions"),
        ("[[rules]]\ndrop = true\nmatch = { any = [{}] }", "{}", "no condition"),
        ("[[rules]]\ndrop = true\nmatch = { not = [] }", "[]", "table of conditions"),
        ("[[rules]]\ndrop = true\nmatch = { attribute = {} }", "{}", "table of keys"),
        (
            "[[rules]]\ndrop = true\nmatch = { attribute = { a = { b = 1 } } }",
            "b",
            "unknown test `b`",
        ),
    ] {
        let problems = try_rules(text).expect_err(text);
        let [problem] = problems.as_slice() else { panic!("{text}: {problems:?}") };
        assert!(problem.what.contains(what), "{text}: {problem:?}");
        let place = text.get(problem.at.clone().unwrap()).unwrap();
        assert!(place.starts_with(at), "{text}: {place:?}");
        assert!(problem.hint.as_ref().is_none_or(|hint| !hint.is_empty()), "{text}");
    }
    let problems =
        try_rules("[[rules]]\ndrop = true\nmatch = { knd = 1, agnet = \"a\" }").unwrap_err();
    let hints: Vec<_> = problems.iter().filter_map(|problem| problem.hint.as_deref()).collect();
    assert_eq!(hints, ["did you mean `kind`?", "did you mean `agent`?"], "all at once");
}

#[test]
fn a_test_of_what_no_span_can_be_is_a_mistake() {
    for (span, at) in [
        ("status = 'failed'", "'failed'"),
        ("span_kind = 'srv'", "'srv'"),
        ("duration = '2 apples'", "'2 apples'"),
        ("atributes = { a = 1 }", "atributes"),
    ] {
        let text = format!("tests = [{{ span = {{ {span} }}, expect = 'kept' }}]");
        let table = toml::de::DeTable::parse(&text).unwrap().into_inner();
        let mut problems = Vec::new();
        assert!(super::read_tests(table.get("tests"), &[], &mut problems).is_empty(), "{span}");
        let [problem] = problems.as_slice() else { panic!("{span}: {problems:?}") };
        let place = text.get(problem.at.clone().unwrap()).unwrap();
        assert!(place.starts_with(at), "{span}: {problem:?}");
    }
}

#[test]
fn a_sink_that_is_not_there_is_a_mistake_and_rules_behind_a_drop_of_all_are_found() {
    let rules = rules(
        "[[rules]]\nroute = [\"serch\"]\n[[rules]]\ndrop = true\n[[rules]]\nname = \"late\"\nsample = 0.5",
    );
    let first = &rules.all[0];
    let problems = first.check_route(&["search"]);
    assert_eq!(problems[0].hint.as_deref(), Some("did you mean `search`?"));
    assert!(first.check_route(&["serch"]).is_empty());
    assert_eq!(rules.unreached().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["late"]);
    let kept = super::tests::rules(
        "[[rules]]\nkeep = true\n[[rules]]\ndrop = true\n[[rules]]\nsample = 1.0",
    );
    assert_eq!(kept.unreached().count(), 0, "what is kept gets there");
}

#[test]
fn a_rule_that_cannot_be_before_the_journal_says_what_to_do() {
    for (more, hint) in [
        ("route = [\"a\"]", "remove `before_journal`"),
        ("drop = true\ndecide = \"trace\"", "a trace waits in the journal until it is decided"),
    ] {
        let problems = try_rules(&format!("[[rules]]\n{more}\nbefore_journal = true")).unwrap_err();
        assert_eq!(problems[0].what, "this rule cannot run before the journal");
        assert!(problems[0].hint.as_ref().unwrap().contains(hint), "{problems:?}");
    }
}
