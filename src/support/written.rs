//! Values with a special notation in files, and the spelling of names.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Returns a name in camel case in snake case.
pub fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// A number, or a text that stands for one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Written {
    Number(i64),
    Text(String),
}

/// Serde adapter for fields whose type in files differs from that in memory: `#[serde(with = "As::<ByteSize>")]`.
#[derive(Debug)]
pub struct As<W>(PhantomData<W>);

impl<W> As<W> {
    /// Serializes the field.
    pub fn serialize<T, S>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Clone + Into<W>,
        S: Serializer,
        W: Serialize,
    {
        value.clone().into().serialize(serializer)
    }

    /// Deserializes the field.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        W: Deserialize<'de> + Into<T>,
    {
        W::deserialize(deserializer).map(Into::into)
    }
}

impl<W: JsonSchema> JsonSchema for As<W> {
    fn schema_name() -> Cow<'static, str> {
        W::schema_name()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        W::json_schema(generator)
    }
}

/// Serializes a type as its displayed text, with a JSON Schema for that text.
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
pub(crate) use written_as;
