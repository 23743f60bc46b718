//! Tests that what is read from an object equals the lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row as Record};
use parquet::schema::printer::print_schema;
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::sinks::jsonl::Lines;
use crate::sinks::jsonl::columns::Cell;
use crate::sinks::samples;
use crate::span::{
    Attribute, Cost, Detail, Facts, Item, Payload, Score, Text, Usage, Value as SpanValue,
};
use crate::support::golden;

const ROW_GROUP_BYTES: usize = 1 << 20;
const ZSTD_LEVEL: i32 = 3;

fn object(delivery: &Delivery, row_group_bytes: usize) -> Vec<u8> {
    let mut rows = Rows::new(ZSTD_LEVEL, row_group_bytes).unwrap();
    rows.write(delivery, &Prices::default()).unwrap();
    rows.finish().unwrap()
}

fn lines(delivery: &Delivery) -> Vec<String> {
    let mut out = Vec::new();
    let prices = Prices::default();
    let mut lines = Lines::of(delivery, &prices);
    for (batch, item) in delivery.items() {
        lines.write(&mut out, batch, item);
    }
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

fn read(object: Vec<u8>) -> SerializedFileReader<Bytes> {
    SerializedFileReader::new(Bytes::from(object)).unwrap()
}

/// Returns a cell as in a line; `None` for null.
fn as_json(cell: &Cell, field: &Field) -> Option<String> {
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    match (cell, field) {
        (_, Field::Null) => None,
        (Cell::Json(_), Field::Str(json)) => Some(json.clone()),
        (_, Field::Str(text)) => Some(quoted(text)),
        (_, Field::Long(number)) => Some(number.to_string()),
        (_, Field::Double(amount)) => Some(amount.to_string()),
        (_, Field::Bool(flag)) => Some(flag.to_string()),
        (_, Field::TimestampMicros(micros)) => {
            let unix_ns = u64::try_from(*micros).unwrap() * schema::NS_PER_TICK;
            Some(quoted(&crate::support::rfc3339::text(unix_ns)))
        }
        (_, Field::ListInternal(list)) => {
            let texts = list.elements().iter().map(|element| as_json(cell, element).unwrap());
            Some(format!("[{}]", texts.collect::<Vec<_>>().join(",")))
        }
        (_, other) => panic!("{other:?}"),
    }
}

/// Returns a line's value of a column, as far as Parquet can represent it.
fn of_line(cell: &Cell, line: &RawValue) -> Option<String> {
    let text = line.get();
    match cell {
        // Microseconds.
        Cell::Time(_) => {
            Some(format!("{}000Z\"", text.get(..text.len() - "000Z\"".len()).unwrap()))
        }
        Cell::Number(_) if text.parse::<i64>().is_err() => None,
        Cell::Money(_) => Some(text.parse::<f64>().unwrap().to_string()),
        Cell::Texts(_) => {
            let texts: Vec<String> = serde_json::from_str(text).unwrap();
            Some(serde_json::to_string(&texts).unwrap())
        }
        Cell::Plain(_) | Cell::Text(_) | Cell::Payload(_) | Cell::Item(_) => {
            let inner: String = serde_json::from_str(text).unwrap();
            Some(serde_json::to_string(&inner).unwrap())
        }
        Cell::Json(_) | Cell::Number(_) | Cell::Flag(_) => Some(text.to_owned()),
    }
}

fn assert_same(record: &Record, line: &str) {
    let said: BTreeMap<String, &RawValue> = serde_json::from_str(line).unwrap();
    let columns: Vec<_> = ALL.into_iter().flatten().collect();
    let names: Vec<_> = record.get_column_iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, columns.iter().map(|column| column.name).collect::<Vec<_>>());
    for ((name, field), column) in record.get_column_iter().zip(columns) {
        let expected = said.get(name.as_str()).and_then(|value| of_line(&column.cell, value));
        assert_eq!(as_json(&column.cell, field), expected, "{name} in {line}");
    }
}

fn assert_reads_back(delivery: &Delivery, row_group_bytes: usize) {
    let reader = read(object(delivery, row_group_bytes));
    let records: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    let lines = lines(delivery);
    assert_eq!(records.len(), lines.len());
    for (record, line) in records.iter().zip(&lines) {
        assert_same(record, line);
    }
}

#[test]
fn every_item_reads_back_as_its_line() {
    let delivery = samples::delivery(samples::START_NS, samples::every_item());
    assert_reads_back(&delivery, ROW_GROUP_BYTES);
    // A row group for each row.
    assert_reads_back(&delivery, 1);
}

#[test]
fn the_schema_is_that_of_the_golden_to_which_columns_are_only_added() {
    let reader = read(object(&samples::delivery(0, samples::every_item()), ROW_GROUP_BYTES));
    let metadata = reader.metadata().file_metadata();
    let mut printed = Vec::new();
    print_schema(&mut printed, metadata.schema());
    golden::check("sinks/parquet.schema.txt", &String::from_utf8(printed).unwrap());
    let facts = metadata.key_value_metadata().unwrap();
    assert_eq!(facts[0].key, "spanferry.schema_version");
    assert_eq!(facts[0].value.as_deref(), Some("2"));
}

#[test]
fn every_column_that_is_treated_apart_exists() {
    for name in schema::DISTINCT.split(' ').chain(schema::SELECTED_BY.split(' ')) {
        let mut columns = ALL.into_iter().flatten();
        assert!(columns.any(|column| column.name == name), "{name}");
    }
}

#[test]
fn the_same_rows_give_the_same_bytes_however_they_are_delivered() {
    let delivery = samples::delivery(samples::START_NS, samples::every_item());
    let whole = object(&delivery, ROW_GROUP_BYTES);
    let mut rows = Rows::new(ZSTD_LEVEL, ROW_GROUP_BYTES).unwrap();
    for place in 0..delivery.len() {
        rows.write(&delivery.only(&[place]), &Prices::default()).unwrap();
    }
    assert_eq!(rows.finish().unwrap(), whole);
}

#[test]
fn what_is_held_is_bounded_by_the_row_group() {
    let spans = (0..2_000).map(|number| Item::Span(samples::numbered_span(number)));
    let delivery = samples::delivery(0, spans.collect());
    let mut rows = Rows::new(ZSTD_LEVEL, ROW_GROUP_BYTES / 8).unwrap();
    let mut most = 0;
    for place in 0..delivery.len() {
        rows.write(&delivery.only(&[place]), &Prices::default()).unwrap();
        most = most.max(rows.buffered());
    }
    assert!(most < ROW_GROUP_BYTES / 8 && 1 < rows.writer.flushed_row_groups().len());
    let reader = read(rows.finish().unwrap());
    assert_eq!(reader.metadata().file_metadata().num_rows(), 2_000);
}

#[test]
fn times_and_ids_have_bounds_and_trace_ids_a_filter() {
    let reader =
        read(object(&samples::delivery(samples::START_NS, samples::every_item()), ROW_GROUP_BYTES));
    let group = reader.metadata().row_group(0);
    for column in group.columns() {
        let name = column.column_path().string();
        assert_eq!(
            column.statistics().is_some(),
            schema::SELECTED_BY.split(' ').any(|it| it == name),
            "{name}"
        );
        assert_eq!(column.bloom_filter_offset().is_some(), name == "trace_id", "{name}");
    }
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        Just(String::new()),
        Just("nul \0 in it".to_owned()),
        ".{0,12}",
        "[a-c\n\"\\\\]{0,3000}",
    ]
    .prop_map(Text::from)
}

fn number() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![Just(None), Just(Some(u64::MAX)), Just(Some(1 << 63)), any::<u64>().prop_map(Some)]
}

fn amount() -> impl Strategy<Value = Option<f64>> {
    proptest::option::of(prop_oneof![Just(f64::NAN), Just(f64::INFINITY), any::<f64>()])
}

prop_compose! {
    fn span()(
        texts in proptest::collection::vec(text(), 6),
        tags in proptest::collection::vec(text(), 0..3),
        (input, output, first_token_ns) in (number(), number(), number()),
        (total, value) in (amount(), amount()),
        guardrail_triggered: Option<bool>,
        is_otlp: bool,
    ) -> (bool, Detail, Facts) {
        let attribute = |key: &Text, value: &Text| Attribute { key: key.clone(), value: SpanValue::Text(value.clone()) };
        let detail = Detail {
            name: texts[0].clone(),
            attributes: vec![attribute(&texts[1], &texts[2]), attribute(&texts[2], &texts[3])],
            dropped_links_count: 1,
            ..Detail::default()
        };
        let facts = Facts {
            name: texts[1].clone(),
            input: Some(Payload::Text(texts[2].clone())),
            output: Some(Payload::Json(texts[3].clone())),
            agent: Some(texts[4].clone()),
            scores: vec![Score { name: texts[5].clone(), value, ..Score::default() }],
            metadata: vec![(texts[5].clone(), Payload::Text(texts[0].clone()))],
            usage: Usage { input, output, ..Usage::default() },
            cost: Cost { total, ..Cost::default() },
            tags: tags.clone(),
            finish_reasons: tags,
            first_token_ns,
            guardrail_triggered,
            ..Facts::default()
        };
        (is_otlp, detail, facts)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_span_reads_back_as_its_line(
        spans in proptest::collection::vec(span(), 1..6),
        received_at_ns: u64,
        row_group_bytes in prop_oneof![Just(1), Just(2_000), Just(ROW_GROUP_BYTES)],
    ) {
        let scopes = [Arc::default(), Arc::default()];
        let items = (0..).zip(spans).map(|(number, (is_otlp, detail, facts))| {
            Item::Span(if is_otlp {
                samples::otlp_span(number, &scopes[usize::from(number == 2)], detail, facts)
            } else {
                samples::sdk_span(number, "{\"id\":\n1}", detail, facts)
            })
        });
        assert_reads_back(&samples::delivery(received_at_ns, items.collect()), row_group_bytes);
    }
}
