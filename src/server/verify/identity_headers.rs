//! The header fields that tell a proxy who makes an allowed request. All responses have these
//! fields, so each response copies a template and fills in the values. Copying a field costs less
//! than inserting a field into a map.

use ::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, VARY},
};

use crate::{
    handlers::{IdentityFields, IdentityHeader},
    pipeline::Identity,
};

/// The path in its normal form, with the query: the target that was decided about.
const URI: HeaderName = HeaderName::from_static("x-keyward-uri");
/// `private` if the application's response is for this client only: the `Cache-Control` of an
/// application's response that has none.
pub(in crate::server) const APPLICATION_CACHE_CONTROL: HeaderName =
    HeaderName::from_static("x-keyward-cache-control");
const PRIVATE: HeaderValue = HeaderValue::from_static("private");
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
    Vary,
    CacheControl,
}

/// The values of one response.
pub(in crate::server) struct HeaderValues<'a> {
    pub identity: &'a Identity<'a>,
    /// The path in its normal form, with the query.
    pub uri: HeaderValue,
    /// The request fields on which the application's response depends. `None` means that it depends
    /// on none.
    pub vary: Option<HeaderValue>,
    /// Whether the application's response is for this client only.
    pub is_private: bool,
}

impl HeaderTemplate {
    pub fn new(names: &IdentityFields) -> Self {
        let identity =
            names.all().map(|(name, header)| (name.clone(), ValueSource::Identity(header)));
        let others = [
            (URI, ValueSource::Uri),
            (VARY, ValueSource::Vary),
            (APPLICATION_CACHE_CONTROL, ValueSource::CacheControl),
        ];
        let all: Vec<_> = identity.into_iter().chain(others).collect();
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
    pub fn fill(&self, values: HeaderValues<'_>) -> HeaderMap {
        let HeaderValues { identity, uri, vary, is_private } = values;
        let mut fields = self.fields.clone();
        let (mut uri, has_vary) = (Some(uri), vary.is_some());
        let mut vary = vary;
        for (value, source) in fields.values_mut().zip(&self.sources) {
            match source {
                ValueSource::Fixed => {}
                ValueSource::Identity(header) => *value = header.value(identity).unwrap_or(EMPTY),
                ValueSource::Uri => *value = uri.take().unwrap_or(EMPTY),
                ValueSource::Vary => *value = vary.take().unwrap_or(EMPTY),
                ValueSource::CacheControl => *value = if is_private { PRIVATE } else { EMPTY },
            }
        }
        // An empty field would have no meaning for a proxy that passes it on to the client.
        if !has_vary {
            fields.remove(VARY);
        }
        fields
    }
}
