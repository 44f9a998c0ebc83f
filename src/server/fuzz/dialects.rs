//! The dialects of the verify listener: with any fields of a client beside the proxy's own fields,
//! the question is the proxy's, or there is none.

use ::http::{HeaderMap, HeaderName, HeaderValue, Request, request::Parts};
use ipnet::IpNet;

use crate::server::verify::dialects::Dialect;

/// The endpoints, each with the fields that its proxy sets in place of the client's fields.
const ENDPOINTS: [(&str, [(&str, &str); 5]); 5] = [
    ("/-/verify", FORWARDED),
    ("/-/verify/caddy", FORWARDED),
    ("/-/verify/traefik", FORWARDED),
    ("/-/verify/haproxy", FORWARDED),
    (
        "/-/verify/nginx",
        [
            ("x-original-method", "POST"),
            ("x-forwarded-proto", "https"),
            ("x-original-host", "api.example:8443"),
            ("x-original-uri", "/a/b?c=/d?"),
            ("x-forwarded-for", "203.0.113.7"),
        ],
    ),
];
const FORWARDED: [(&str, &str); 5] = [
    ("x-forwarded-method", "POST"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "api.example:8443"),
    ("x-forwarded-uri", "/a/b?c=/d?"),
    ("x-forwarded-for", "203.0.113.7"),
];

/// Checks one dialect. The first byte chooses the dialect, the rest are the client's fields, one a
/// line; for Envoy, the first line is the client's target.
///
/// # Panics
/// The client's fields changed the question.
pub fn dialects(data: &[u8]) {
    let Some((&choice, text)) = data.split_first() else { return };
    let Some((path, own)) = ENDPOINTS.get(usize::from(choice) % (ENDPOINTS.len() + 1)) else {
        return envoy(text);
    };
    let mut headers = fields(text);
    for (name, value) in own {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    let expected = "POST https api.example:8443 /a/b Some(\"c=/d?\") 203.0.113.7";
    let parts = parts_of(path, headers).expect("the endpoint is a path");
    if let Some(read) = read(&parts) {
        assert_eq!(read, expected);
    }
    // Without the proxy's fields, any reading is one that repeats.
    let parts = parts_of(path, fields(text)).expect("the endpoint is a path");
    assert_eq!(read(&parts), read(&parts));
}

/// Envoy asks with the client's method and host, and with the client's target behind the endpoint.
fn envoy(text: &[u8]) {
    let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
    let Ok(target) = std::str::from_utf8(&text[..end]) else { return };
    if target.contains('#') {
        // The listener rejects a fragment.
        return;
    }
    let mut headers = fields(&text[end..]);
    headers.insert("host", HeaderValue::from_static("api.example"));
    headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.7"));
    let Some(parts) = parts_of(&format!("/-/verify/envoy{target}"), headers) else { return };
    let Some(found) = Dialect::of_path(parts.uri.path()) else { return };
    if !target.starts_with(['/', '?']) && !target.is_empty() {
        assert_ne!(found, Dialect::Envoy, "{target:?}");
        return;
    }
    assert_eq!(found, Dialect::Envoy, "{target:?}");
    if let Ok(original) = found.read(&parts, &trusted()) {
        assert_eq!(original.host.authority(), "api.example");
        assert_eq!(original.client.to_string(), "203.0.113.7");
        let path = target.split('?').next().unwrap_or_default();
        assert_eq!(original.path, if path.is_empty() { "/" } else { path });
    }
}

fn read(parts: &Parts) -> Option<String> {
    let dialect = Dialect::of_path(parts.uri.path()).expect("the endpoint is a dialect");
    let original = dialect.read(parts, &trusted()).ok()?;
    assert!(original.path.starts_with('/') && !original.path.contains(['?', '#']));
    let (scheme, host) = (original.scheme.name(), original.host.authority());
    let (path, query) = (original.path, original.query);
    Some(format!("{} {scheme} {host} {path} {query:?} {}", original.method, original.client))
}

fn trusted() -> Vec<IpNet> {
    vec!["127.0.0.0/8".parse().expect("a network"), "10.0.0.0/8".parse().expect("a network")]
}

fn parts_of(target: &str, headers: HeaderMap) -> Option<Parts> {
    let mut request = Request::get(target).body(()).ok()?;
    *request.headers_mut() = headers;
    Some(request.into_parts().0)
}

/// The header fields in a text: one a line, up to the first colon the name.
fn fields(text: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}
