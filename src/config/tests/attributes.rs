//! `[attributes]`: the resulting mapping, and its limits.

use super::*;
use crate::normalize::{Fact, Mapping};

#[test]
fn facts_have_their_keys_in_order_and_words_their_kinds() {
    let text = "[attributes]\nsession = 'acme.thread'\ninput = ['acme.prompt', 'acme.question']\ntags = []\n\
                kind.'acme.step' = { planner = 'agent' }\n";
    let variables = [("SPANFERRY__ATTRIBUTES__USER", "acme.user")];
    let mapping = read_texts(&[text], &variables, vec![]).unwrap().config.attributes;
    let keys = |fact| mapping.facts.get(&fact).cloned().unwrap_or_default();
    assert_eq!(keys(Fact::Session), ["acme.thread"]);
    assert_eq!(keys(Fact::Input), ["acme.prompt", "acme.question"]);
    assert_eq!(keys(Fact::User), ["acme.user"]);
    assert_eq!(keys(Fact::Tags), [""; 0]);
    assert_eq!(mapping.kinds["acme.step"]["planner"].as_str(), "agent");
    assert_eq!(read_text("").attributes, Mapping::default());
}

#[test]
fn every_setting_that_the_starter_file_shows_of_attributes_can_be_switched_on() {
    let text = starter();
    let (_, shown) = text.split_once("#[attributes]").unwrap();
    let shown = shown.split("\n\n").next().unwrap();
    let settings = shown.lines().filter_map(|line| line.strip_prefix('#'));
    let lines: Vec<_> = settings.filter(|line| !line.starts_with(' ')).collect();
    let mapping = read_text(&format!("[attributes]\n{}\n", lines.join("\n"))).attributes;
    assert_eq!(mapping.facts.len(), Fact::ALL.len());
    assert_eq!(mapping.kinds.len(), 1);
}

#[test]
fn there_is_an_end_to_the_keys_and_it_is_said_once() {
    let text = |count: usize| {
        let keys: Vec<_> = (0..count).map(|number| format!("'acme.{number}'")).collect();
        format!("[attributes]\nsession = [{}]\nkind.'acme.step' = {{}}\n", keys.join(", "))
    };
    assert_eq!(read_text(&text(255)).attributes.facts[&Fact::Session].len(), 255);
    let report = read_texts(&[&text(300)], &[], vec![]).unwrap_err();
    assert_eq!(report.count(), 1);
    let said = report.render("error", Paint::Plain);
    assert!(said.contains("more than 256 keys in total"), "{said}");
}

#[test]
fn counted_tokens_are_shown_and_are_no_credentials() {
    let shown = values(&["[attributes]\ninput_tokens = 'acme.in'\n"], &[], vec![]);
    assert!(
        shown.contains(&r#"attributes.input_tokens = "acme.in" # 0.toml:2"#.to_owned()),
        "{shown:#?}"
    );
}
