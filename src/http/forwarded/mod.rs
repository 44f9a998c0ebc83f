//! Reads what trusted proxies report about a client and its request: the address (`X-Forwarded-For`
//! or `Forwarded`), scheme, host, port and the removed prefix of the path. A report that cannot be
//! read, or that contradicts itself, is an error.

mod elements;

use std::net::{IpAddr, SocketAddr};

use ::http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use ipnet::IpNet;

use super::host;
use crate::handlers::UrlScheme;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The reason why a report is unusable. The text is for the person who has set up the proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReportError {
    #[cfg(feature = "server")]
    #[error("The proxy does not send {0}. Set this header in the proxy's configuration.")]
    Missing(&'static str),
    #[error("{0} came more than once, or contradicts another header.")]
    Several(&'static str),
    #[error("{0} cannot be read.")]
    Malformed(&'static str),
}

/// The client of a request, and the request that it sent, as the trusted proxies report them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report<'a> {
    pub client: IpAddr,
    /// The trusted proxies between the client and this server, the client's neighbor first.
    pub proxies: Vec<IpAddr>,
    /// `None` means that no proxy reports it. This is true for each of the following fields.
    pub scheme: Option<UrlScheme>,
    pub host: Option<&'a str>,
    pub port: Option<u16>,
    /// The prefix that the proxies removed from the path. It begins with a slash and does not end
    /// with one.
    pub prefix: Option<&'a str>,
}

impl<'a> Report<'a> {
    /// The report of a client without a trusted proxy: its header fields are not believed.
    pub fn without_proxy(peer: IpAddr) -> Self {
        let client = peer.to_canonical();
        Self { client, proxies: Vec::new(), scheme: None, host: None, port: None, prefix: None }
    }

    /// Reads the report of a peer that is a trusted proxy. Without a reported client, the proxy
    /// itself is the client.
    pub fn of_proxy(
        headers: &'a HeaderMap,
        peer: IpAddr,
        trusted: &[IpNet],
    ) -> Result<Self, ReportError> {
        let mut proxies = Vec::new();
        let listed = in_forwarded_for(headers, trusted, |proxy| proxies.push(proxy))?;
        let mut others = Vec::new();
        let described = in_forwarded(headers, trusted, |proxy| others.push(proxy))?;
        let client = agreed_client(listed, described.map(|(client, _)| client))?;
        if listed.is_none() {
            proxies = others;
        }
        // The proxies were found from the end of the chain. The last one is the peer.
        proxies.reverse();
        let mut report = Self::without_proxy(peer);
        if let Some(client) = client {
            proxies.push(report.client);
            (report.client, report.proxies) = (client, proxies);
        }
        let element = described.map(|(_, element)| element).unwrap_or_default();
        let scheme = equal(single(headers, &FORWARDED_PROTO)?, element.proto, "forwarded")?;
        report.scheme = scheme.map(parse_scheme).transpose()?;
        report.host = equal(single(headers, &FORWARDED_HOST)?, element.host, "forwarded")?;
        if report.host.is_some_and(|host| host::parse(host, UrlScheme::Http).is_err()) {
            return Err(ReportError::Malformed("x-forwarded-host"));
        }
        report.port = single(headers, &FORWARDED_PORT)?.map(parse_port).transpose()?;
        report.prefix = match single(headers, &FORWARDED_PREFIX)? {
            Some(text) => parse_prefix(text)?,
            None => None,
        };
        Ok(report)
    }
}

/// The client's address, as the trusted proxies report it: the last address of the chain that is
/// not a trusted proxy. The client may have written the addresses before that address. If all are
/// trusted, the client is the first one. `None` means that no proxy reports a client.
#[cfg(feature = "server")]
pub(crate) fn client(
    headers: &HeaderMap,
    trusted: &[IpNet],
) -> Result<Option<IpAddr>, ReportError> {
    let listed = in_forwarded_for(headers, trusted, |_| {})?;
    let described = in_forwarded(headers, trusted, |_| {})?;
    agreed_client(listed, described.map(|(client, _)| client))
}

/// The client in a single `X-Forwarded-For` field, for a request without `Forwarded`.
#[cfg(feature = "server")]
pub(crate) fn client_in_value(
    value: &HeaderValue,
    trusted: &[IpNet],
) -> Result<Option<IpAddr>, ReportError> {
    walk(addresses(std::iter::once(value)), trusted, |_| {})
}

/// Whether an address is in one of these networks.
pub(crate) fn is_among(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// Reads a scheme. `ws` and `wss` are what some proxies send for a request that is to be upgraded
/// to a WebSocket.
pub(crate) fn parse_scheme(text: &str) -> Result<UrlScheme, ReportError> {
    let is = |name: &str| text.eq_ignore_ascii_case(name);
    if is("https") || is("wss") {
        Ok(UrlScheme::Https)
    } else if is("http") || is("ws") {
        Ok(UrlScheme::Http)
    } else {
        Err(ReportError::Malformed("x-forwarded-proto"))
    }
}

/// The client that both fields report. If they differ, the client has written one of them, because
/// the proxy only knows the other.
fn agreed_client(
    listed: Option<IpAddr>,
    described: Option<IpAddr>,
) -> Result<Option<IpAddr>, ReportError> {
    match (listed, described) {
        (Some(one), Some(other)) if one != other => Err(ReportError::Several("forwarded")),
        _ => Ok(listed.or(described)),
    }
}

fn in_forwarded_for(
    headers: &HeaderMap,
    trusted: &[IpNet],
    on_proxy: impl FnMut(IpAddr),
) -> Result<Option<IpAddr>, ReportError> {
    walk(addresses(headers.get_all(&FORWARDED_FOR).iter().rev()), trusted, on_proxy)
}

/// The addresses in `X-Forwarded-For`, from the last to the first. `values` begins with the last
/// field.
fn addresses<'a>(
    values: impl Iterator<Item = &'a HeaderValue>,
) -> impl Iterator<Item = Result<IpAddr, ReportError>> {
    const MALFORMED: ReportError = ReportError::Malformed("x-forwarded-for");
    values.flat_map(|value| {
        let text = value.to_str().map_err(|_| MALFORMED);
        let (elements, unreadable) = match text {
            Ok(text) => (Some(text.rsplit(',')), None),
            Err(problem) => (None, Some(Err(problem))),
        };
        let parsed = elements.into_iter().flatten();
        parsed.map(|element| parse_address(element.trim()).ok_or(MALFORMED)).chain(unreadable)
    })
}

/// The client in `Forwarded`, with the element that names it. A trusted proxy wrote that element.
fn in_forwarded<'a>(
    headers: &'a HeaderMap,
    trusted: &[IpNet],
    on_proxy: impl FnMut(IpAddr),
) -> Result<Option<(IpAddr, elements::Element<'a>)>, ReportError> {
    const MALFORMED: ReportError = ReportError::Malformed("forwarded");
    if !headers.contains_key(FORWARDED) {
        return Ok(None);
    }
    let mut last = elements::Element::default();
    let all = headers.get_all(FORWARDED).iter().rev().flat_map(|value| {
        let parsed = value.to_str().ok().and_then(elements::parse);
        let is_malformed = parsed.is_none();
        let elements = parsed.into_iter().flatten().rev().map(Some);
        elements.chain(is_malformed.then_some(None))
    });
    let addresses = all.map(|element| {
        last = element.ok_or(MALFORMED)?;
        last.node.and_then(parse_address).ok_or(MALFORMED)
    });
    let client = walk(addresses, trusted, on_proxy)?;
    Ok(client.map(|client| (client, last)))
}

/// Follows a chain of addresses from its end to the first address that is not a trusted proxy, and
/// returns this address. `on_proxy` gets the addresses after it.
fn walk(
    addresses: impl Iterator<Item = Result<IpAddr, ReportError>>,
    trusted: &[IpNet],
    mut on_proxy: impl FnMut(IpAddr),
) -> Result<Option<IpAddr>, ReportError> {
    let mut client = None;
    for address in addresses {
        let address = address?;
        if let Some(proxy) = client.replace(address) {
            on_proxy(proxy);
        }
        if !is_among(trusted, address) {
            break;
        }
    }
    Ok(client)
}

/// Parses an address. Some proxies append a port or put the address in quotes.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok();
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

fn parse_port(text: &str) -> Result<u16, ReportError> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
        .ok_or(ReportError::Malformed("x-forwarded-port"))
}

/// Reads a prefix, without the slash at its end. An application puts the prefix before paths in its
/// responses, so it must not lead to another host.
fn parse_prefix(text: &str) -> Result<Option<&str>, ReportError> {
    const MALFORMED: ReportError = ReportError::Malformed("x-forwarded-prefix");
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+=:@%".contains(&b);
    let is_segment =
        |segment: &str| !["", ".", ".."].contains(&segment) && segment.bytes().all(is_allowed);
    let prefix = text.strip_suffix('/').unwrap_or(text);
    match prefix.strip_prefix('/') {
        Some(rest) if rest.split('/').all(is_segment) => Ok(Some(prefix)),
        None if text == "/" => Ok(None),
        _ => Err(MALFORMED),
    }
}

/// The value of a field that has one meaning, however often it is repeated. `None` means that the
/// field is missing or empty.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ReportError> {
    let mut found = None;
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| ReportError::Malformed(known_name(name)))?;
        for element in text.split(',').map(str::trim).filter(|element| !element.is_empty()) {
            found = equal(found, Some(element), known_name(name))?;
        }
    }
    Ok(found)
}

/// The value that two sources report. `name` is the field to blame if they differ.
fn equal<'a>(
    one: Option<&'a str>,
    other: Option<&'a str>,
    name: &'static str,
) -> Result<Option<&'a str>, ReportError> {
    match (one, other) {
        (Some(one), Some(other)) if !one.eq_ignore_ascii_case(other) => {
            Err(ReportError::Several(name))
        }
        _ => Ok(one.or(other)),
    }
}

fn known_name(name: &HeaderName) -> &'static str {
    let known = ["x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix"];
    known.into_iter().find(|known| name == known).unwrap_or("x-forwarded-*")
}

#[cfg(test)]
#[cfg(feature = "server")]
mod tests;
