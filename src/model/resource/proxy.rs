//! Settings of the `proxy` handler.

use std::{collections::BTreeSet, net::Ipv6Addr, ops::RangeInclusive};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde::{Deserialize, Serialize};

use super::{
    Handler, Resource,
    forwarded::{self, ForwardedField},
};
use crate::model::Violation;

/// The maximum number of upstreams of one resource.
const MAX_UPSTREAMS: usize = 64;
/// The maximum size of [`Proxy::ca`], in bytes. A text of this size can contain one or two
/// certificates, and the record is small enough for the store.
const MAX_CA_BYTES: usize = 4096;

/// Settings of the `proxy` handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// The URLs of the upstreams, such as `http://127.0.0.1:9000/base` or `https://api.internal`.
    /// Any of the upstreams can get a request.
    #[serde(default)]
    pub upstreams: Vec<String>,
    /// The protocol of the upstreams.
    #[serde(default)]
    pub protocol: Protocol,
    /// The authorities that may sign the certificate of an https upstream, in PEM. `None` means the
    /// public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The prefix that is removed from the path before the upstream's base is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<String>,
    /// Whether the upstream gets the `Host` that the client sent, instead of the host in the
    /// upstream's URL.
    #[serde(default)]
    pub preserve_host: bool,
    /// Whether the upstream gets the client's credential and `AUTH-METHOD`.
    #[serde(default)]
    pub keep_credential: bool,
    /// The protocols to which a connection may be upgraded, in lower case.
    #[serde(default = "websocket")]
    pub upgrades: BTreeSet<String>,
    /// The header fields in which the upstream is told about the client. The client's own fields of
    /// these names are never passed on.
    #[serde(default = "forwarded::all", skip_serializing_if = "forwarded::is_all")]
    pub forwarded: BTreeSet<ForwardedField>,
    /// The time limit for connecting, in seconds.
    #[serde(default = "connect_seconds")]
    pub connect_seconds: u32,
    /// The time limit from the last byte of the request to the first byte of the response, in
    /// seconds.
    #[serde(default = "response_seconds")]
    pub response_seconds: u32,
    /// The maximum time without a byte of a response or of an upgraded connection, in seconds.
    #[serde(default = "idle_seconds")]
    pub idle_seconds: u32,
    /// The number of consecutive failures after which an upstream is ejected. An ejected upstream
    /// gets no requests for [`Proxy::eject_seconds`]. The only upstream of a resource is never
    /// ejected.
    #[serde(default = "eject_after")]
    pub eject_after: u32,
    /// The time for which an upstream stays ejected, in seconds.
    #[serde(default = "eject_seconds")]
    pub eject_seconds: u32,
}

/// The protocol of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: negotiated over TLS (ALPN), or with prior knowledge in clear text (RFC 9113, section
    /// 3.3).
    Http2,
}

/// Whether the connection to an upstream is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Clear text: `http`.
    Clear,
    /// TLS: `https`.
    Tls,
}

impl Transport {
    /// The name in URLs.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Clear => "http",
            Self::Tls => "https",
        }
    }
}

/// The parsed URL of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The transport.
    pub transport: Transport,
    /// The host. An IPv6 address has no brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The host and the port, as they are written in the URL.
    pub authority: String,
    /// The prefix of every path: empty, or a text that begins with a slash and does not end with a
    /// slash.
    pub base: String,
}

fn websocket() -> BTreeSet<String> {
    ["websocket".to_owned()].into()
}

fn connect_seconds() -> u32 {
    5
}

fn response_seconds() -> u32 {
    60
}

fn idle_seconds() -> u32 {
    300
}

fn eject_after() -> u32 {
    3
}

fn eject_seconds() -> u32 {
    10
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            protocol: Protocol::default(),
            ca: None,
            strip_prefix: None,
            preserve_host: false,
            keep_credential: false,
            upgrades: websocket(),
            forwarded: forwarded::all(),
            connect_seconds: connect_seconds(),
            response_seconds: response_seconds(),
            idle_seconds: idle_seconds(),
            eject_after: eject_after(),
            eject_seconds: eject_seconds(),
        }
    }
}

impl Target {
    /// Parses `http://host:port/base` or `https://host:port/base`. Port and base are optional.
    ///
    /// # Errors
    /// The reason why the URL is invalid, as the second half of a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (transport, default_port, rest) =
            match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
                (Some(rest), _) => (Transport::Clear, 80, rest),
                (_, Some(rest)) => (Transport::Tls, 443, rest),
                _ => return Err("it does not begin with http:// or https://"),
            };
        let (authority, base) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (host, port) = split_authority(authority)?;
        let port = match port {
            Some(digits) => digits.parse().ok().filter(|port| *port != 0),
            None => Some(default_port),
        };
        let port = port.ok_or("its port is not a number from 1 to 65535")?;
        if transport == Transport::Tls && ServerName::try_from(host).is_err() {
            return Err("its host is not a name for which a certificate can be issued");
        }
        let base = base.trim_end_matches('/');
        check_base(base)?;
        Ok(Self {
            transport,
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            base: base.to_owned(),
        })
    }
}

/// Splits an authority into host and port. Userinfo is refused, because it can contain a password,
/// and everybody who may see the record sees this field.
fn split_authority(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    let no_host = "it has no valid host";
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(no_host)?;
        host.parse::<Ipv6Addr>().map_err(|_| no_host)?;
        return match port.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if port.is_empty() => Ok((host, None)),
            None => Err(no_host),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if authority.contains('@') {
        return Err("it contains the name of a user");
    }
    if host.is_empty() || host.len() > 253 || !host.bytes().all(is_allowed) {
        return Err(no_host);
    }
    Ok((host, port))
}

/// Checks that a base is a normalised path, so that the path of a request stays below the base.
fn check_base(base: &str) -> Result<(), &'static str> {
    if base.len() > 1024 {
        return Err("its path is longer than 1,024 bytes");
    }
    if base.bytes().any(|b| !b.is_ascii_graphic() || b";%?#\\".contains(&b)) {
        return Err("its path contains a character that is not allowed there");
    }
    if base.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("its path has an empty segment, or a segment . or ..");
    }
    Ok(())
}

impl Resource {
    /// Whether the handler has all the settings that it needs: a proxy needs an upstream.
    pub(super) fn is_complete(&self) -> bool {
        self.handler != Handler::Proxy
            || self.proxy.as_ref().is_some_and(|proxy| !proxy.upstreams.is_empty())
    }

    pub(super) fn check_proxy(&self, found: &mut Vec<Violation>) {
        match (&self.proxy, &self.handler) {
            (None, Handler::Proxy) => found.push(no_upstream()),
            (None, _) => {}
            (Some(proxy), handler) => {
                if *handler != Handler::Proxy {
                    found.push(Violation::new(
                        "proxy",
                        "Only the handler proxy has upstreams.",
                        "Leave proxy out, or set the handler to proxy.",
                    ));
                }
                proxy.check_upstreams(found);
                proxy.check_ca(found);
                proxy.check_upgrades(found);
                proxy.check_numbers(found);
                self.check_prefix(proxy, found);
            }
        }
    }

    /// Whether the upstream gets the client's credential.
    pub fn keeps_credential(&self) -> bool {
        self.proxy.as_ref().is_some_and(|proxy| proxy.keep_credential)
    }

    /// Checks that every path that the pattern matches begins with the prefix to strip.
    fn check_prefix(&self, proxy: &Proxy, found: &mut Vec<Violation>) {
        let Some(prefix) = &proxy.strip_prefix else { return };
        let path = self.path.as_deref().unwrap_or_default();
        let is_valid = prefix.starts_with('/') && !prefix.ends_with('/') && !prefix.contains('{');
        let rest = path.strip_prefix(prefix.as_str());
        if !is_valid || rest.is_none_or(|rest| !rest.is_empty() && !rest.starts_with('/')) {
            found.push(Violation::new(
                "proxy.strip_prefix",
                format!("The path {path:?} does not begin with {prefix:?}."),
                "Give whole segments from the path's beginning, such as /api for the path /api/{*rest}.",
            ));
        }
    }
}

fn no_upstream() -> Violation {
    Violation::new(
        "proxy.upstreams",
        "The handler proxy needs an upstream.",
        "Give an address such as http://127.0.0.1:9000.",
    )
}

impl Proxy {
    fn check_upstreams(&self, found: &mut Vec<Violation>) {
        if self.upstreams.is_empty() {
            found.push(no_upstream());
        }
        if self.upstreams.len() > MAX_UPSTREAMS {
            found.push(Violation::new(
                "proxy.upstreams",
                format!("There are more than {MAX_UPSTREAMS} upstreams."),
                "Put a load balancer in front of the upstreams.",
            ));
        }
        for (index, upstream) in self.upstreams.iter().enumerate() {
            if let Err(problem) = Target::parse(upstream) {
                found.push(Violation::new(
                    format!("proxy.upstreams.{index}"),
                    // The URL may contain a password, so it is not shown.
                    format!("This cannot be an upstream: {problem}."),
                    "Give an address such as http://127.0.0.1:9000 or https://api.internal:8443/v1.",
                ));
            }
        }
    }

    fn check_ca(&self, found: &mut Vec<Violation>) {
        if let Err(problem) = self.authorities() {
            // The text may contain a private key, so it is not shown.
            let message = format!("The certificates of the authorities are invalid: {problem}.");
            let fix = "Give certificates in PEM, which begin with -----BEGIN CERTIFICATE-----, and nothing else. To trust the public authorities, leave ca out.";
            found.push(Violation::new("proxy.ca", message, fix));
        }
    }

    /// The authorities that may sign the certificate of an https upstream. `None` means the public
    /// authorities.
    ///
    /// # Errors
    /// The reason why [`Proxy::ca`] is invalid, as the second half of a sentence.
    pub fn authorities(&self) -> Result<Option<RootCertStore>, &'static str> {
        let Some(text) = &self.ca else { return Ok(None) };
        if text.len() > MAX_CA_BYTES {
            return Err("the text has more than 4096 bytes");
        }
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let certificates = read.map_err(|_| "the text is not complete PEM")?;
        if certificates.is_empty() || certificates.len() != text.matches("-----BEGIN ").count() {
            return Err("the text contains no certificate, or something that is not a certificate");
        }
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(|_| "one of the certificates cannot be parsed")?;
        }
        Ok(Some(roots))
    }

    fn check_upgrades(&self, found: &mut Vec<Violation>) {
        for name in &self.upgrades {
            let is_allowed =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._/".contains(&b);
            // After an upgrade to one of these protocols, a client could send requests that Keyward
            // does not check.
            let is_http = ["h2c", "http", "tls"].iter().any(|http_name| {
                name.strip_prefix(http_name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            if name.is_empty() || !name.bytes().all(is_allowed) || is_http {
                found.push(Violation::new(
                    "proxy.upgrades",
                    format!("{name:?} is not a protocol that a connection can be upgraded to."),
                    "Use websocket, or another protocol in lower case that carries no HTTP.",
                ));
            }
        }
    }

    fn check_numbers(&self, found: &mut Vec<Violation>) {
        let mut within = |name: &str, number: u32, allowed: RangeInclusive<u32>| {
            if !allowed.contains(&number) {
                found.push(Violation::new(
                    format!("proxy.{name}"),
                    format!("{number} is out of range."),
                    format!("Use a whole number from {} to {}.", allowed.start(), allowed.end()),
                ));
            }
        };
        within("connect_seconds", self.connect_seconds, 1..=300);
        within("response_seconds", self.response_seconds, 1..=86_400);
        within("idle_seconds", self.idle_seconds, 1..=86_400);
        within("eject_after", self.eject_after, 1..=1000);
        within("eject_seconds", self.eject_seconds, 1..=3600);
    }
}
