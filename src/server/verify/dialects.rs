//! Reads the request that a proxy in front asks about. Each proxy describes the request in its own
//! header fields. An ambiguous description is rejected.

use std::net::IpAddr;

use ::http::{HeaderMap, HeaderValue, Method, request::Parts};
use ipnet::IpNet;

use super::target::ForwardedTarget;
use crate::{
    handlers::UrlScheme,
    http::{
        forwarded::{self, ReportError, parse_scheme},
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
    ) -> Result<OriginalRequest<'a>, ReportError> {
        let fields = ForwardedFields::of(&parts.headers);
        let [methods, targets, hosts] = self.fields();
        let client = fields.client(&parts.headers, trusted)?;
        let method = match methods.first() {
            None => {
                let mut method = parts.method.clone();
                method::normalise(&mut method);
                method
            }
            Some(first) => {
                let name = first.name();
                let (_, text) = fields.agreed(methods)?.ok_or(ReportError::Missing(name))?;
                method::parse(text).ok_or(ReportError::Malformed(name))?
            }
        };
        let (value, target) = match targets.first() {
            None => {
                let (path, query) = (path_behind_envoy(parts), parts.uri.query());
                (None, ForwardedTarget { path, query, ..ForwardedTarget::EMPTY })
            }
            Some(first) => {
                let name = first.name();
                let (value, text) = fields.agreed(targets)?.ok_or(ReportError::Missing(name))?;
                let target = ForwardedTarget::parse(text).ok_or(ReportError::Malformed(name))?;
                (Some(value), target)
            }
        };
        let scheme = match target.scheme {
            Some(scheme) => scheme,
            None => fields.scheme()?,
        };
        let host = match hosts.first() {
            None => host::of_request(parts, scheme).map_err(|_| ReportError::Malformed("host"))?,
            Some(first) => {
                let name = first.name();
                let parse = |authority| {
                    host::parse(authority, scheme).map_err(|_| ReportError::Malformed(name))
                };
                let given = fields.agreed(hosts)?.map(|(_, text)| text);
                match (given.filter(|text| !text.is_empty()), target.authority) {
                    (Some(one), Some(other)) => {
                        let host = parse(one)?;
                        // The client may have written one of them: the proxy only knows the other.
                        if host != parse(other)? {
                            return Err(ReportError::Several(name));
                        }
                        host
                    }
                    // The `Host` of the question is not the client's: a proxy names Keyward there.
                    (one, other) => parse(one.or(other).ok_or(ReportError::Missing(name))?)?,
                }
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
    Forwarded,
}

impl ForwardedField {
    /// The field names, in the order of the variants.
    const ALL: [(Self, &'static str); 10] = [
        (Self::ForwardedMethod, "x-forwarded-method"),
        (Self::ForwardedUri, "x-forwarded-uri"),
        (Self::ForwardedHost, "x-forwarded-host"),
        (Self::ForwardedProto, "x-forwarded-proto"),
        (Self::OriginalMethod, "x-original-method"),
        (Self::OriginalUri, "x-original-uri"),
        (Self::OriginalUrl, "x-original-url"),
        (Self::OriginalHost, "x-original-host"),
        (Self::ForwardedFor, "x-forwarded-for"),
        (Self::Forwarded, "forwarded"),
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
        if !name.starts_with("x-") && name != "forwarded" {
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
    ) -> Result<Option<(&'a HeaderValue, &'a str)>, ReportError> {
        let mut found: Option<(&HeaderValue, &str)> = None;
        for field in fields {
            let Some(ForwardedValue { value, is_only }) = self.0[*field as usize] else { continue };
            let name = field.name();
            let text = field.text(value).ok_or(ReportError::Malformed(name))?;
            let is_same = found.is_none_or(|(_, known)| known == text);
            // If two values differ, the client may have sent one of them.
            if !is_only || !is_same {
                return Err(ReportError::Several(name));
            }
            found = found.or(Some((value, text)));
        }
        Ok(found)
    }

    fn scheme(&self) -> Result<UrlScheme, ReportError> {
        match self.agreed(&[ForwardedField::ForwardedProto])? {
            Some((_, text)) if !text.is_empty() => parse_scheme(text),
            _ => Ok(UrlScheme::Http),
        }
    }

    /// The client's address, as [`forwarded::client`] returns it.
    fn client(&self, headers: &HeaderMap, trusted: &[IpNet]) -> Result<IpAddr, ReportError> {
        let value = |field: ForwardedField| self.0[field as usize];
        let client = match (value(ForwardedField::ForwardedFor), value(ForwardedField::Forwarded)) {
            (Some(ForwardedValue { value, is_only: true }), None) => {
                forwarded::client_in_value(value, trusted)?
            }
            _ => forwarded::client(headers, trusted)?,
        };
        client.ok_or(ReportError::Missing("X-Forwarded-For"))
    }
}

/// The path of the original request, which Envoy appends to its `path_prefix`.
fn path_behind_envoy(parts: &Parts) -> &str {
    let path = parts.uri.path();
    let rest = path.strip_prefix(VERIFY).and_then(|rest| rest.strip_prefix("/envoy"));
    rest.filter(|rest| !rest.is_empty()).unwrap_or("/")
}

/// The scheme of the client's request, as the proxy reports it.
pub(in crate::server) fn scheme(headers: &HeaderMap) -> Result<UrlScheme, ReportError> {
    ForwardedFields::of(headers).scheme()
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
    fn read(path: &str, fields: &[(&str, &str)]) -> Result<String, ReportError> {
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
        for other in ["x-forwarded-fo", "x-forwarded-uri2", "forwarded2", "x-", ""] {
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
        for name in FIELDS.map(|(name, _)| name).into_iter().filter(|name| !name.ends_with("proto"))
        {
            let rest: Vec<_> = FIELDS.into_iter().filter(|(field, _)| *field != name).collect();
            assert!(
                matches!(read("/-/verify/caddy", &rest), Err(ReportError::Missing(_))),
                "{name}"
            );
        }
        let without_host: Vec<_> =
            FIELDS.into_iter().filter(|(field, _)| *field != "x-forwarded-host").collect();
        let empty = [without_host.as_slice(), &[("x-forwarded-host", "")]].concat();
        let missing = Err(ReportError::Missing("x-forwarded-host"));
        assert_eq!(read("/-/verify/caddy", &empty), missing);
        for (more, problem) in [
            (("x-forwarded-host", "other"), ReportError::Several("x-forwarded-host")),
            (("forwarded", "for=203.0.113.8"), ReportError::Several("forwarded")),
            (("forwarded", "for=unknown"), ReportError::Malformed("forwarded")),
            (("x-forwarded-uri", "/other"), ReportError::Several("x-forwarded-uri")),
            (("x-forwarded-method", "GET"), ReportError::Several("x-forwarded-method")),
            (("x-original-uri", "/other"), ReportError::Several("x-original-uri")),
            (("x-original-url", "http://other/"), ReportError::Several("x-original-url")),
            (("x-original-host", "other"), ReportError::Several("x-original-host")),
        ] {
            let fields = [FIELDS.as_slice(), &[more]].concat();
            assert_eq!(read("/-/verify", &fields), Err(problem));
        }
        // ingress-nginx sends the host in the target only. A client cannot add another.
        let ingress = [
            ("x-original-method", "GET"),
            ("x-original-url", "https://api.example/a"),
            ("x-forwarded-for", "203.0.113.7"),
        ];
        let mixed = [ingress.as_slice(), &[("x-forwarded-host", "pub.example")]].concat();
        let several = ReportError::Several("x-original-host");
        assert_eq!(read("/-/verify/nginx", &mixed), Err(several));
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
        assert_eq!(read("pub.example"), Err(ReportError::Several("x-original-host")));
        assert_eq!(read("api.example:80"), Err(ReportError::Several("x-original-host")));
    }
}
