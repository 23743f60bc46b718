//! The setup before the first document, without which no document is sent.

use super::fake::{Fault, Manner};
use super::*;

/// A delivery of one span.
fn one() -> Delivery {
    told(&[Told::model_call(1, 3, None, 100, 20)])
}

/// Returns why the sink holds.
fn reason(report: Report) -> String {
    assert_eq!(report.verdicts, crate::sinks::Verdicts::All(Verdict::Retry));
    let Pace::Hold { reason } = report.pace else { panic!("{report:?}") };
    reason
}

#[tokio::test]
async fn templates_are_installed_once_before_the_first_document() {
    let fake = Fake::start(Manner::default()).await;
    for _ in 0..2 {
        let sink = sink(&fake, "");
        assert_eq!(sink.deliver(&one()).await, Report::delivered());
        settled(&sink).await;
    }
    let puts = |seen: &[fake::Seen]| {
        seen.iter().filter(|seen| seen.method == "PUT" && seen.path.contains("template")).count()
    };
    let seen = fake.seen();
    assert_eq!(puts(&seen), 8, "three components and a template for each of two indices");
    let first_bulk = seen.iter().position(|seen| seen.path.contains("_bulk")).unwrap();
    assert_eq!(puts(&seen[..first_bulk]), 8);
    let installed = fake.installed();
    let template = &installed["/_index_template/agent-traces-spans"];
    assert_eq!(template["priority"], 300);
    assert_eq!(template["composed_of"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn without_the_right_to_install_templates_the_indices_are_made_by_hand() {
    let fake = Fake::start(Manner { may_manage: false, ..Manner::default() }).await;
    let sink = sink(&fake, "");
    assert_eq!(sink.deliver(&one()).await, Report::delivered());
    let installed = fake.installed();
    assert_eq!(installed["/agent-traces-spans"]["mappings"]["dynamic"], false);
    assert_eq!(installed["/agent-traces-traces"]["mappings"]["dynamic"], false);
}

#[tokio::test]
async fn an_index_that_no_document_may_make_is_made_with_our_mapping() {
    let fake = Fake::start(Manner { makes_indices: false, ..Manner::default() }).await;
    let sink = sink(&fake, "rotation = \"daily\"");
    let mut outcome = sink.deliver(&one()).await;
    if outcome != Report::delivered() {
        outcome = sink.deliver(&one()).await;
    }
    assert_eq!(outcome, Report::delivered());
    assert_eq!(fake.docs("agent-traces-spans-2026.11.21").len(), 1);
    assert_eq!(fake.installed()["/agent-traces-spans-2026.11.21"]["mappings"]["dynamic"], false);
}

#[tokio::test]
async fn all_indices_that_are_missing_from_a_request_are_made() {
    let fake = Fake::start(Manner { makes_indices: false, ..Manner::default() }).await;
    let sink = sink(&fake, "rotation = \"daily\"");
    let day = 86_400_000_000_000;
    let mut spans: Vec<Told> = (0..4).map(|n| Told::new(1, n, None, Kind::Custom)).collect();
    for (span, days) in spans.iter_mut().zip(0..) {
        span.start_ns = Some(START_NS - day * days);
    }
    let mut items: Vec<Item> = spans.iter().map(Told::item).collect();
    items.push(trace_object(1, "checkout"));
    assert_eq!(sink.deliver(&delivery(items)).await, Report::delivered());
    for name in ["21", "20", "19", "18"] {
        assert_eq!(fake.docs(&format!("{SPANS}-2026.11.{name}")).len(), 1, "{name}");
    }
}

#[tokio::test]
async fn templates_are_made_anew_when_options_change_and_the_index_gets_what_it_lacks() {
    let fake = Fake::start(Manner::default()).await;
    assert_eq!(sink(&fake, "").deliver(&one()).await, Report::delivered());
    let words = |mapping: &Json| mapping["properties"].get("input_text").is_some();
    assert!(!words(&fake.mapping(SPANS).unwrap()));
    let searched = "payload_search = true";
    assert_eq!(sink(&fake, searched).deliver(&one()).await, Report::delivered());
    assert!(words(&fake.mapping(SPANS).unwrap()), "the index that is there");
    let part = &fake.installed()["/_component_template/agent-traces-spans@mappings"];
    assert!(words(&part["template"]["mappings"]), "the next one");
    let before = fake.seen().len();
    assert_eq!(sink(&fake, searched).deliver(&one()).await, Report::delivered());
    let puts = |seen: &fake::Seen| seen.method == "PUT" && seen.path.contains("template");
    assert!(!fake.seen()[before..].iter().any(puts), "nothing differs any more");
}

#[tokio::test]
async fn an_index_that_was_made_for_other_options_holds_the_sink_and_the_probe_says_so() {
    for (first, second) in [
        ("", "attributes_mapping = \"flattened\""),
        ("attributes_mapping = \"flattened\"", ""),
        ("", "rotation = \"data_stream\""),
    ] {
        let fake = Fake::start(Manner::default()).await;
        assert_eq!(sink(&fake, first).deliver(&one()).await, Report::delivered());
        let before = fake.bulks().len();
        let said = reason(sink(&fake, second).deliver(&one()).await);
        assert!(said.contains("agent-traces-spans was made for other options"), "{said}");
        assert_eq!(fake.bulks().len(), before, "no document became a dead letter");
        let text = format!("endpoints = [{:?}]\n{second}", fake.address);
        let said = parse(&text).unwrap().probe().unwrap().await.unwrap_err();
        assert!(said.contains("was made for other options"), "{said}");
        assert_eq!(sink(&fake, first).deliver(&one()).await, Report::delivered(), "set back");
    }
}

#[tokio::test]
async fn rotated_indices_keep_their_mapping_and_that_is_said() {
    let fake = Fake::start(Manner::default()).await;
    let daily = "rotation = \"daily\"";
    assert_eq!(sink(&fake, daily).deliver(&one()).await, Report::delivered());
    let other = sink(&fake, &format!("{daily}\nattributes_mapping = \"flattened\""));
    assert_eq!(other.deliver(&one()).await, Report::delivered());
    let notice = other.notice().unwrap();
    assert!(notice.contains("existing indices keep their mapping"), "{notice}");
}

#[tokio::test]
async fn a_template_that_is_refused_holds_the_sink_and_no_mapping_is_guessed() {
    let manner = Manner { unknown_types: vec!["flattened"], ..Manner::default() };
    let fake = Fake::start(manner).await;
    let refused = sink(&fake, "attributes_mapping = \"flattened\"");
    let said = reason(refused.deliver(&one()).await);
    assert!(said.contains("No handler for type [flattened]"), "{said}");
    assert!(fake.bulks().is_empty());
    assert_eq!(sink(&fake, "").deliver(&one()).await, Report::delivered());
    assert!(fake.mapping(SPANS).is_some());
}

#[tokio::test]
async fn indices_deleted_under_a_running_daemon_never_keep_a_guessed_mapping() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "");
    assert_eq!(sink.deliver(&one()).await, Report::delivered());
    settled(&sink).await;
    // With templates, the index that the next document creates has the sink's mapping.
    fake.delete_index(SPANS);
    assert_eq!(sink.deliver(&one()).await, Report::delivered());
    assert!(fake.mapping(SPANS).is_some());
    // Without them, documents in an index with a guessed mapping do not count as delivered.
    fake.delete_index(SPANS);
    fake.delete_templates();
    for _ in 0..2 {
        let said = reason(sink.deliver(&one()).await);
        assert!(said.contains(SPANS), "{said}");
    }
    fake.delete_index(SPANS);
    assert_eq!(sink.deliver(&one()).await, Report::delivered());
    assert!(fake.mapping(SPANS).is_some());
    assert_eq!(fake.docs(SPANS).len(), 1);
}

#[tokio::test]
async fn an_index_whose_first_answer_was_lost_never_keeps_a_guessed_mapping() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "trace_summary = \"off\"");
    assert_eq!(sink.deliver(&one()).await, Report::delivered());
    fake.delete_templates();
    fake.delete_index(SPANS);
    fake.fail([Fault::Reset]);
    assert!(matches!(sink.deliver(&one()).await.pace, Pace::Down { .. }));
    assert_eq!(fake.docs(SPANS).len(), 1, "it was stored, and nobody knows");
    let said = reason(sink.deliver(&one()).await);
    assert!(said.contains(SPANS), "{said}");
}

#[tokio::test]
async fn an_index_of_a_day_that_was_guessed_holds_the_sink_for_as_long_as_it_is_there() {
    const TODAY: &str = "agent-traces-spans-2026.11.21";
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "rotation = \"daily\"\ntrace_summary = \"off\"");
    assert_eq!(sink.deliver(&one()).await, Report::delivered());
    fake.delete_templates();
    fake.delete_index(TODAY);
    for _ in 0..3 {
        let said = reason(sink.deliver(&one()).await);
        assert!(said.contains(TODAY), "{said}");
    }
    fake.delete_index(TODAY);
    assert_eq!(sink.deliver(&one()).await, Report::delivered());
    assert!(fake.mapping(TODAY).is_some());
}

#[tokio::test]
async fn what_a_user_adds_to_the_template_is_not_taken_for_other_options() {
    let fake = Fake::start(Manner::default()).await;
    let custom = json!({"template": {"mappings": {"properties": {"user": {"type": "text"}}}}});
    fake.install("/_component_template/agent-traces-spans@custom", custom);
    for _ in 0..2 {
        let sink = sink(&fake, "trace_summary = \"off\"");
        assert_eq!(sink.deliver(&one()).await, Report::delivered());
        assert_eq!(fake.mapping(SPANS).unwrap()["properties"]["user"]["type"], "text");
    }
}

#[tokio::test]
async fn a_summary_in_an_index_that_was_guessed_is_made_again_once_that_is_gone() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "");
    assert_eq!(sink.deliver(&one()).await, Report::delivered());
    settled(&sink).await;
    fake.delete_templates();
    fake.delete_index(TRACES);
    let more = told(&[Told::new(1, 4, None, Kind::Custom)]);
    let held = async {
        loop {
            let report = sink.deliver(&more).await;
            if report != Report::delivered() {
                return reason(report);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let said = tokio::time::timeout(Duration::from_secs(20), held).await.expect("it is held");
    assert!(said.contains(TRACES), "{said}");
    fake.delete_index(TRACES);
    assert_eq!(sink.deliver(&one()).await, Report::delivered());
    settled(&sink).await;
    assert!(fake.mapping(TRACES).is_some());
    assert_eq!(doc(&fake, TRACES, &trace_name(1))["span_count"], 2);
}

#[tokio::test]
async fn where_neither_templates_nor_indices_may_be_made_nothing_is_guessed() {
    let manner = Manner { may_manage: false, may_make: false, ..Manner::default() };
    let fake = Fake::start(manner).await;
    let sink = sink(&fake, "");
    let said = reason(sink.deliver(&one()).await);
    assert!(said.contains("commands for an administrator"), "{said}");
    assert!(fake.bulks().is_empty());
    fake.manner(|manner| (manner.may_manage, manner.may_make) = (true, true));
    assert_eq!(sink.deliver(&one()).await, Report::delivered());
}
