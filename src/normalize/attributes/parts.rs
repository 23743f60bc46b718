//! Tells from an attribute's key alone which parts of a span's facts it may hold. It uses the rows of the tables, whatever their scope, and
//! the prefixes of facts spread over several keys.

use super::fields::Field;
use super::index::index;
use super::slots::{SPREAD, Spread};

/// A set of parts of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts(u16);

impl Parts {
    /// No part.
    pub const NONE: Self = Self(0);
    /// The input.
    pub const INPUT: Self = Self(1);
    /// The output.
    pub const OUTPUT: Self = Self(1 << 1);
    /// The name.
    pub const NAME: Self = Self(1 << 2);
    /// The error.
    pub const ERROR: Self = Self(1 << 3);
    /// The metadata.
    pub const METADATA: Self = Self(1 << 4);
    /// The events.
    pub const EVENTS: Self = Self(1 << 5);
    /// The attributes.
    pub const ATTRIBUTES: Self = Self(1 << 6);
    /// The resource.
    pub const RESOURCE: Self = Self(1 << 7);

    /// Returns the union of both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether the sets have a part in common.
    pub const fn touch(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Returns the parts that an attribute with this key may hold under any convention. Every attribute is in [`Parts::ATTRIBUTES`].
pub fn parts_of(key: &str) -> Parts {
    let rules = index().rules(key.as_bytes()).iter().map(|rule| of_field(rule.field));
    let spread = SPREAD.all(key.as_bytes()).map(|(_, spread)| of_spread(spread));
    rules.chain(spread).fold(Parts::ATTRIBUTES, Parts::and)
}

fn of_field(field: Field) -> Parts {
    match field {
        Field::Input | Field::SystemInstructions | Field::Step => Parts::INPUT,
        Field::Output | Field::ToolCalls | Field::Thoughts => Parts::OUTPUT,
        Field::Name | Field::PlainName => Parts::NAME,
        Field::ErrorType | Field::ErrorMessage | Field::ErrorObject | Field::ErrorData => {
            Parts::ERROR
        }
        Field::Metadata => Parts::METADATA,
        _ => Parts::NONE,
    }
}

fn of_spread(spread: Spread) -> Parts {
    match spread {
        Spread::InputMessages | Spread::Prompt | Spread::Embeddings | Spread::InputDocuments => {
            Parts::INPUT
        }
        Spread::OutputMessages | Spread::Completion | Spread::OutputDocuments => Parts::OUTPUT,
        Spread::Metadata => Parts::METADATA,
        _ => Parts::NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_convention_s_words_for_input_and_output_are_known() {
        for (key, part) in [
            ("gen_ai.input.messages", Parts::INPUT),
            ("gen_ai.system_instructions", Parts::INPUT),
            ("input.value", Parts::INPUT),
            ("llm.input_messages.0.message.content", Parts::INPUT),
            ("gen_ai.prompt.0.content", Parts::INPUT),
            ("llamaindex.step.input_summary", Parts::INPUT),
            ("langfuse.observation.output", Parts::OUTPUT),
            ("gen_ai.completion.0.content", Parts::OUTPUT),
            ("metadata.customer", Parts::METADATA),
            ("langfuse.observation.metadata.customer", Parts::METADATA),
            ("langfuse.observation.status_message", Parts::ERROR),
            ("acme.anything", Parts::ATTRIBUTES),
        ] {
            assert!(parts_of(key).touch(part), "{key}");
        }
        assert!(!parts_of("gen_ai.input.messages").touch(Parts::OUTPUT));
    }
}
