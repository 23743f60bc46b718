//! A sink in parts is equivalent to the sinks that one would write by hand.

use super::*;

const TWO: &str = "[sinks.lf]\ntype = 'langfuse'\nbase_url = 'https://lf.example.com'\nenvironment = 'of-{tenant}'\nby = 'tenant'\n\
    [sinks.lf.parts.red]\npublic_key = 'pk-1'\nsecret_key = 'sk-hunter2'\n\
    [sinks.lf.parts.blue]\npublic_key = 'pk-2'\nsecret_key = 'sk-hunter3'\nvalues = ['blue', 'Light blue']\n\
    batch.items_max = 7\n";

fn said(text: &str) -> String {
    let read = read_texts(&[text], &[], Vec::new());
    read.map(|loaded| loaded.config.list_sinks()).unwrap_err().render("error", Paint::Plain)
}

/// Returns the effective values of the sinks, without their origins.
fn in_force(text: &str) -> Vec<String> {
    let lines = values(&[text], &[], Vec::new()).into_iter();
    let lines = lines.filter(|line| line.starts_with("sinks."));
    lines.map(|line| line.split(" # ").next().unwrap().to_owned()).collect()
}

#[test]
fn a_sink_in_parts_is_what_one_would_write_by_hand() {
    let head = |name: &str| {
        format!(
            "[sinks.lf-{name}]\ntype = 'langfuse'\nbase_url = 'https://lf.example.com'\nenvironment = 'of-{name}'\n"
        )
    };
    let by_hand = format!(
        "{}public_key = 'pk-1'\nsecret_key = 'sk-1'\nonly = {{ tenant = ['red'] }}\n\
         {}public_key = 'pk-2'\nsecret_key = 'sk-2'\nbatch.items_max = 7\nonly = {{ tenant = ['blue', 'Light blue'] }}\n",
        head("red"),
        head("blue"),
    );
    assert_eq!(in_force(TWO), in_force(&by_hand));
    let config = read_text(TWO);
    let names: Vec<_> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["lf-red", "lf-blue"]);
    assert!(config.sinks[1].origin.ends_with("0.toml:9"), "{}", config.sinks[1].origin);
}

#[test]
fn every_way_to_divide_becomes_a_condition_of_its_own_and_one_part_has_the_rest() {
    for (by, one, rest) in [
        ("'service'", "only = { service = [\"a\"] }", "except = { service = [\"a\"] }"),
        (
            "{ attribute = 'team.name' }",
            "only = { attribute = { \"team.name\" = [\"a\"] } }",
            "except = { attribute = { \"team.name\" = [\"a\"] } }",
        ),
        (
            "{ resource = 'k8s.namespace.name' }",
            "only = { resource = { \"k8s.namespace.name\" = [\"a\"] } }",
            "except = { resource = { \"k8s.namespace.name\" = [\"a\"] } }",
        ),
    ] {
        let text = format!(
            "[sinks.out]\ntype = 'stdout'\nby = {by}\n[sinks.out.parts.a]\n[sinks.out.parts.others]\nrest = true\n"
        );
        let found = in_force(&text);
        assert!(found.contains(&format!("sinks.out-a.{one}")), "{found:#?}");
        assert!(found.contains(&format!("sinks.out-others.{rest}")), "{found:#?}");
    }
}

#[test]
fn a_rule_may_send_to_all_parts_of_a_sink_by_its_name() {
    read_text(&format!("[[rules]]\nmatch = {{ kind = 'tool' }}\nroute = ['lf']\n{TWO}"));
    let wrong = said(&format!("[[rules]]\nroute = ['lg']\n{TWO}"));
    assert!(wrong.contains("there is no sink with this name"), "{wrong}");
}

#[test]
fn a_variable_sets_an_option_of_a_part_and_brings_no_place_to_fill_in() {
    let variables =
        [("SPANFERRY__SINKS__LF__PARTS__RED__SECRET_KEY", "sk-{tenant}"), ("KEY", "pk-{tenant}")];
    let text = TWO.replace("'pk-1'", "'${KEY}'");
    let loaded = read_texts(&[&text], &variables, Vec::new()).unwrap();
    let shown = format!("{:?}", loaded.config.sinks[0].plan);
    assert!(shown.contains("pk-{tenant}"), "{shown}");
}

#[test]
fn a_mistake_that_all_parts_share_is_said_once_and_no_credential_of_any_part_is_shown() {
    let wrong = said(&TWO.replace("base_url", "bse_url"));
    assert_eq!(wrong.matches("error: ").count(), 1, "{wrong}");
    for (was, is) in
        [("by = 'tenant'\n", ""), ("by = 'tenant'", "by = 'tenent'"), ("blue]", "red]")]
    {
        // The mistake is also on the line of a credential.
        let text = TWO
            .replace(was, is)
            .replace("secret_key = 'sk-hunter2'", "secret_key = 'sk-hunter2', x");
        let wrong = said(&text);
        assert!(!wrong.contains("hunter"), "{wrong}");
    }
}

#[test]
fn a_tenant_that_no_part_is_for_is_a_warning_unless_one_has_the_rest() {
    let tokens = "[receivers]\ntokens = [{ token = 't1', tenant = 'red' }, { token = 't2', tenant = 'green' }]\n";
    let warnings = |text: &str| {
        let loaded = read_texts(&[tokens, text], &[], Vec::new()).unwrap();
        loaded.warnings.map(|report| report.render("warning", Paint::Plain)).unwrap_or_default()
    };
    let said = warnings(TWO);
    assert!(said.contains("the sink `lf` has no part for the tenant `green`"), "{said}");
    let rest = "[sinks.lf.parts.others]\npublic_key = 'pk-3'\nsecret_key = 'sk-3'\nrest = true\n";
    assert_eq!(warnings(&format!("{TWO}{rest}")), "");
    assert_eq!(warnings(&TWO.replace("'Light blue'", "'green'")), "");
}
