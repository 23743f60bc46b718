//! Spans written as OTLP, for every sink that speaks it: [`protobuf`] and its JSON mapping, [`json`].
//!
//! What came as OTLP goes out in protobuf as the bytes that came in, so unknown fields survive. Spans of other origin are
//! written from their [`Detail`]. In both encodings the spans of a batch are brought together under their
//! resource and scope, whichever requests they came in.

pub mod protobuf;
pub mod json;

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::{Attribute, Detail, Resource, Scope, Span, SpanId};

/// Makes the detail that a span is written from; none where it stays as it is.
pub type Rewrite<'a> = &'a dyn Fn(&Span) -> Option<Detail>;

/// Says which span is above one.
pub type Parent<'a> = &'a dyn Fn(&Span) -> Option<SpanId>;

/// What is changed on the way out. By default nothing is.
#[derive(Clone, Copy, Default)]
pub struct Changes<'a> {
    /// What spans are written from where that is neither [`Span::detail`] nor the bytes that came.
    pub detail: Option<Rewrite<'a>>,
    /// Which span is above one, where that is not [`Span::parent_id`].
    pub parent: Option<Parent<'a>>,
    /// Attributes for every resource that does not have them.
    pub resource: &'a [Attribute],
    /// Attributes for the resources of native spans, where they have them neither of their own nor by the above.
    pub native_resource: &'a [Attribute],
}

impl Changes<'_> {
    fn parent_of(&self, span: &Span) -> Option<SpanId> {
        self.parent.map_or(span.parent_id, |parent| parent(span))
    }

    /// The attributes that a resource is to get.
    fn missing_in(&self, resource: &Resource, is_native: bool) -> impl Iterator<Item = &Attribute> {
        let native = if is_native { self.native_resource } else { &[] };
        let is_in =
            |known: &[Attribute], new: &Attribute| known.iter().any(|known| known.key == new.key);
        let defaults = native.iter().filter(move |new| !is_in(self.resource, new));
        self.resource.iter().chain(defaults).filter(move |new| !is_in(&resource.attributes, new))
    }
}

/// The spans of one resource.
struct ResourceGroup<'a> {
    resource: &'a Resource,
    /// The `Resource` message.
    wire: Cow<'a, [u8]>,
    /// Whether its spans are native: they share no resource with those that came as OTLP.
    is_native: bool,
    scopes: Vec<ScopeGroup<'a>>,
}

/// The spans of one scope of a resource.
struct ScopeGroup<'a> {
    scope: &'a Scope,
    /// The `InstrumentationScope` message.
    wire: Cow<'a, [u8]>,
    spans: Vec<&'a Span>,
}

/// What makes two resources or two scopes the same: message and schema URL.
type Identity<'a> = (Cow<'a, [u8]>, &'a str);

/// Where a scope's spans are: the resource's place and the scope's place in it.
type Place = (usize, usize);

/// Brings spans together by resource and scope, in the order in which these first occur.
#[derive(Default)]
struct Groups<'a> {
    resources: Vec<ResourceGroup<'a>>,
    /// Scopes met before, by their address: spans of one request share one.
    met: HashMap<*const Scope, Place>,
    resource_places: HashMap<(Identity<'a>, bool), usize>,
    scope_places: HashMap<(usize, Identity<'a>), usize>,
}

impl<'a> Groups<'a> {
    fn of(spans: impl IntoIterator<Item = &'a Span>) -> Vec<ResourceGroup<'a>> {
        let mut groups = Self::default();
        let mut last: Option<(*const Scope, Place)> = None;
        for span in spans {
            let address = Arc::as_ptr(&span.scope);
            let place = match last {
                Some((met, place)) if met == address => place,
                _ => groups.place(address, span),
            };
            last = Some((address, place));
            if let Some(scope) = groups
                .resources
                .get_mut(place.0)
                .and_then(|resource| resource.scopes.get_mut(place.1))
            {
                scope.spans.push(span);
            }
        }
        groups.resources
    }

    fn place(&mut self, address: *const Scope, span: &'a Span) -> Place {
        if let Some(&place) = self.met.get(&address) {
            return place;
        }
        let resource = self.resource_place(&span.scope.resource, !span.is_otlp());
        let place = (resource, self.scope_place(resource, &span.scope));
        self.met.insert(address, place);
        place
    }

    fn resource_place(&mut self, resource: &'a Resource, is_native: bool) -> usize {
        let wire = protobuf::resource(resource);
        match self.resource_places.entry(((wire, &resource.schema_url), is_native)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let wire = new.key().0.0.clone();
                let scopes = Vec::new();
                self.resources.push(ResourceGroup { resource, wire, is_native, scopes });
                *new.insert(self.resources.len() - 1)
            }
        }
    }

    fn scope_place(&mut self, resource: usize, scope: &'a Scope) -> usize {
        let wire = protobuf::scope(scope);
        let Some(group) = self.resources.get_mut(resource) else { return 0 };
        match self.scope_places.entry((resource, (wire, &scope.schema_url))) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let wire = new.key().1.0.clone();
                group.scopes.push(ScopeGroup { scope, wire, spans: Vec::new() });
                *new.insert(group.scopes.len() - 1)
            }
        }
    }
}
