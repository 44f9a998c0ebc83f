//! What a proxy in front says of the request that it asks about. Each proxy says it in its own way; what cannot be read in one way alone is refused.

use std::net::{IpAddr, SocketAddr};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, request::Parts, uri::PathAndQuery};
use ipnet::IpNet;

use crate::{
    handlers::Scheme,
    http::host::{self, Host},
};

/// Where proxies ask.
const VERIFY: &str = "/-/verify";

/// The way in which a proxy asks, and in which it wants to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Dialect {
    /// Any proxy: `X-Forwarded-*` or `X-Original-*`.
    Plain,
    /// `auth_request`: what the operator has it send, and ingress-nginx's `X-Original-URL`.
    Nginx,
    /// `forward_auth`: `X-Forwarded-*`.
    Caddy,
    /// ForwardAuth: `X-Forwarded-*`.
    Traefik,
    /// `ext_authz` over HTTP: method, path and host as they are, behind the dialect's own path.
    Envoy,
    /// The shipped Lua action: `X-Forwarded-*`.
    Haproxy,
}

/// The request that is asked about.
#[derive(Debug)]
pub(in crate::server) struct Original<'a> {
    pub method: Method,
    pub scheme: Scheme,
    pub host: Host<'a>,
    /// The path, as the client sent it.
    pub path: &'a str,
    pub query: Option<&'a str>,
    /// The field that held path and query, and nothing else.
    pub said: Option<&'a HeaderValue>,
    /// Where it comes from, as far as proxies are believed.
    pub client: IpAddr,
}

/// Why the request that is asked about cannot be read. The text is for the person who has set the proxy up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::server) enum Unread {
    #[error("The proxy does not send {0}. Have it set in the proxy's configuration.")]
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

    /// The dialect that a path is for. It is read as it came: what Envoy puts behind it is the client's, and `..` in it must lead nowhere.
    pub fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(VERIFY)?;
        if rest.is_empty() {
            return Some(Self::Plain);
        }
        Self::ALL.into_iter().find_map(|(dialect, name)| {
            let behind = rest.strip_prefix(name)?;
            let is_path = dialect == Self::Envoy && behind.starts_with('/');
            (behind.is_empty() || is_path).then_some(dialect)
        })
    }

    /// The fields that can hold the method, the target and the host.
    fn fields(self) -> [&'static [Field]; 3] {
        use Field::{
            ForwardedHost, ForwardedMethod, ForwardedUri, OriginalHost, OriginalMethod,
            OriginalUri, OriginalUrl,
        };
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

    /// Reads the request that is asked about. The caller has made sure that the proxy is to be believed.
    pub fn read<'a>(self, asked: &'a Parts, trusted: &[IpNet]) -> Result<Original<'a>, Unread> {
        let said = Said::of(&asked.headers);
        let [methods, targets, hosts] = self.fields();
        let client = said.client(&asked.headers, trusted)?;
        let method = match methods.first() {
            None => asked.method.clone(),
            Some(first) => {
                let name = first.name();
                let (_, text) = said.one_of(methods)?.ok_or(Unread::Missing(name))?;
                Method::from_bytes(text.as_bytes()).map_err(|_| Unread::Malformed(name))?
            }
        };
        let (value, target) = match targets.first() {
            None => {
                let (path, query) = (behind_envoy(asked), asked.uri.query());
                (None, Target { path, query, ..Target::EMPTY })
            }
            Some(first) => {
                let name = first.name();
                let (value, text) = said.one_of(targets)?.ok_or(Unread::Missing(name))?;
                (Some(value), Target::read(text).ok_or(Unread::Malformed(name))?)
            }
        };
        let named = said.one_of(hosts)?.map(|(_, text)| text);
        let host = match named.or(target.authority) {
            Some(authority) => {
                host::read(authority).map_err(|_| Unread::Malformed("x-forwarded-host"))?
            }
            None => host::of(asked).map_err(|_| Unread::Malformed("host"))?,
        };
        let scheme = match target.scheme {
            Some(scheme) => scheme,
            None => said.scheme()?,
        };
        let said = value.filter(|_| target.authority.is_none());
        Ok(Original { method, scheme, host, path: target.path, query: target.query, said, client })
    }
}

/// A header field in which a proxy says something of the request that it asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
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

impl Field {
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

    fn of(name: &str) -> Option<Self> {
        // Most fields are none of these.
        if !name.starts_with("x-") {
            return None;
        }
        Self::ALL.into_iter().find(|(_, one)| *one == name).map(|(field, _)| field)
    }
}

/// What the fields say, found in one walk over all of them.
struct Said<'a>([Option<Value<'a>>; Field::ALL.len()]);

#[derive(Clone, Copy)]
struct Value<'a> {
    value: &'a HeaderValue,
    /// Whether it came once.
    is_alone: bool,
}

impl<'a> Said<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut said = Self([None; Field::ALL.len()]);
        for (name, value) in headers {
            let Some(field) = Field::of(name.as_str()) else { continue };
            let slot = &mut said.0[field as usize];
            *slot = match slot {
                None => Some(Value { value, is_alone: true }),
                Some(first) => Some(Value { is_alone: false, ..*first }),
            };
        }
        said
    }

    /// The value that all of these fields agree on which are there, and its text.
    fn one_of(&self, fields: &[Field]) -> Result<Option<(&'a HeaderValue, &'a str)>, Unread> {
        let mut found: Option<(&HeaderValue, &str)> = None;
        for field in fields {
            let Some(Value { value, is_alone }) = self.0[*field as usize] else { continue };
            let name = field.name();
            let text = value.to_str().map_err(|_| Unread::Malformed(name))?;
            let is_same = found.is_none_or(|(_, known)| known == text);
            // One of the two may be the client's.
            if !is_alone || !is_same {
                return Err(Unread::Several(name));
            }
            found = found.or(Some((value, text)));
        }
        Ok(found)
    }

    fn scheme(&self) -> Result<Scheme, Unread> {
        Ok(match self.one_of(&[Field::ForwardedProto])? {
            // Traefik names the protocol that a connection is to be upgraded to.
            Some((_, "https" | "wss")) => Scheme::Https,
            _ => Scheme::Http,
        })
    }

    /// [`client`], which is looked for in all fields of that name.
    fn client(&self, headers: &HeaderMap, trusted: &[IpNet]) -> Result<IpAddr, Unread> {
        match self.0[Field::ForwardedFor as usize] {
            Some(Value { value, is_alone: true }) => client_in(std::iter::once(value), trusted),
            _ => client(headers, trusted),
        }
    }
}

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What a target says.
#[derive(Clone, Copy)]
pub(in crate::server) struct Target<'a> {
    scheme: Option<Scheme>,
    authority: Option<&'a str>,
    pub path: &'a str,
    pub query: Option<&'a str>,
}

impl<'a> Target<'a> {
    const EMPTY: Self = Self { scheme: None, authority: None, path: "/", query: None };

    /// Reads `/path?query`, or the same behind scheme and authority.
    pub fn read(text: &'a str) -> Option<Self> {
        let (scheme, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (Some(Scheme::Http), rest),
            (_, Some(rest)) => (Some(Scheme::Https), rest),
            _ => (None, text),
        };
        let (authority, rest) = match scheme {
            Some(_) => {
                let (authority, rest) = rest.split_at(rest.find('/')?);
                (Some(authority), rest)
            }
            None => (None, rest),
        };
        if !rest.starts_with('/') || !is_plain(rest) && !is_target(rest) {
            return None;
        }
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        Some(Self { scheme, authority, path, query })
    }
}

/// Whether a target holds nothing that any reader could stumble over, as almost all do.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~?=&%+".contains(&b))
}

/// The same reader as for requests of our own. What it would leave out, a fragment, is refused: the proxy may pass it on.
fn is_target(text: &str) -> bool {
    text.parse::<PathAndQuery>().is_ok_and(|read| read.as_str() == text)
}

/// What Envoy puts behind its `path_prefix`.
fn behind_envoy(asked: &Parts) -> &str {
    let path = asked.uri.path();
    let rest = path.strip_prefix(VERIFY).and_then(|rest| rest.strip_prefix("/envoy"));
    rest.filter(|rest| !rest.is_empty()).unwrap_or("/")
}

/// The scheme that a proxy says the client has used.
pub(in crate::server) fn scheme(headers: &HeaderMap) -> Result<Scheme, Unread> {
    Said::of(headers).scheme()
}

/// The client's address: the last one in the chain that is not a proxy's. What stands before it, a client may have written.
pub(in crate::server) fn client(headers: &HeaderMap, trusted: &[IpNet]) -> Result<IpAddr, Unread> {
    client_in(headers.get_all(&FORWARDED_FOR).iter().rev(), trusted)
}

/// The same in these values, the last one first.
fn client_in<'a>(
    values: impl Iterator<Item = &'a HeaderValue>,
    trusted: &[IpNet],
) -> Result<IpAddr, Unread> {
    let malformed = Unread::Malformed("x-forwarded-for");
    let mut nearest = None;
    for value in values {
        let text = value.to_str().map_err(|_| malformed.clone())?;
        for element in text.rsplit(',') {
            let address = address(element.trim()).ok_or(malformed.clone())?;
            if !is_among(trusted, address) {
                return Ok(address);
            }
            nearest = Some(address);
        }
    }
    nearest.ok_or(Unread::Missing("X-Forwarded-For"))
}

/// An address, which some proxies write with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let read = bare.parse().ok();
    let address = read.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

/// Whether an address is in one of these networks.
pub(in crate::server) fn is_among(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod unit {
    use super::*;

    fn asked(path: &str, fields: &[(&str, &str)]) -> Parts {
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

    /// What is read, in one line.
    fn read(path: &str, fields: &[(&str, &str)]) -> Result<String, Unread> {
        let asked = asked(path, fields);
        let dialect = Dialect::of(asked.uri.path()).unwrap();
        let original = dialect.read(&asked, &networks())?;
        let Original { method, scheme, host, path, query, client, .. } = original;
        Ok(format!("{method} {}://{} {path} {query:?} {client}", scheme.name(), host.authority()))
    }

    const FIELDS: [(&str, &str); 5] = [
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "API.example:8443"),
        ("x-forwarded-uri", "/a/../b?c=/d?"),
        ("x-forwarded-for", "203.0.113.7"),
    ];
    const READ: &str = "POST https://API.example:8443 /a/../b Some(\"c=/d?\") 203.0.113.7";

    #[test]
    fn each_proxy_is_read_in_its_own_way() {
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
    fn each_field_stands_in_its_place() {
        for (at, (field, name)) in Field::ALL.into_iter().enumerate() {
            assert_eq!((field as usize, Field::of(name)), (at, Some(field)), "{name}");
        }
        for other in ["x-forwarded-fo", "x-forwarded-uri2", "forwarded", "x-", ""] {
            assert_eq!(Field::of(other), None, "{other}");
        }
    }

    #[test]
    fn only_whole_names_are_dialects() {
        for no in [
            "/-/verify/",
            "/-/verifyx",
            "/-/verify/nginx/x",
            "/-/verify/envoyx",
            "/-/",
            "/",
            "/x/-/verify",
        ] {
            assert_eq!(Dialect::of(no), None, "{no}");
        }
        assert_eq!(Dialect::of("/-/verify/envoy"), Some(Dialect::Envoy));
    }

    #[test]
    fn what_is_missing_doubled_or_contradicts_itself_is_refused() {
        for name in ["x-forwarded-method", "x-forwarded-uri", "x-forwarded-for"] {
            let rest: Vec<_> = FIELDS.into_iter().filter(|(one, _)| *one != name).collect();
            assert!(matches!(read("/-/verify/caddy", &rest), Err(Unread::Missing(_))), "{name}");
        }
        for (more, problem) in [
            (("x-forwarded-uri", "/other"), Unread::Several("x-forwarded-uri")),
            (("x-forwarded-method", "GET"), Unread::Several("x-forwarded-method")),
            (("x-original-uri", "/other"), Unread::Several("x-original-uri")),
            (("x-original-url", "http://other/"), Unread::Several("x-original-url")),
            (("x-original-host", "other"), Unread::Several("x-original-host")),
        ] {
            let fields = [FIELDS.as_slice(), &[more]].concat();
            assert_eq!(read("/-/verify", &fields), Err(problem));
        }
    }

    #[test]
    fn targets_that_are_none_are_refused() {
        for bad in ["", "a", "*", "/a#b", "http://", "http://a", "/a b", "//\u{7f}"] {
            assert!(Target::read(bad).is_none(), "{bad}");
        }
        for good in ["/", "//a", "/a?b?c", "http://a/b", "/?", "/%2e"] {
            assert!(Target::read(good).is_some(), "{good}");
        }
    }

    #[test]
    fn the_client_is_the_last_that_is_no_proxy() {
        let client = |chain: &[&str]| {
            let fields: Vec<_> = chain.iter().map(|value| ("x-forwarded-for", *value)).collect();
            client(&asked("/", &fields).headers, &networks()).map(|one| one.to_string())
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
            assert_eq!(client(&[bad]), Err(Unread::Malformed("x-forwarded-for")), "{bad}");
        }
    }
}
