//! What a value with a grammar of its own looks like in a file.

use serde::Deserialize;

/// A number, or a text that means one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Written {
    Number(i64),
    Text(String),
}

/// Serializes a type as the text that it displays, and describes that by a JSON Schema.
macro_rules! written_as {
    ($type:ident, $schema:tt) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}
pub(super) use written_as;
