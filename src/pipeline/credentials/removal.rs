//! Removes a credential from header fields, cookies and the query. All other bytes stay as they
//! are.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{COOKIE, REFERER},
};

use super::CredentialRemoval;
use crate::{
    model::{CredentialParts, is_similar, is_similar_parameter},
    pipeline::AUTH_METHOD,
};

impl CredentialRemoval<'_> {
    /// Whether a header field of this name carries the credential, or could be mistaken for a field
    /// that does.
    pub fn covers(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        let is_covered = |known: &HeaderName| is_similar(name, known.as_str());
        is_covered(&AUTH_METHOD)
            || self.headers.into_iter().flatten().any(is_covered)
            || self.more.as_ref().is_some_and(|more| more.headers.iter().any(is_covered))
    }

    /// The names of the header fields that carry the credential, and `AUTH-METHOD`.
    pub fn header_names(&self) -> Vec<HeaderName> {
        let more = self.more.iter().flat_map(|more| &more.headers);
        let known = self.headers.into_iter().flatten().chain(more);
        known.cloned().chain([AUTH_METHOD]).collect()
    }

    /// Whether [`CredentialRemoval::clean`] can remove or change a header field of this name.
    pub fn touches(&self, name: &HeaderName) -> bool {
        self.covers(name) || self.more.is_some() && (*name == COOKIE || *name == REFERER)
    }

    /// Removes the credential from header fields: whole fields, cookies, and the parameters of
    /// `Referer`, in which a browser repeats the query of the page before.
    pub fn clean(&self, headers: &mut HeaderMap) {
        let covered: Vec<HeaderName> =
            headers.keys().filter(|name| self.covers(name)).cloned().collect();
        for name in covered {
            headers.remove(name);
        }
        let Some(more) = &self.more else { return };
        if !more.cookies.is_empty() {
            rewrite(headers, COOKIE, |field| without_cookies(field, &more.cookies));
        }
        if more.has_query() {
            rewrite(headers, REFERER, |field| {
                let Some(at) = field.iter().position(|byte| *byte == b'?') else {
                    return Some(field.to_vec());
                };
                let query = String::from_utf8_lossy(&field[at + 1..]);
                let kept = without_parameters(&query, more);
                let kept = kept.map(|kept| format!("?{kept}")).unwrap_or_default();
                Some([&field[..at], kept.as_bytes()].concat())
            });
        }
    }

    /// The names of the parameters that [`CredentialRemoval::query`] removes, as they are in the
    /// query.
    pub fn removed_parameters<'q>(&self, query: Option<&'q str>) -> Vec<&'q str> {
        let pairs = query.into_iter().flat_map(|query| query.split('&'));
        let is_removed = |pair: &&str| self.query(Some(pair)).is_none();
        pairs.filter(is_removed).map(|pair| pair.split('=').next().unwrap_or_default()).collect()
    }

    /// The query without the credential. `None` means that no query is left.
    pub fn query<'q>(&self, query: Option<&'q str>) -> Option<Cow<'q, str>> {
        let query = query?;
        match &self.more {
            Some(more) if more.has_query() => without_parameters(query, more),
            _ => Some(Cow::Borrowed(query)),
        }
    }
}

impl CredentialParts {
    /// Whether the credential can be in the query.
    fn has_query(&self) -> bool {
        self.whole_query || !self.parameters.is_empty()
    }
}

/// Replaces the values of a field. A value that becomes `None` is removed.
fn rewrite(headers: &mut HeaderMap, name: HeaderName, change: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let values: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
    headers.remove(&name);
    for value in values {
        let Some(changed) = change(value.as_bytes()) else { continue };
        // This cannot fail, because the text contains only bytes of the value.
        if let Ok(changed) = HeaderValue::from_bytes(&changed) {
            headers.append(name.clone(), changed);
        }
    }
}

/// A `Cookie` field without the cookies of these names. `None` means that no cookie is left.
fn without_cookies(field: &[u8], names: &[String]) -> Option<Vec<u8>> {
    let is_credential = |pair: &&[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        let name = percent_encoding::percent_decode(name).decode_utf8_lossy();
        names.iter().any(|known| is_similar_parameter(name.trim(), known))
    };
    let pairs: Vec<&[u8]> = field.split(|byte| *byte == b';').collect();
    let kept: Vec<&[u8]> = pairs.iter().filter(|pair| !is_credential(pair)).copied().collect();
    if kept.len() == pairs.len() {
        return Some(field.to_vec());
    }
    let kept = kept.join(&b';');
    let kept = kept.trim_ascii();
    (!kept.is_empty()).then(|| kept.to_vec())
}

/// A query without the parameters of these names. `None` means that no parameter is left.
fn without_parameters<'q>(query: &'q str, parts: &CredentialParts) -> Option<Cow<'q, str>> {
    if parts.whole_query {
        return None;
    }
    let is_credential = |pair: &&str| {
        let Some((name, _)) = form_urlencoded::parse(pair.as_bytes()).next() else { return false };
        parts.parameters.iter().any(|known| is_similar_parameter(&name, known))
    };
    if !query.split('&').any(|pair| is_credential(&pair)) {
        return Some(Cow::Borrowed(query));
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_credential(pair)).collect();
    (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removal(parts: CredentialParts) -> CredentialRemoval<'static> {
        CredentialRemoval { headers: [None, None], more: Some(Box::new(parts)) }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn parameter_is_cut_out_of_the_query_and_the_rest_stays() {
        let parts = CredentialParts { parameters: names(&["api_key"]), ..Default::default() };
        let removal = removal(parts);
        for (before, after) in [
            ("a=1&b=%20+x", Some("a=1&b=%20+x")),
            ("api_key=k", None),
            ("api_key", None),
            ("a=1&api_key=k&b=%7e", Some("a=1&b=%7e")),
            ("api_key=k&a=&&b", Some("a=&&b")),
            ("a=1&api_key=k", Some("a=1")),
            ("api_key=k&a=1&api_key=l", Some("a=1")),
            ("api%5Fkey=k&a=1", Some("a=1")),
            ("API_KEY=k&a=1", Some("a=1")),
            ("api-key=k&api.key=k&api+key=k&a=1", Some("a=1")),
            ("api_key[]=k&api_key%5B0%5D=k&a=1", Some("a=1")),
            ("api_keys=1&xapi_key=2&a=api_key=3", Some("api_keys=1&xapi_key=2&a=api_key=3")),
            ("", Some("")),
        ] {
            assert_eq!(removal.query(Some(before)).as_deref(), after, "{before}");
        }
        assert_eq!(removal.query(None), None);
    }

    #[test]
    fn query_that_a_script_has_read_as_a_whole_is_removed_as_a_whole() {
        let parts = CredentialParts { whole_query: true, ..Default::default() };
        assert_eq!(removal(parts).query(Some("a=1")), None);
    }

    #[test]
    fn cookie_is_cut_out_of_every_field_and_the_rest_stays() {
        let parts = CredentialParts { cookies: names(&["session"]), ..Default::default() };
        let removal = removal(parts);
        for (before, after) in [
            (
                &["a=1; session=s; b=\"x y\"", "session=t", "c=3"][..],
                &["a=1; b=\"x y\"", "c=3"][..],
            ),
            (&["session=s; a=1"], &["a=1"]),
            (&["a=1;session=s"], &["a=1"]),
            (&["SESSION=s; %73ession=s"], &[]),
            (&["sessions=1;  a=session=2"], &["sessions=1;  a=session=2"]),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-mine", "1".parse().unwrap());
            for field in before {
                headers.append(COOKIE, field.parse().unwrap());
            }
            removal.clean(&mut headers);
            let left: Vec<_> = headers.get_all(COOKIE).iter().collect();
            assert_eq!(left, after, "{before:?}");
            assert_eq!(headers["x-mine"], "1");
        }
    }

    #[test]
    fn referer_does_not_repeat_the_credential() {
        let parts = CredentialParts { parameters: names(&["api_key"]), ..Default::default() };
        let removal = removal(parts);
        for (before, after) in [
            ("https://a/b?api_key=k&c=d", "https://a/b?c=d"),
            ("https://a/b?api_key=k", "https://a/b"),
            ("https://a/b?c", "https://a/b?c"),
            ("https://a/b", "https://a/b"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(REFERER, before.parse().unwrap());
            removal.clean(&mut headers);
            assert_eq!(headers[REFERER], after);
        }
    }

    #[test]
    fn every_spelling_of_a_field_is_covered() {
        let (known, other) = (HeaderName::from_static("api-key"), HeaderName::from_static("x-key"));
        let removal = CredentialRemoval { headers: [Some(&known), Some(&other)], more: None };
        for name in ["api-key", "api_key", "api.key", "x_key", "auth-method", "auth_method"] {
            assert!(removal.covers(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["api-keys", "apikey", "authorization", "cookie"] {
            assert!(!removal.covers(&HeaderName::from_static(name)), "{name}");
        }
    }
}
