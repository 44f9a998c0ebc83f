//! The answer to a proxy whose request may pass: who asks, in the same header fields each time. They are laid out once, and each answer is a copy
//! of them with other values, because to put a field into a map costs more than to copy it.

use ::http::{HeaderMap, HeaderName, HeaderValue, header::CACHE_CONTROL};

use crate::{
    handlers::{IdentityFields, Told},
    pipeline::Identity,
};

/// Path and query in their one spelling: what was decided about.
const URI: HeaderName = HeaderName::from_static("x-keyward-uri");
const EMPTY: HeaderValue = HeaderValue::from_static("");

/// The fields of such an answer.
pub(in crate::server) struct Layout {
    fields: HeaderMap,
    /// What each of them holds, in the order in which the map goes through them.
    places: Vec<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The same in every answer.
    Fixed,
    Told(Told),
    Uri,
}

impl Layout {
    pub fn new(names: &IdentityFields) -> Self {
        let told = names.all().map(|(name, told)| (name.clone(), Place::Told(told)));
        let all: Vec<_> = told.into_iter().chain([(URI, Place::Uri)]).collect();
        let mut fields = HeaderMap::with_capacity(1 + all.len());
        // The next request may be refused.
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Empty fields too: a proxy may let a client's copy stand where there is none.
        fields.extend(all.iter().map(|(name, _)| (name.clone(), EMPTY)));
        let place = |name: &HeaderName| {
            let last = all.iter().rfind(|(one, _)| one == name);
            last.map_or(Place::Fixed, |(_, place)| *place)
        };
        let places = fields.keys().map(place).collect();
        Self { fields, places }
    }

    /// The fields of one answer.
    pub fn fill(&self, identity: &Identity<'_>, uri: HeaderValue) -> HeaderMap {
        let mut fields = self.fields.clone();
        let mut uri = Some(uri);
        for (value, place) in fields.values_mut().zip(&self.places) {
            match place {
                Place::Fixed => {}
                Place::Told(told) => *value = told.value(identity).unwrap_or(EMPTY),
                Place::Uri => *value = uri.take().unwrap_or(EMPTY),
            }
        }
        fields
    }
}
