//! Defines an object's columns and how they are written. Pure.

use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::Result;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, TypePtr};

use crate::sinks::jsonl::SCHEMA_VERSION;
use crate::sinks::jsonl::columns::{ALL, Cell, Column};

/// Nanoseconds in one unit of a time. Many readers do not support nanoseconds themselves.
pub(super) const NS_PER_TICK: u64 = 1_000;

/// Parquet's definition level of a text in a list: the list exists, has an element, and that is not null.
pub(super) const LIST_LEVEL: i16 = 3;

/// Columns in which nearly every value is different: a dictionary would merely contain all of them.
pub(super) const DISTINCT: &str = "span_id start_time end_time start_time_unix_nano end_time_unix_nano duration_ns response_id tool_call_id \
                                   input output openai_span_id openai_item attributes events";

/// Columns that queries select by, so their minimum and maximum help to skip row groups.
pub(super) const SELECTED_BY: &str = "trace_id span_id kind start_time end_time start_time_unix_nano session_id agent_name received_at";

/// The number of traces per row group for which the bloom filter has 1 % false positives. It shrinks to the actual number.
const BLOOM_FILTER_TRACES_MAX: u64 = 100_000;

/// Returns the schema of every object.
pub(super) fn schema() -> Result<TypePtr> {
    let fields: String = ALL.into_iter().flatten().map(field).collect();
    Ok(Arc::new(parse_message_type(&format!("message schema {{ {fields} }}"))?))
}

fn field(Column { name, cell, .. }: &Column) -> String {
    match cell {
        Cell::Number(_) => format!("optional int64 {name};"),
        Cell::Time(_) => format!("optional int64 {name} (TIMESTAMP(MICROS,true));"),
        Cell::Money(_) => format!("optional double {name};"),
        Cell::Flag(_) => format!("optional boolean {name};"),
        Cell::Texts(_) => format!(
            "optional group {name} (LIST) {{ repeated group list {{ optional binary element (STRING); }} }}"
        ),
        _ => format!("optional binary {name} (STRING);"),
    }
}

/// Returns how the columns are written.
pub(super) fn properties(zstd_level: i32) -> Result<WriterPropertiesPtr> {
    let version = KeyValue::new("spanferry.schema_version".into(), SCHEMA_VERSION.to_string());
    let trace_id = ColumnPath::from("trace_id");
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(zstd_level)?))
        // Spark's reader ignores statistics if it cannot parse this.
        .set_created_by(concat!("spanferry version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(Some(vec![version]))
        // With so many columns, the index is larger than what it saves.
        .set_offset_index_disabled(true)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_bloom_filter_max_ndv(trace_id.clone(), BLOOM_FILTER_TRACES_MAX)
        .set_column_bloom_filter_fpp(trace_id.clone(), 0.01)
        .set_column_bloom_filter_enabled(trace_id, true);
    for column in DISTINCT.split(' ') {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
    }
    for column in SELECTED_BY.split(' ') {
        let (column, statistics) = (ColumnPath::from(column), EnabledStatistics::Chunk);
        properties = properties.set_column_statistics_enabled(column, statistics);
    }
    Ok(Arc::new(properties.build()))
}
