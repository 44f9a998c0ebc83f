//! Reads the request that a proxy in front asks about. Each proxy describes the request in its own
//! header fields. An ambiguous description is rejected.

use std::net::{IpAddr, SocketAddr};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, request::Parts};
use ipnet::IpNet;

use super::target::ForwardedTarget;
use crate::{
    handlers::UrlScheme,
    http::{
        host::{self, Host},
        method,
    },
};

/// The beginning of the paths of the verify endpoints.
const VERIFY: &str = "/-/verify";

/// The form in which a kind of proxy describes the client's request and expects the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Dialect {
    /// Any proxy: `X-Forwarded-*` or `X-Original-*`.
    Plain,
    /// `auth_request`: the fields that the operator configures, and ingress-nginx's
    /// `X-Original-URL`.
    Nginx,
    /// `forward_auth`: `X-Forwarded-*`.
    Caddy,
    /// ForwardAuth: `X-Forwarded-*`.
    Traefik,
    /// `ext_authz` over HTTP: the client's method and host, and the client's path after the path of
    /// the verify endpoint.
    Envoy,
    /// The shipped Lua action: `X-Forwarded-*`.
    Haproxy,
}

/// The request that a proxy asks about.
#[derive(Debug)]
pub(in crate::server) struct OriginalRequest<'a> {
    pub method: Method,
    pub scheme: UrlScheme,
    pub host: Host<'a>,
    /// The path, as the client sent it.
    pub path: &'a str,
    pub query: Option<&'a str>,
    /// The header field whose value was exactly the path and the query, if there was such a field.
    pub uri_field: Option<&'a HeaderValue>,
    /// The client's address, as the trusted proxies report it.
    pub client: IpAddr,
}

/// The reason why the original request cannot be read. The text is for the person who has set up
/// the proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::server) enum DialectError {
    #[error("The proxy does not send {0}. Set this header in the proxy's configuration.")]
    Missing(&'static str),
    #[error("{0} came more than once, or contradicts another header.")]
    Several(&'static str),
    #[error("{0} cannot be read.")]
    Malformed(&'static str),
}

impl Dialect {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Nginx, "/nginx"),
        (Self::Caddy, "/caddy"),
        (Self::Traefik, "/traefik"),
        (Self::Envoy, "/envoy"),
        (Self::Haproxy, "/haproxy"),
    ];

    /// The dialect of a verify endpoint. `path` is not normalised: Envoy appends the client's path
    /// to the endpoint's path, and `..` in the client's path must not lead to another endpoint.
    pub fn of_path(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(VERIFY)?;
        if rest.is_empty() {
            return Some(Self::Plain);
        }
        Self::ALL.into_iter().find_map(|(dialect, name)| {
            let suffix = rest.strip_prefix(name)?;
            let is_path = dialect == Self::Envoy && suffix.starts_with('/');
            (suffix.is_empty() || is_path).then_some(dialect)
        })
    }

    /// The fields that can contain the method, the target and the host.
    fn fields(self) -> [&'static [ForwardedField]; 3] {
        use ForwardedField::*;
        match self {
            Self::Plain => [
                &[ForwardedMethod, OriginalMethod],
                &[ForwardedUri, OriginalUri, OriginalUrl],
                &[ForwardedHost, OriginalHost],
            ],
            Self::Nginx => {
                [&[OriginalMethod], &[OriginalUri, OriginalUrl], &[OriginalHost, ForwardedHost]]
            }
            Self::Caddy | Self::Traefik | Self::Haproxy => {
                [&[ForwardedMethod], &[ForwardedUri], &[ForwardedHost]]
            }
            Self::Envoy => [&[], &[], &[]],
        }
    }

    /// Reads the original request. The caller has checked that the proxy is trusted.
    pub fn read<'a>(
        self,
        parts: &'a Parts,
        trusted: &[IpNet],
    ) -> Result<OriginalRequest<'a>, DialectError> {
        let fields = ForwardedFields::of(&parts.headers);
        let [methods, targets, hosts] = self.fields();
        let client = fields.client(&parts.headers, trusted)?;
        let method = match methods.first() {
            None => parts.method.clone(),
            Some(first) => {
                let name = first.name();
                let (_, text) = fields.agreed(methods)?.ok_or(DialectError::Missing(name))?;
                method::parse(text).ok_or(DialectError::Malformed(name))?
            }
        };
        let (value, target) = match targets.first() {
            None => {
                let (path, query) = (path_behind_envoy(parts), parts.uri.query());
                (None, ForwardedTarget { path, query, ..ForwardedTarget::EMPTY })
            }
            Some(first) => {
                let name = first.name();
                let (value, text) = fields.agreed(targets)?.ok_or(DialectError::Missing(name))?;
                let target = ForwardedTarget::parse(text).ok_or(DialectError::Malformed(name))?;
                (Some(value), target)
            }
        };
        let scheme = match target.scheme {
            Some(scheme) => scheme,
            None => fields.scheme()?,
        };
        let forwarded_host = fields.agreed(hosts)?.map(|(_, text)| text);
        let parse_host = |authority| {
            host::parse(authority, scheme).map_err(|_| DialectError::Malformed("x-forwarded-host"))
        };
        let host = match (forwarded_host, target.authority) {
            (Some(host), Some(other)) => {
                let host = parse_host(host)?;
                if host != parse_host(other)? {
                    return Err(DialectError::Several("x-forwarded-host"));
                }
                host
            }
            (Some(authority), None) | (None, Some(authority)) => parse_host(authority)?,
            (None, None) => {
                host::of_request(parts, scheme).map_err(|_| DialectError::Malformed("host"))?
            }
        };
        let uri_field = value.filter(|_| target.authority.is_none());
        let ForwardedTarget { path, query, .. } = target;
        Ok(OriginalRequest { method, scheme, host, path, query, uri_field, client })
    }
}

/// A header field in which a proxy describes the original request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ForwardedField {
    ForwardedMethod,
    ForwardedUri,
    ForwardedHost,
    ForwardedProto,
    OriginalMethod,
    OriginalUri,
    OriginalUrl,
    OriginalHost,
    ForwardedFor,
}

impl ForwardedField {
    /// The field names, in the order of the variants.
    const ALL: [(Self, &'static str); 9] = [
        (Self::ForwardedMethod, "x-forwarded-method"),
        (Self::ForwardedUri, "x-forwarded-uri"),
        (Self::ForwardedHost, "x-forwarded-host"),
        (Self::ForwardedProto, "x-forwarded-proto"),
        (Self::OriginalMethod, "x-original-method"),
        (Self::OriginalUri, "x-original-uri"),
        (Self::OriginalUrl, "x-original-url"),
        (Self::OriginalHost, "x-original-host"),
        (Self::ForwardedFor, "x-forwarded-for"),
    ];

    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The text of a value. The name of a host may be internationalised.
    fn text(self, value: &HeaderValue) -> Option<&str> {
        match self {
            Self::ForwardedHost | Self::OriginalHost | Self::OriginalUrl => {
                std::str::from_utf8(value.as_bytes()).ok()
            }
            _ => value.to_str().ok(),
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        // Almost no header field of a request is a forwarded field.
        if !name.starts_with("x-") {
            return None;
        }
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(field, _)| field)
    }
}

/// The values of all [`ForwardedField`]s, found in one pass over the header fields.
struct ForwardedFields<'a>([Option<ForwardedValue<'a>>; ForwardedField::ALL.len()]);

#[derive(Clone, Copy)]
struct ForwardedValue<'a> {
    /// The first value of the field.
    value: &'a HeaderValue,
    is_only: bool,
}

impl<'a> ForwardedFields<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = Self([None; ForwardedField::ALL.len()]);
        for (name, value) in headers {
            let Some(field) = ForwardedField::from_name(name.as_str()) else { continue };
            let slot = &mut fields.0[field as usize];
            *slot = match slot {
                None => Some(ForwardedValue { value, is_only: true }),
                Some(first) => Some(ForwardedValue { is_only: false, ..*first }),
            };
        }
        fields
    }

    /// The value that these alternative fields agree on, and its text. `None` means that none of
    /// the fields is present.
    fn agreed(
        &self,
        fields: &[ForwardedField],
    ) -> Result<Option<(&'a HeaderValue, &'a str)>, DialectError> {
        let mut found: Option<(&HeaderValue, &str)> = None;
        for field in fields {
            let Some(ForwardedValue { value, is_only }) = self.0[*field as usize] else { continue };
            let name = field.name();
            let text = field.text(value).ok_or(DialectError::Malformed(name))?;
            let is_same = found.is_none_or(|(_, known)| known == text);
            // If two values differ, the client may have sent one of them.
            if !is_only || !is_same {
                return Err(DialectError::Several(name));
            }
            found = found.or(Some((value, text)));
        }
        Ok(found)
    }

    fn scheme(&self) -> Result<UrlScheme, DialectError> {
        Ok(match self.agreed(&[ForwardedField::ForwardedProto])? {
            // Traefik sends `wss` for a connection that is to be upgraded to a WebSocket.
            Some((_, "https" | "wss")) => UrlScheme::Https,
            _ => UrlScheme::Http,
        })
    }

    /// The client's address, as [`client`] returns it.
    fn client(&self, headers: &HeaderMap, trusted: &[IpNet]) -> Result<IpAddr, DialectError> {
        match self.0[ForwardedField::ForwardedFor as usize] {
            Some(ForwardedValue { value, is_only: true }) => {
                last_untrusted(std::iter::once(value), trusted)
            }
            _ => client(headers, trusted),
        }
    }
}

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The path of the original request, which Envoy appends to its `path_prefix`.
fn path_behind_envoy(parts: &Parts) -> &str {
    let path = parts.uri.path();
    let rest = path.strip_prefix(VERIFY).and_then(|rest| rest.strip_prefix("/envoy"));
    rest.filter(|rest| !rest.is_empty()).unwrap_or("/")
}

/// The scheme of the client's request, as the proxy reports it.
pub(in crate::server) fn scheme(headers: &HeaderMap) -> Result<UrlScheme, DialectError> {
    ForwardedFields::of(headers).scheme()
}

/// The client's address: the last address in `X-Forwarded-For` that does not belong to a trusted
/// proxy. The client may have written the addresses before that address.
pub(in crate::server) fn client(
    headers: &HeaderMap,
    trusted: &[IpNet],
) -> Result<IpAddr, DialectError> {
    last_untrusted(headers.get_all(&FORWARDED_FOR).iter().rev(), trusted)
}

/// The last address outside of the trusted networks. `values` begins with the last header field.
fn last_untrusted<'a>(
    values: impl Iterator<Item = &'a HeaderValue>,
    trusted: &[IpNet],
) -> Result<IpAddr, DialectError> {
    let malformed = DialectError::Malformed("x-forwarded-for");
    let mut first = None;
    for value in values {
        let text = value.to_str().map_err(|_| malformed.clone())?;
        for element in text.rsplit(',') {
            let address = parse_address(element.trim()).ok_or(malformed.clone())?;
            if !is_among(trusted, address) {
                return Ok(address);
            }
            first = Some(address);
        }
    }
    first.ok_or(DialectError::Missing("X-Forwarded-For"))
}

/// Parses an address. Some proxies append a port to the address.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok();
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

/// Whether an address is in one of these networks.
pub(in crate::server) fn is_among(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = ::http::Request::get(path).header("host", "keyward:8080");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn networks() -> Vec<IpNet> {
        ["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]
            .into()
    }

    /// The original request in one line.
    fn read(path: &str, fields: &[(&str, &str)]) -> Result<String, DialectError> {
        let parts = parts(path, fields);
        let dialect = Dialect::of_path(parts.uri.path()).unwrap();
        let original = dialect.read(&parts, &networks())?;
        let OriginalRequest { method, scheme, host, path, query, client, .. } = original;
        Ok(format!("{method} {}://{} {path} {query:?} {client}", scheme.name(), host.authority()))
    }

    const FIELDS: [(&str, &str); 5] = [
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "API.example:8443"),
        ("x-forwarded-uri", "/a/../b?c=/d?"),
        ("x-forwarded-for", "203.0.113.7"),
    ];
    const READ: &str = "POST https://api.example:8443 /a/../b Some(\"c=/d?\") 203.0.113.7";

    #[test]
    fn each_dialect_reads_the_fields_of_its_proxy() {
        for dialect in ["", "/caddy", "/traefik", "/haproxy"] {
            assert_eq!(read(&format!("/-/verify{dialect}"), &FIELDS).as_deref(), Ok(READ));
        }
        let original = FIELDS.map(|(name, value)| match name {
            "x-forwarded-method" => ("x-original-method", value),
            "x-forwarded-uri" => ("x-original-uri", value),
            "x-forwarded-host" => ("x-original-host", value),
            _ => (name, value),
        });
        for dialect in ["", "/nginx"] {
            assert_eq!(read(&format!("/-/verify{dialect}"), &original).as_deref(), Ok(READ));
        }
        let ingress = [
            ("x-original-method", "POST"),
            ("x-original-url", "https://API.example:8443/a/../b?c=/d?"),
            ("x-forwarded-for", "203.0.113.7"),
        ];
        assert_eq!(read("/-/verify/nginx", &ingress).as_deref(), Ok(READ));
        let envoy = [("x-forwarded-for", "203.0.113.7"), ("x-forwarded-uri", "/forged")];
        let expected = "GET http://keyward:8080 /../a Some(\"b\") 203.0.113.7";
        assert_eq!(read("/-/verify/envoy/../a?b", &envoy).as_deref(), Ok(expected));
    }

    #[test]
    fn field_names_are_in_the_order_of_the_variants() {
        for (index, (field, name)) in ForwardedField::ALL.into_iter().enumerate() {
            assert_eq!(
                (field as usize, ForwardedField::from_name(name)),
                (index, Some(field)),
                "{name}"
            );
        }
        for other in ["x-forwarded-fo", "x-forwarded-uri2", "forwarded", "x-", ""] {
            assert_eq!(ForwardedField::from_name(other), None, "{other}");
        }
    }

    #[test]
    fn only_complete_names_are_dialects() {
        for other in [
            "/-/verify/",
            "/-/verifyx",
            "/-/verify/nginx/x",
            "/-/verify/envoyx",
            "/-/",
            "/",
            "/x/-/verify",
        ] {
            assert_eq!(Dialect::of_path(other), None, "{other}");
        }
        assert_eq!(Dialect::of_path("/-/verify/envoy"), Some(Dialect::Envoy));
    }

    #[test]
    fn missing_repeated_and_contradictory_fields_are_rejected() {
        for name in ["x-forwarded-method", "x-forwarded-uri", "x-forwarded-for"] {
            let rest: Vec<_> = FIELDS.into_iter().filter(|(field, _)| *field != name).collect();
            assert!(
                matches!(read("/-/verify/caddy", &rest), Err(DialectError::Missing(_))),
                "{name}"
            );
        }
        for (more, problem) in [
            (("x-forwarded-uri", "/other"), DialectError::Several("x-forwarded-uri")),
            (("x-forwarded-method", "GET"), DialectError::Several("x-forwarded-method")),
            (("x-original-uri", "/other"), DialectError::Several("x-original-uri")),
            (("x-original-url", "http://other/"), DialectError::Several("x-original-url")),
            (("x-forwarded-host", "other"), DialectError::Several("x-forwarded-host")),
            (("x-original-host", "other"), DialectError::Several("x-original-host")),
        ] {
            let fields = [FIELDS.as_slice(), &[more]].concat();
            assert_eq!(read("/-/verify", &fields), Err(problem));
        }
    }

    #[test]
    fn host_in_the_target_must_be_the_host_in_its_field() {
        let read = |host: &str| {
            let fields = [
                ("x-original-method", "GET"),
                ("x-original-url", "https://API.example:443/a"),
                ("x-original-host", host),
                ("x-forwarded-for", "203.0.113.7"),
            ];
            read("/-/verify/nginx", &fields)
        };
        let expected = "GET https://api.example /a None 203.0.113.7";
        assert_eq!(read("api.example.").as_deref(), Ok(expected));
        assert_eq!(read("pub.example"), Err(DialectError::Several("x-forwarded-host")));
        assert_eq!(read("api.example:80"), Err(DialectError::Several("x-forwarded-host")));
    }

    #[test]
    fn client_is_the_last_address_that_is_not_a_trusted_proxy() {
        let client = |chain: &[&str]| {
            let fields: Vec<_> = chain.iter().map(|value| ("x-forwarded-for", *value)).collect();
            client(&parts("/", &fields).headers, &networks()).map(|address| address.to_string())
        };
        assert_eq!(client(&["1.1.1.1, 203.0.113.7, 10.1.1.1"]).as_deref(), Ok("203.0.113.7"));
        assert_eq!(client(&["junk, 203.0.113.7"]).as_deref(), Ok("203.0.113.7"));
        assert_eq!(client(&["1.1.1.1", "203.0.113.7,127.0.0.1"]).as_deref(), Ok("203.0.113.7"));
        assert_eq!(client(&["10.0.0.2, 127.0.0.1"]).as_deref(), Ok("10.0.0.2"));
        assert_eq!(client(&["[2001:db8::1]:443"]).as_deref(), Ok("2001:db8::1"));
        assert_eq!(client(&["203.0.113.7:5555"]).as_deref(), Ok("203.0.113.7"));
        assert_eq!(client(&["::ffff:203.0.113.7"]).as_deref(), Ok("203.0.113.7"));
        assert!(client(&[]).is_err());
        for bad in ["", "unknown", "203.0.113.7, ", "junk, 127.0.0.1"] {
            assert_eq!(client(&[bad]), Err(DialectError::Malformed("x-forwarded-for")), "{bad}");
        }
    }
}
