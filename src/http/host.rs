//! Reads the host that a request is for. A request without a host is rejected. A request with two
//! hosts is rejected too, because a proxy in front of this server may have used the other host.

use std::borrow::Cow;

use ::http::{Version, header::HOST, request::Parts};

/// The host that a request is sent to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Host<'a> {
    authority: &'a str,
    name: Cow<'a, str>,
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
pub(crate) fn of_request(request: &Parts) -> Result<Host<'_>, HostProblem> {
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
    parse(authority)
}

/// Parses an authority: a host name or address, with an optional port.
pub(crate) fn parse(authority: &str) -> Result<Host<'_>, HostProblem> {
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
    let is_name_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let is_name = name.starts_with('[') || (!name.is_empty() && name.bytes().all(is_name_byte));
    if !is_name || !is_port {
        return Err(HostProblem::Malformed);
    }
    let is_lower = !name.bytes().fold(false, |upper, b| upper | b.is_ascii_uppercase());
    let name = if is_lower { name.into() } else { name.to_ascii_lowercase().into() };
    Ok(Host { authority, name })
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

    #[test]
    fn port_and_upper_case_are_not_part_of_the_name() {
        for (authority, name) in [
            ("api.example", "api.example"),
            ("API.Example:8080", "api.example"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:8080", "[::1]"),
            ("[::1]", "[::1]"),
            ("a_b-c", "a_b-c"),
        ] {
            let parts = parts("/", &[authority]);
            let host = of_request(&parts).unwrap();
            assert_eq!((host.authority(), host.name()), (authority, name));
        }
    }

    #[test]
    fn missing_repeated_and_malformed_hosts_are_rejected() {
        for bad in [
            "", "a b", "a/b", "a@b", "a:b", "a:123456", "[::1", "[x]", "[::1]x", "a?b", "a\"b",
            "a,b", ":80",
        ] {
            assert_eq!(of_request(&parts("/", &[bad])), Err(HostProblem::Malformed), "{bad}");
        }
        assert_eq!(of_request(&parts("/", &[])), Err(HostProblem::Missing));
        assert_eq!(of_request(&parts("/", &["a", "a"])), Err(HostProblem::Several));
        assert_eq!(of_request(&parts("http://a/", &["b"])), Err(HostProblem::Several));
        assert_eq!(of_request(&parts("http://A/", &["a"])).unwrap().name(), "a");
    }
}
