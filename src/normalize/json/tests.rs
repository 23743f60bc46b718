//! Valid JSON, JSON of real clients, and random JSON.

use super::*;
use proptest::prelude::*;

fn whole(text: &str) -> Result<&str, Broken> {
    let mut scanner = Scanner::new(text);
    let value = scanner.skip()?;
    scanner.end()?;
    Ok(value)
}

fn string(text: &str) -> (String, bool) {
    let mut scanner = Scanner::new(text);
    let Ok(Token::Text(quoted)) = scanner.token() else { panic!("{text} is no string") };
    scanner.end().unwrap();
    let mut out = Vec::new();
    let is_mended = quoted.append_to(&mut out);
    assert_eq!(quoted.text().as_bytes(), out);
    (String::from_utf8(out).unwrap(), is_mended)
}

#[test]
fn members_and_elements_are_read_in_order() {
    let mut scanner = Scanner::new(" { \"a\" : [ 1 , true,null ] , \"b\":\"c\" } ");
    assert_eq!(scanner.token(), Ok(Token::Object));
    let mut in_object = false;
    assert_eq!(scanner.next_member(&mut in_object).unwrap().unwrap().text(), "a");
    assert_eq!(scanner.token(), Ok(Token::Array));
    let mut is_begun = false;
    for expected in [Token::Number("1"), Token::Bool(true), Token::Null] {
        assert_eq!(scanner.next_element(&mut is_begun), Ok(true));
        assert_eq!(scanner.token(), Ok(expected));
    }
    assert_eq!(scanner.next_element(&mut is_begun), Ok(false));
    assert_eq!(scanner.next_member(&mut in_object).unwrap().unwrap().raw(), "b");
    assert_eq!(scanner.skip(), Ok("\"c\""));
    assert_eq!(scanner.next_member(&mut in_object), Ok(None));
    scanner.end().unwrap();
}

#[test]
fn what_real_clients_send_is_taken() {
    for text in [
        "NaN",
        "-Infinity",
        "[Infinity]",
        "\u{feff}{}",
        "\"a\tb\"",
        "007",
        "1E+5",
        "-0.5e-3",
        "{}\n",
    ] {
        assert!(whole(text).is_ok(), "{text}");
    }
}

#[test]
fn what_is_no_json_is_told_with_its_place() {
    for (text, at) in [
        ("", 0),
        ("  ", 2),
        ("{", 1),
        ("[1", 2),
        ("[1,]", 3),
        ("[,1]", 1),
        ("[1 2]", 3),
        ("[1}", 2),
        ("{\"a\" 1}", 5),
        ("{\"a\":}", 5),
        ("{\"a\":1,}", 7),
        ("{a:1}", 1),
        ("\"abc", 0),
        ("\"abc\\\"", 0),
        ("\"abc\\", 0),
        ("nul", 0),
        ("-", 0),
        ("1.", 2),
        ("1e", 2),
        ("{}{}", 2),
        ("'a'", 0),
    ] {
        assert_eq!(whole(text).unwrap_err().at, at, "{text}");
    }
}

#[test]
fn escapes_are_undone_and_what_stands_for_nothing_is_mended() {
    let fine = |text: &str| (text.to_owned(), false);
    let repaired = |text: &str| (text.to_owned(), true);
    assert_eq!(string(r#""plain""#), fine("plain"));
    assert_eq!(string(r#""\"\\\/\b\f\n\r\t""#), fine("\"\\/\u{8}\u{c}\n\r\t"));
    assert_eq!(
        string(r#""a\u0000\u00e9\u20AC\ud83c\udf1eb""#),
        fine("a\0\u{e9}\u{20ac}\u{1f31e}b")
    );
    assert_eq!(string(r#""\ud800""#), repaired("\u{fffd}"));
    assert_eq!(string(r#""\udc00x""#), repaired("\u{fffd}x"));
    assert_eq!(string(r#""\ud800\ud83c\udf1e""#), repaired("\u{fffd}\u{1f31e}"));
    assert_eq!(string(r#""\u12""#), repaired("\u{fffd}12"));
    assert_eq!(string(r#""\x41""#), repaired("\\x41"));
    assert_eq!(string("\"\\\u{e9}\""), repaired("\\\u{e9}"));
}

#[test]
fn nesting_costs_no_stack() {
    let depth = 1_000_000;
    let text = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(whole(&text), Ok(text.as_str()));
    assert_eq!(whole(&"{\"a\":".repeat(depth)).unwrap_err().at, 5 * depth);
}

#[derive(Debug, Clone)]
struct Json(serde_json::Value);

fn any_json() -> impl Strategy<Value = Json> {
    use serde_json::{Value, json};
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        any::<String>().prop_map(Value::from),
    ];
    let tree = leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| members.into_iter().collect()),
        ]
    });
    tree.prop_map(Json)
}

proptest! {
    #[test]
    fn any_json_is_read_to_its_end(json in any_json(), spacious: bool) {
        let text = if spacious { serde_json::to_string_pretty(&json.0) } else { serde_json::to_string(&json.0) }.unwrap();
        prop_assert_eq!(whole(&text), Ok(text.as_str()));
    }

    #[test]
    fn any_string_is_read_as_serde_reads_it(text: String) {
        let quoted = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(string(&quoted), (text, false));
    }

    #[test]
    fn any_text_ends_in_a_value_or_a_problem(text: String) {
        let mut scanner = Scanner::new(&text);
        if let Ok(value) = scanner.skip() {
            prop_assert!(text.contains(value));
        }
    }

    #[test]
    fn no_text_of_json_marks_goes_wrong(text in "[\\[\\]{},:\"\\\\0-9eu.tru -]{0,40}") {
        let ours = whole(&text).is_ok();
        let strict = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        // The scanner accepts everything that strict parsers accept, and more.
        prop_assert!(ours || !strict, "{}", text);
    }
}
