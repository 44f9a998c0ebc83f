//! The host that a request is for. A request that names two, or none, or no host at all, is refused: a proxy before us may have looked at the other.

use std::borrow::Cow;

use ::http::{Version, header::HOST, request::Parts};

/// Where a request is sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Host<'a> {
    authority: &'a str,
    name: Cow<'a, str>,
}

/// Why there is no host.
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
    /// Host and port as the client wrote them. Safe to put into a URL.
    pub fn authority(&self) -> &str {
        self.authority
    }

    /// The host in lower case, without the port.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The host of a request: the authority of its target, or its `Host` field (RFC 9112, section 3.2).
pub(crate) fn of(request: &Parts) -> Result<Host<'_>, HostProblem> {
    let mut fields = request.headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(HostProblem::Several);
    }
    let field =
        field.map(|value| value.to_str().map_err(|_| HostProblem::Malformed)).transpose()?;
    let target = request.uri.authority().map(|authority| authority.as_str());
    let authority = match (target, field) {
        (Some(target), Some(field)) if !target.eq_ignore_ascii_case(field) => {
            return Err(HostProblem::Several);
        }
        (Some(target), _) if request.version >= Version::HTTP_2 || field.is_some() => target,
        (None, Some(field)) => field,
        _ => return Err(HostProblem::Missing),
    };
    read(authority)
}

/// The host of an authority.
pub(crate) fn read(authority: &str) -> Result<Host<'_>, HostProblem> {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']').ok_or(HostProblem::Malformed)? + 2;
            let is_address = rest[..end - 2].parse::<std::net::Ipv6Addr>().is_ok();
            is_address.then(|| authority.split_at(end)).ok_or(HostProblem::Malformed)?
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_port = match port.strip_prefix(':') {
        Some(digits) => digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    let form = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let is_name = name.starts_with('[') || (!name.is_empty() && name.bytes().all(form));
    if !is_name || !is_port {
        return Err(HostProblem::Malformed);
    }
    let is_lower = !name.bytes().fold(false, |upper, b| upper | b.is_ascii_uppercase());
    let name = if is_lower { name.into() } else { name.to_ascii_lowercase().into() };
    Ok(Host { authority, name })
}

#[cfg(test)]
mod unit {
    use super::*;

    fn parts(target: &str, hosts: &[&str]) -> Parts {
        let mut request = ::http::Request::get(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_host_is_read_in_one_way() {
        for (authority, name) in [
            ("api.example", "api.example"),
            ("API.Example:8080", "api.example"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:8080", "[::1]"),
            ("[::1]", "[::1]"),
            ("a_b-c", "a_b-c"),
        ] {
            let parts = parts("/", &[authority]);
            let host = of(&parts).unwrap();
            assert_eq!((host.authority(), host.name()), (authority, name));
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in [
            "", "a b", "a/b", "a@b", "a:b", "a:123456", "[::1", "[x]", "[::1]x", "a?b", "a\"b",
            "a,b", ":80",
        ] {
            assert_eq!(of(&parts("/", &[bad])), Err(HostProblem::Malformed), "{bad}");
        }
        assert_eq!(of(&parts("/", &[])), Err(HostProblem::Missing));
        assert_eq!(of(&parts("/", &["a", "a"])), Err(HostProblem::Several));
        assert_eq!(of(&parts("http://a/", &["b"])), Err(HostProblem::Several));
        assert_eq!(of(&parts("http://A/", &["a"])).unwrap().name(), "a");
    }
}
