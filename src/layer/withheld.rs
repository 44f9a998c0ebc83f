//! The credential that the layer withholds from the service behind it. A second layer inside the
//! service can still decide with the whole request.

use std::borrow::Cow;

use ::http::{HeaderMap, HeaderName, HeaderValue, request::Parts};

use super::target::with_query;
use crate::pipeline::CredentialRemoval;

/// An extension of the request that only layers can read.
#[derive(Clone, Default)]
struct Withheld {
    fields: Vec<WithheldField>,
    /// The query before and after the removal.
    query: Option<[Option<String>; 2]>,
}

/// The values of a header field before and after the removal.
#[derive(Clone)]
struct WithheldField {
    name: HeaderName,
    before: Vec<HeaderValue>,
    after: Vec<HeaderValue>,
}

/// The request as the outermost layer has received it: with the credential that this layer has
/// withheld. A field that other code has changed since then stays as it is.
pub(super) fn restored(parts: &Parts) -> Cow<'_, Parts> {
    let Some(withheld) = parts.extensions.get::<Withheld>() else { return Cow::Borrowed(parts) };
    let mut whole = parts.clone();
    for WithheldField { name, before, after } in &withheld.fields {
        if values(&parts.headers, name) == *after {
            whole.headers.remove(name);
            for value in before {
                whole.headers.append(name.clone(), value.clone());
            }
        }
    }
    if let Some([before, after]) = &withheld.query
        && parts.uri.query() == after.as_deref()
        && let Some(uri) = with_query(&parts.uri, before.as_deref())
    {
        whole.uri = uri;
    }
    Cow::Owned(whole)
}

/// Removes the credential from the request, and keeps it for layers inside the service.
pub(super) fn withhold(parts: &mut Parts, removal: &CredentialRemoval<'_>) {
    let touched = parts.headers.keys().filter(|name| removal.touches(name));
    let touched = touched.map(|name| (name.clone(), values(&parts.headers, name)));
    let touched: Vec<_> = touched.collect();
    removal.clean(&mut parts.headers);
    let mut withheld = parts.extensions.remove::<Withheld>().unwrap_or_default();
    for (name, before) in touched {
        let after = values(&parts.headers, &name);
        if before != after {
            withheld.fields.push(WithheldField { name, before, after });
        }
    }
    let before = parts.uri.query().map(str::to_owned);
    let after = removal.query(before.as_deref()).map(Cow::into_owned);
    if before != after
        && let Some(uri) = with_query(&parts.uri, after.as_deref())
    {
        parts.uri = uri;
        // axum keeps a copy of the target, with the query.
        #[cfg(feature = "axum")]
        if let Some(original) = parts.extensions.get_mut::<axum::extract::OriginalUri>()
            && let Some(uri) = with_query(&original.0, after.as_deref())
        {
            original.0 = uri;
        }
        withheld.query = Some([before, after]);
    }
    parts.extensions.insert(withheld);
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<HeaderValue> {
    headers.get_all(name).iter().cloned().collect()
}
