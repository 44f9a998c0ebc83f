//! The target of the original request, as a proxy writes it into a header field.

use ::http::uri::PathAndQuery;

use crate::handlers::UrlScheme;

/// The parts of a request target.
#[derive(Clone, Copy)]
pub(in crate::server) struct ForwardedTarget<'a> {
    pub scheme: Option<UrlScheme>,
    pub authority: Option<&'a str>,
    pub path: &'a str,
    pub query: Option<&'a str>,
}

impl<'a> ForwardedTarget<'a> {
    pub const EMPTY: Self = Self { scheme: None, authority: None, path: "/", query: None };

    /// Parses `/path?query`, perhaps with scheme and authority before it.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (Some(UrlScheme::Http), rest),
            (_, Some(rest)) => (Some(UrlScheme::Https), rest),
            _ => (None, text),
        };
        let (authority, rest) = match scheme {
            Some(_) => {
                let (authority, rest) = rest.split_at(rest.find('/')?);
                (Some(authority), rest)
            }
            None => (None, rest),
        };
        if !rest.starts_with('/') || !has_plain_bytes(rest) && !is_path_and_query(rest) {
            return None;
        }
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        Some(Self { scheme, authority, path, query })
    }
}

/// Whether every parser accepts every byte of a target. This is true for almost all targets.
fn has_plain_bytes(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~?=&%+".contains(&b))
}

/// Whether the parser of the server's own requests accepts a target unchanged. The parser drops a
/// fragment, but a fragment is rejected here, because the proxy may pass the fragment on.
fn is_path_and_query(text: &str) -> bool {
    text.is_ascii() && text.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.as_str() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_targets_are_rejected() {
        for bad in ["", "a", "*", "/a#b", "http://", "http://a", "/a b", "//\u{7f}"] {
            assert!(ForwardedTarget::parse(bad).is_none(), "{bad}");
        }
        for good in ["/", "//a", "/a?b?c", "http://a/b", "/?", "/%2e"] {
            assert!(ForwardedTarget::parse(good).is_some(), "{good}");
        }
    }
}
