//! Reads the host that a request is for. A request without a host is rejected. A request with two
//! hosts is rejected too, because a proxy in front of this server may have used the other host.
//!
//! A host has one spelling ([`normal_host`]), so that the host of the decision is the host that is
//! routed, forwarded and shown.

use std::borrow::Cow;

use ::http::{Version, header::HOST, request::Parts};

use crate::{handlers::UrlScheme, model::normal_host};

/// The host that a request is sent to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Host<'a> {
    authority: Cow<'a, str>,
    /// The length of the name at the beginning of the authority.
    name_length: usize,
}

/// The reason why a request has no usable host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostProblem {
    #[error("The request names no host.")]
    Missing,
    #[error("The request names more than one host.")]
    Several,
    #[error("The request's host is not a host name or address with an optional port.")]
    Malformed,
}

impl Host<'_> {
    /// The host with its port, unless the scheme implies the port. Safe to put into a URL.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host without the port, in the form of [`normal_host`].
    pub fn name(&self) -> &str {
        &self.authority[..self.name_length]
    }
}

/// The host of a request: the authority of its target, or its `Host` field (RFC 9112, section 3.2).
/// The scheme implies a port.
pub(crate) fn of_request(request: &Parts, scheme: UrlScheme) -> Result<Host<'_>, HostProblem> {
    let mut fields = request.headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(HostProblem::Several);
    }
    // An internationalised name may come as UTF-8.
    let field = field.map(|value| std::str::from_utf8(value.as_bytes()));
    let field = field.transpose().map_err(|_| HostProblem::Malformed)?;
    let target = request.uri.authority().map(|authority| authority.as_str());
    match (target, field) {
        (Some(target), Some(field)) if target != field => {
            let host = parse(target, scheme)?;
            if host == parse(field, scheme)? { Ok(host) } else { Err(HostProblem::Several) }
        }
        (Some(target), _) if request.version >= Version::HTTP_2 || field.is_some() => {
            parse(target, scheme)
        }
        (None, Some(field)) => parse(field, scheme),
        _ => Err(HostProblem::Missing),
    }
}

/// Parses an authority: a host name or address, with an optional port. Borrows an authority that is
/// in its normal form.
pub(crate) fn parse(authority: &str, scheme: UrlScheme) -> Result<Host<'_>, HostProblem> {
    let end_of_name = if authority.starts_with('[') {
        authority.find(']').map_or(authority.len(), |end| end + 1)
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (name, port) = authority.split_at(end_of_name);
    let normal = normal_host(name).ok_or(HostProblem::Malformed)?;
    let number = parse_port(port)?.filter(|number| *number != scheme.default_port());
    let name_length = normal.len();
    let authority = match (normal, number) {
        (Cow::Borrowed(name), None) => Cow::Borrowed(name),
        // The text of the port is not normal if it is empty or begins with a zero.
        (Cow::Borrowed(name), Some(_)) if name.len() == end_of_name && !port.starts_with(":0") => {
            Cow::Borrowed(authority)
        }
        (name, Some(number)) => Cow::Owned(format!("{name}:{number}")),
        (name, None) => name,
    };
    Ok(Host { authority, name_length })
}

/// Parses a colon with a port. `None` means that there is no port: the text, or the port, is empty.
fn parse_port(text: &str) -> Result<Option<u16>, HostProblem> {
    let digits = match text.strip_prefix(':') {
        Some(digits) => digits,
        None if text.is_empty() => return Ok(None),
        None => return Err(HostProblem::Malformed),
    };
    if digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostProblem::Malformed);
    }
    if digits.is_empty() {
        return Ok(None);
    }
    digits.parse().map(Some).map_err(|_| HostProblem::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(target: &str, hosts: &[&str]) -> Parts {
        let mut request = ::http::Request::get(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn read(parts: &Parts) -> Result<(String, String), HostProblem> {
        let host = of_request(parts, UrlScheme::Http)?;
        Ok((host.authority().to_owned(), host.name().to_owned()))
    }

    #[test]
    fn authority_has_one_spelling() {
        for (text, authority, name) in [
            ("api.example", "api.example", "api.example"),
            ("API.Example:8080", "api.example:8080", "api.example"),
            ("api.example.:8080", "api.example:8080", "api.example"),
            ("api.example:80", "api.example", "api.example"),
            ("api.example:", "api.example", "api.example"),
            ("api.example:080", "api.example", "api.example"),
            ("api.example:0443", "api.example:443", "api.example"),
            ("api.example:443", "api.example:443", "api.example"),
            ("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1"),
            ("[::1]:8080", "[::1]:8080", "[::1]"),
            ("[0::1]:80", "[::1]", "[::1]"),
            ("bücher.example:81", "xn--bcher-kva.example:81", "xn--bcher-kva.example"),
        ] {
            let read = read(&parts("/", &[text])).unwrap();
            assert_eq!((&*read.0, &*read.1), (authority, name), "{text}");
            assert_eq!(parse(authority, UrlScheme::Http).unwrap().authority(), authority);
        }
        assert_eq!(parse("a:443", UrlScheme::Https).unwrap().authority(), "a");
        assert_eq!(parse("a:80", UrlScheme::Https).unwrap().authority(), "a:80");
    }

    #[test]
    fn normal_authority_is_borrowed() {
        for text in ["api.example", "api.example:8080", "api.example:80", "api.example.", "[::1]:1"]
        {
            let host = parse(text, UrlScheme::Http).unwrap();
            assert!(matches!(host.authority, Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn missing_repeated_and_malformed_hosts_are_rejected() {
        for bad in [
            "",
            "a b",
            "a/b",
            "a@b",
            "a:b",
            "a:123456",
            "a:65536",
            "a:+1",
            "a:1:2",
            "[::1",
            "[x]",
            "[::1]x",
            "a?b",
            "a\"b",
            "a,b",
            ":80",
            "a..b",
            "127.1",
            "[::ffff:1.2.3.4]",
        ] {
            assert_eq!(read(&parts("/", &[bad])), Err(HostProblem::Malformed), "{bad}");
        }
        assert_eq!(read(&parts("/", &[])), Err(HostProblem::Missing));
        assert_eq!(read(&parts("/", &["a", "a"])), Err(HostProblem::Several));
        assert_eq!(read(&parts("http://a/", &["b"])), Err(HostProblem::Several));
        assert_eq!(read(&parts("http://a:81/", &["a"])), Err(HostProblem::Several));
        assert_eq!(read(&parts("http://A:80/", &["a."])).unwrap().0, "a");
    }
}
