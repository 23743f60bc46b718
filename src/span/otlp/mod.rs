//! Spans written as OTLP, for every sink that speaks it: [`protobuf`] and its JSON mapping, [`json`].
//!
//! Spans that came as OTLP are written in protobuf as the bytes that came in, so unknown fields survive. Other spans are written from their
//! [`Detail`](crate::span::Detail). In both encodings the spans of a batch are grouped by resource and scope, regardless of their requests.

mod message;
pub mod protobuf;
pub mod json;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;

pub use message::{Encoding, MessageWriter};

use super::{Resource, Scope, Span};

/// The spans of one resource.
struct ResourceGroup<'a> {
    resource: &'a Resource,
    /// The `Resource` message.
    wire: Cow<'a, [u8]>,
    /// Whether its spans are of the Agents SDK: they share no resource with OTLP spans.
    is_agents_sdk: bool,
    scopes: Vec<ScopeGroup<'a>>,
}

/// The spans of one scope of a resource.
struct ScopeGroup<'a> {
    scope: &'a Scope,
    /// The `InstrumentationScope` message.
    wire: Cow<'a, [u8]>,
    spans: Vec<&'a Span>,
}

/// The index of a resource, and of a scope in it.
type Place = (usize, usize);

/// Groups spans by resource and scope, in the order of their first occurrence. Two of them are equal if their messages and schema URLs are.
#[derive(Default)]
struct Groups<'a> {
    resources: Vec<ResourceGroup<'a>>,
    resource_places: HashMap<(Cow<'a, [u8]>, &'a str, bool), usize>,
    scope_places: HashMap<(usize, Cow<'a, [u8]>, &'a str), usize>,
}

impl<'a> Groups<'a> {
    fn of(spans: impl IntoIterator<Item = &'a Span>) -> Vec<ResourceGroup<'a>> {
        let mut groups = Self::default();
        // Spans of one request share a scope and are adjacent.
        let mut last: Option<(&Scope, Place)> = None;
        for span in spans {
            let (resource, scope) = match last {
                Some((scope, place)) if ptr::eq(scope, Arc::as_ptr(&span.scope)) => place,
                _ => groups.place(span),
            };
            last = Some((&span.scope, (resource, scope)));
            let resource = groups.resources.get_mut(resource);
            if let Some(scope) = resource.and_then(|resource| resource.scopes.get_mut(scope)) {
                scope.spans.push(span);
            }
        }
        groups.resources
    }

    fn place(&mut self, span: &'a Span) -> Place {
        let (scope, is_agents_sdk) = (&*span.scope, !span.is_otlp());
        let resource = &*scope.resource;
        let (wire, next) = (protobuf::resource(resource), self.resources.len());
        let key = (wire.clone(), &*resource.schema_url, is_agents_sdk);
        let at = *self.resource_places.entry(key).or_insert(next);
        if at == next {
            self.resources.push(ResourceGroup {
                resource,
                wire,
                is_agents_sdk,
                scopes: Vec::new(),
            });
        }
        let Some(group) = self.resources.get_mut(at) else { return (at, 0) };
        let (wire, next) = (protobuf::scope(scope), group.scopes.len());
        let key = (at, wire.clone(), &*scope.schema_url);
        let scope_at = *self.scope_places.entry(key).or_insert(next);
        if scope_at == next {
            group.scopes.push(ScopeGroup { scope, wire, spans: Vec::new() });
        }
        (at, scope_at)
    }
}
