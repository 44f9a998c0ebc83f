//! The header fields that tell a proxy who makes an allowed request. All responses have these
//! fields, so each response copies a template and fills in the values. Copying a field costs less
//! than inserting a field into a map.

use ::http::{HeaderMap, HeaderName, HeaderValue, header::CACHE_CONTROL};

use crate::{
    handlers::{IdentityFields, IdentityHeader},
    pipeline::Identity,
};

/// The path in its normal form, with the query: the target that was decided about.
const URI: HeaderName = HeaderName::from_static("x-keyward-uri");
const EMPTY: HeaderValue = HeaderValue::from_static("");

/// The header fields of the response to an allowed request.
pub(in crate::server) struct HeaderTemplate {
    fields: HeaderMap,
    /// The source of the value of each field, in the order in which the map iterates over its
    /// fields.
    sources: Vec<ValueSource>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueSource {
    /// Every response has the value of the template.
    Fixed,
    Identity(IdentityHeader),
    Uri,
}

impl HeaderTemplate {
    pub fn new(names: &IdentityFields) -> Self {
        let identity =
            names.all().map(|(name, header)| (name.clone(), ValueSource::Identity(header)));
        let all: Vec<_> = identity.into_iter().chain([(URI, ValueSource::Uri)]).collect();
        let mut fields = HeaderMap::with_capacity(1 + all.len());
        // A proxy must not cache the decision, because the next request may be denied.
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // A field without a value is sent as an empty field. Otherwise a proxy may keep the
        // client's field of the same name.
        fields.extend(all.iter().map(|(name, _)| (name.clone(), EMPTY)));
        let source = |name: &HeaderName| {
            let last = all.iter().rfind(|(known, _)| known == name);
            last.map_or(ValueSource::Fixed, |(_, source)| *source)
        };
        let sources = fields.keys().map(source).collect();
        Self { fields, sources }
    }

    /// The fields of one response.
    pub fn fill(&self, identity: &Identity<'_>, uri: HeaderValue) -> HeaderMap {
        let mut fields = self.fields.clone();
        let mut uri = Some(uri);
        for (value, source) in fields.values_mut().zip(&self.sources) {
            match source {
                ValueSource::Fixed => {}
                ValueSource::Identity(header) => *value = header.value(identity).unwrap_or(EMPTY),
                ValueSource::Uri => *value = uri.take().unwrap_or(EMPTY),
            }
        }
        fields
    }
}
