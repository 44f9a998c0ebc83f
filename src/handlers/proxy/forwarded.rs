//! The header fields that tell an upstream about the client: address, scheme, host, port and
//! removed prefix. All of them say one thing: what was decided about. No such field of a client is
//! passed on.

use std::{fmt::Write as _, net::IpAddr};

use ::http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};

use crate::{
    handlers::{
        Hop, UrlScheme,
        identity::{has_similar_prefix, is_similar},
    },
    model::{ForwardedField, Proxy},
};

/// Fields in which programs tell, or look for, the client's address. Some applications believe them
/// more than `X-Forwarded-For`.
const ADDRESS_FIELDS: [&str; 34] = [
    "ali-cdn-real-ip",
    "cdn-src-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "client-ip",
    "do-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded-for",
    "forwarded-for-ip",
    "forward-for",
    "http-client-ip",
    "incap-client-ip",
    "proxy-client-ip",
    "remote-addr",
    "remote-ip",
    "true-client-ip",
    "wl-proxy-client-ip",
    "x-appengine-user-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded",
    "x-nf-client-connection-ip",
    "x-original-forwarded-for",
    "x-original-remote-addr",
    "x-originating-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-vercel-forwarded-for",
];

/// Fields in which programs tell the scheme of the client's request.
const SCHEME_FIELDS: [&str; 4] = ["front-end-https", "x-scheme", "x-url-scheme", "x-arr-ssl"];

/// Whether a client's field of this name would tell the upstream about the client.
pub(super) fn is_claim(name: &HeaderName) -> bool {
    let text = name.as_str();
    *name == FORWARDED
        || has_similar_prefix(text, "x-forwarded-")
        || ADDRESS_FIELDS.iter().chain(&SCHEME_FIELDS).any(|known| is_similar(text, known))
}

/// Writes the fields that the resource wants. `removed_prefix` is the prefix that Keyward removes
/// from the path.
pub(super) fn write(hop: &Hop<'_>, proxy: &Proxy, removed_prefix: &str, to: &mut HeaderMap) {
    for field in &proxy.forwarded {
        let value = match field {
            ForwardedField::For => HeaderValue::try_from(chain(hop)),
            ForwardedField::Proto => Ok(HeaderValue::from_static(hop.scheme.name())),
            ForwardedField::Host => HeaderValue::from_str(hop.host),
            ForwardedField::Port => Ok(port(hop).into()),
            ForwardedField::Prefix => match (hop.prefix.unwrap_or_default(), removed_prefix) {
                ("", "") => continue,
                (outer, inner) => HeaderValue::try_from(format!("{outer}{inner}")),
            },
            ForwardedField::RealIp => HeaderValue::try_from(hop.client.to_string()),
            ForwardedField::Forwarded => HeaderValue::try_from(elements(hop)),
        };
        // This cannot fail: addresses, hosts and normal paths have no bytes that a field cannot
        // contain.
        if let Ok(value) = value {
            to.insert(HeaderName::from_static(field.name()), value);
        }
    }
}

/// The client and the trusted proxies behind it: `203.0.113.7, 10.0.0.1`. Addresses before the
/// client are left out, because the client may have invented them.
fn chain(hop: &Hop<'_>) -> String {
    let mut text = hop.client.to_string();
    for proxy in hop.proxies {
        // Writing to a `String` cannot fail.
        let _ = write!(text, ", {proxy}");
    }
    text
}

/// The elements of `Forwarded` (RFC 7239) for the addresses of [`chain`]. The first one describes
/// the client's request.
fn elements(hop: &Hop<'_>) -> String {
    let mut text = String::with_capacity(64);
    let _ = add_node(&mut text, hop.client);
    // An authority needs no escaping, because it contains neither quotes nor backslashes.
    let _ = write!(text, ";host=\"{}\";proto={}", hop.host, hop.scheme.name());
    for proxy in hop.proxies {
        text.push_str(", ");
        let _ = add_node(&mut text, *proxy);
    }
    text
}

fn add_node(text: &mut String, address: IpAddr) -> std::fmt::Result {
    match address {
        IpAddr::V4(address) => write!(text, "for={address}"),
        IpAddr::V6(address) => write!(text, "for=\"[{address}]\""),
    }
}

/// The port to which the client sent its request: the one in the host, else the one that a proxy
/// reports, else the scheme's port.
fn port(hop: &Hop<'_>) -> u16 {
    let after_name = hop.host.rsplit(']').next().unwrap_or_default();
    let in_host = after_name.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    in_host.or(hop.port).unwrap_or(match hop.scheme {
        UrlScheme::Http => 80,
        UrlScheme::Https => 443,
    })
}
