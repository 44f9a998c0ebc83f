//! Settings of the `proxy` handler.

use std::{collections::BTreeSet, net::Ipv6Addr, ops::RangeInclusive};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde::{Deserialize, Serialize};

use super::{Handler, Resource};
use crate::model::Violation;

/// The maximum number of upstreams of one resource.
const MOST: usize = 64;
/// The maximum size of the authorities' certificates, in bytes: one or two fit. It keeps the record
/// small enough for the store.
const LONGEST_CA: usize = 4096;

/// Settings of the `proxy` handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// The upstreams: one URL such as `http://127.0.0.1:9000/base` or `https://api.internal`, or
    /// several equivalent ones.
    #[serde(default)]
    pub upstreams: Vec<String>,
    /// The protocol of the upstreams.
    #[serde(default)]
    pub protocol: Protocol,
    /// The trusted authorities of an https upstream, in PEM. `None` means the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The prefix that is removed from the path before the upstream's base is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<String>,
    /// Whether the upstream gets the client's `Host` instead of its own.
    #[serde(default)]
    pub preserve_host: bool,
    /// Whether the upstream gets the client's credential and `AUTH-METHOD`.
    #[serde(default)]
    pub keep_credential: bool,
    /// The protocols to which a connection may be upgraded, in lower case.
    #[serde(default = "websocket")]
    pub upgrades: BTreeSet<String>,
    /// The time limit for connecting, in seconds.
    #[serde(default = "connect_seconds")]
    pub connect_seconds: u32,
    /// The time limit from the last byte of the request to the first of the response, in seconds.
    #[serde(default = "response_seconds")]
    pub response_seconds: u32,
    /// The time for which a response or an upgraded connection may be idle, in seconds.
    #[serde(default = "idle_seconds")]
    pub idle_seconds: u32,
    /// The number of consecutive failures after which an upstream is ejected, if there are others.
    #[serde(default = "eject_after")]
    pub eject_after: u32,
    /// The time for which it is ejected, in seconds.
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
    /// The host; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as written.
    pub authority: String,
    /// The prefix of every path: empty, or beginning with a slash and without a trailing slash.
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
    /// What is the matter, as the rest of a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (transport, usual, rest) =
            match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
                (Some(rest), _) => (Transport::Clear, 80, rest),
                (_, Some(rest)) => (Transport::Tls, 443, rest),
                _ => return Err("it does not begin with http:// or https://"),
            };
        let (authority, base) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (host, port) = split(authority)?;
        let port = match port {
            Some(digits) => digits.parse().ok().filter(|port| *port != 0),
            None => Some(usual),
        };
        let port = port.ok_or("its port is not a number from 1 to 65535")?;
        if transport == Transport::Tls && ServerName::try_from(host).is_err() {
            return Err("its host is no name that a certificate can have");
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

/// Host and port of an authority. Userinfo is refused: it would be a secret in a field that is
/// shown.
fn split(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    let no_host = "it names no host";
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
    let form = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if authority.contains('@') {
        return Err("it names a user");
    }
    if host.is_empty() || host.len() > 253 || !host.bytes().all(form) {
        return Err(no_host);
    }
    Ok((host, port))
}

/// A base must be a normalised path, so that the request's path stays below it.
fn check_base(base: &str) -> Result<(), &'static str> {
    if base.len() > 1024 {
        return Err("its path is longer than 1,024 bytes");
    }
    if base.bytes().any(|b| !b.is_ascii_graphic() || b";%?#\\".contains(&b)) {
        return Err("its path holds a character that cannot stand in it");
    }
    if base.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("its path has an empty segment, or one of . and ..");
    }
    Ok(())
}

impl Resource {
    /// Checks that a proxy has an upstream.
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

    /// The prefix to strip must begin every path that the pattern matches.
    fn check_prefix(&self, proxy: &Proxy, found: &mut Vec<Violation>) {
        let Some(prefix) = &proxy.strip_prefix else { return };
        let path = self.path.as_deref().unwrap_or_default();
        let is_whole = prefix.starts_with('/') && !prefix.ends_with('/') && !prefix.contains('{');
        let rest = path.strip_prefix(prefix.as_str());
        if !is_whole || rest.is_none_or(|rest| !rest.is_empty() && !rest.starts_with('/')) {
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
        if self.upstreams.len() > MOST {
            found.push(Violation::new(
                "proxy.upstreams",
                format!("There are more than {MOST} upstreams."),
                "Put a balancer in front of them.",
            ));
        }
        for (at, upstream) in self.upstreams.iter().enumerate() {
            if let Err(problem) = Target::parse(upstream) {
                found.push(Violation::new(
                    format!("proxy.upstreams.{at}"),
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
            let message = format!("These cannot be the authorities' certificates: {problem}.");
            let fix = "Give certificates in PEM, from -----BEGIN CERTIFICATE----- on, and nothing else; leave it out for the public authorities.";
            found.push(Violation::new("proxy.ca", message, fix));
        }
    }

    /// The trusted authorities of an https upstream. `None` means the public ones.
    ///
    /// # Errors
    /// What is the matter, as the rest of a sentence.
    pub fn authorities(&self) -> Result<Option<RootCertStore>, &'static str> {
        let Some(text) = &self.ca else { return Ok(None) };
        if text.len() > LONGEST_CA {
            return Err("they have more than 4096 bytes");
        }
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let certificates = read.map_err(|_| "it is not PEM to its end")?;
        if certificates.is_empty() || certificates.len() != text.matches("-----BEGIN ").count() {
            return Err("it holds none, or something else");
        }
        let mut roots = RootCertStore::empty();
        for one in certificates {
            roots.add(one).map_err(|_| "one of them cannot be read")?;
        }
        Ok(Some(roots))
    }

    fn check_upgrades(&self, found: &mut Vec<Violation>) {
        for name in &self.upgrades {
            let form = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._/".contains(&b);
            // Through these a client could send more requests without any check.
            let is_http = ["h2c", "http", "tls"].iter().any(|one| {
                name.strip_prefix(one).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            if name.is_empty() || !name.bytes().all(form) || is_http {
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
