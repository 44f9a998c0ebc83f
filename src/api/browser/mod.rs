//! Keeps web pages of strangers from using the admin API through an administrator's browser.
//!
//! A browser adds a remembered HTTP Basic credential to the requests of every page, and a page can
//! let its own name resolve to this machine. So the admin listener responds only to its own names,
//! and changes nothing for a page of another origin.

use std::net::{IpAddr, SocketAddr};

use ::http::{
    HeaderName, Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING},
    request::Parts,
    uri::Authority,
};

use crate::pipeline::{Denial, Phase, Shape};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names of the admin listener, by which a client may address it.
#[derive(Debug, Clone)]
pub struct HostNames {
    listen: IpAddr,
    names: Vec<String>,
}

impl HostNames {
    /// The names of a listener: its address, `localhost`, and the configured names.
    pub fn new(listen: SocketAddr, configured: impl IntoIterator<Item = String>) -> Self {
        let names = configured.into_iter().map(|name| normal(&name));
        let names = names.chain(["localhost".to_owned()]).collect();
        Self { listen: listen.ip().to_canonical(), names }
    }

    /// Refuses a request for another host. The health checks stay open, because supervisors use
    /// them by any address.
    ///
    /// # Errors
    /// The host of the request is not a name of this listener (421).
    pub fn check(&self, head: &Parts) -> Result<(), Denial> {
        if head.uri.path().starts_with("/health/") {
            return Ok(());
        }
        // Only a client that is no browser sends no host.
        let Some(authority) = request_authority(head) else { return Ok(()) };
        let is_known = authority.parse::<Authority>().is_ok_and(|host| self.has(host.host()));
        if is_known {
            return Ok(());
        }
        Err(Denial::message(
            Phase::Edge,
            StatusCode::MISDIRECTED_REQUEST,
            "MISDIRECTED_REQUEST",
            "The admin listener does not have the name in the Host field. Use its address or \
             localhost, or add the name to admin.names in the configuration.",
        )
        .in_shape(Shape::Problem))
    }

    fn has(&self, host: &str) -> bool {
        let host = normal(host);
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // A page cannot have the name of an address that it does not have.
            Ok(address) if self.listen.is_unspecified() => !address.is_unspecified(),
            Ok(address) => {
                let address = address.to_canonical();
                address == self.listen
                    || address.is_loopback() && self.listen.is_loopback()
                    || self.names.contains(&host)
            }
            Err(_) => self.names.contains(&host),
        }
    }
}

/// Refuses a request that changes something and that a page of another origin may have sent.
///
/// # Errors
/// `Sec-Fetch-Site` or `Origin` names another site (403).
pub(super) fn check_origin(head: &Parts) -> Result<(), Denial> {
    if [Method::GET, Method::HEAD].contains(&head.method) {
        return Ok(());
    }
    let is_own_site = |site: &[u8]| site == b"same-origin" || site == b"none";
    let mut sites = head.headers.get_all(SEC_FETCH_SITE).iter();
    let mut origins = head.headers.get_all(ORIGIN).iter();
    if !sites.all(|site| is_own_site(site.as_bytes()))
        || !origins.all(|origin| origin.to_str().is_ok_and(|text| is_own_origin(text, head)))
    {
        return Err(Denial::message(
            Phase::Edge,
            StatusCode::FORBIDDEN,
            "CROSS_SITE_REQUEST",
            "A web page of another origin sent this request. The admin API changes nothing for \
             pages of other origins.",
        ));
    }
    Ok(())
}

/// Whether an origin (RFC 6454) has the host and the port of the request.
fn is_own_origin(origin: &str, head: &Parts) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let Some(own) = request_authority(head) else { return false };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let name = |authority: &str| {
        let authority = authority.to_ascii_lowercase();
        authority.strip_suffix(default_port).map(str::to_owned).unwrap_or(authority)
    };
    name(authority) == name(own)
}

/// Refuses every body that a form of a page can send, also where the handler reads no body.
///
/// # Errors
/// The body has another type than JSON or, for a state file, TOML (415).
pub(super) fn check_body_type(head: &Parts) -> Result<(), Denial> {
    if [Method::GET, Method::HEAD].contains(&head.method) {
        return Ok(());
    }
    let is_empty = !head.headers.contains_key(TRANSFER_ENCODING)
        && head.headers.get_all(CONTENT_LENGTH).iter().all(|length| length == "0");
    let mut types = head.headers.get_all(CONTENT_TYPE).iter().peekable();
    if is_empty && types.peek().is_none() {
        return Ok(());
    }
    let is_state = head.uri.path() == "/api/v1/state";
    let is_known = |essence: &str| {
        let expected = ["application/json", "application/merge-patch+json", "application/toml"];
        let index = expected.iter().position(|one| essence.eq_ignore_ascii_case(one));
        match index {
            Some(0) => true,
            Some(1) => head.method == Method::PATCH,
            Some(_) => is_state,
            None => false,
        }
    };
    let essence = |value: &::http::HeaderValue| {
        value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_owned()
    };
    if types.peek().is_some() && types.all(|value| is_known(&essence(value))) {
        return Ok(());
    }
    let message = match head.method {
        _ if is_state => "Send application/toml.",
        Method::PATCH => "Send application/json or application/merge-patch+json.",
        _ => "Send application/json.",
    };
    let code = "UNSUPPORTED_MEDIA_TYPE";
    Err(Denial::message(Phase::Edge, StatusCode::UNSUPPORTED_MEDIA_TYPE, code, message))
}

/// The host and the port to which a request is addressed. `None` means that it names none.
fn request_authority(head: &Parts) -> Option<&str> {
    let of_uri = head.uri.authority().map(Authority::as_str);
    // A host that is no text is no name of ours.
    of_uri.or_else(|| head.headers.get(HOST).map(|host| host.to_str().unwrap_or("?")))
}

/// A host in one spelling: lower case, no trailing dot.
fn normal(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = ::http::Request::builder().method(method).uri("/api/v1/keys/x/revoke");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn listener_responds_to_its_own_names_only() {
        let names =
            |listen: &str| HostNames::new(listen.parse().unwrap(), ["Admin.example".into()]);
        for (listen, host, is_known) in [
            ("127.0.0.1:8081", "127.0.0.1:8081", true),
            ("127.0.0.1:8081", "localhost", true),
            ("127.0.0.1:8081", "LOCALHOST.:1", true),
            ("127.0.0.1:8081", "[::1]:8081", true),
            ("127.0.0.1:8081", "admin.example:443", true),
            ("127.0.0.1:8081", "192.0.2.7:8081", false),
            ("127.0.0.1:8081", "evil.example:8081", false),
            ("127.0.0.1:8081", "127.0.0.1.evil.example", false),
            ("127.0.0.1:8081", "localhost.evil.example", false),
            ("127.0.0.1:8081", "", false),
            ("10.0.0.7:8081", "10.0.0.7", true),
            ("10.0.0.7:8081", "127.0.0.1", false),
            ("0.0.0.0:8081", "192.0.2.7:8081", true),
            ("0.0.0.0:8081", "evil.example", false),
            ("[::]:8081", "[2001:db8::1]", true),
        ] {
            let result = names(listen).check(&head("GET", &[("host", host)]));
            assert_eq!(result.is_ok(), is_known, "{listen} {host}");
        }
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let own = ("host", "localhost:8081");
        for (fields, expected) in [
            (vec![], Ok(())),
            (vec![("origin", "http://localhost:8081")], Ok(())),
            (vec![("sec-fetch-site", "same-origin")], Ok(())),
            (vec![("sec-fetch-site", "none")], Ok(())),
            (vec![("sec-fetch-site", "cross-site")], Err(403)),
            (vec![("sec-fetch-site", "same-site")], Err(403)),
            (vec![("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], Err(403)),
            (vec![("origin", "http://localhost:8080")], Err(403)),
            (vec![("origin", "http://evil.example")], Err(403)),
            (vec![("origin", "null")], Err(403)),
            (vec![("origin", "")], Err(403)),
            (vec![("origin", "http://evil"), ("sec-fetch-site", "same-origin")], Err(403)),
            (vec![("content-type", "application/json; charset=utf-8")], Ok(())),
            (vec![("content-type", "text/plain")], Err(415)),
            (vec![("content-type", "application/x-www-form-urlencoded")], Err(415)),
            (vec![("content-type", "multipart/form-data; boundary=x")], Err(415)),
            (vec![("content-type", "application/toml")], Err(415)),
            (vec![("content-length", "3")], Err(415)),
            (vec![("transfer-encoding", "chunked")], Err(415)),
        ] {
            for method in ["POST", "PATCH", "DELETE", "PUT"] {
                let all = [vec![own], fields.clone()].concat();
                let head = head(method, &all);
                let result = check_origin(&head).and_then(|()| check_body_type(&head));
                let result = result.map_err(|denial| denial.status.as_u16());
                assert_eq!(result, expected, "{method} {all:?}");
            }
        }
    }
}
