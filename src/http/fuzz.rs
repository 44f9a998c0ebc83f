//! Checks of hosts, paths and reports of proxies with any input, for the fuzz targets.

use std::net::IpAddr;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::{
    forwarded::{self, Report},
    host, path,
};
use crate::{handlers::UrlScheme, model::normal_host};

/// Checks an authority.
///
/// # Panics
/// An accepted host has two spellings, or a URL parser reads another host or port.
pub fn host(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(found) = host::parse(text, UrlScheme::Http) else { return };
    let again = host::parse(found.authority(), UrlScheme::Http).expect("the normal form is a host");
    assert_eq!((again.authority(), again.name()), (found.authority(), found.name()));
    assert_eq!(normal_host(found.name()).as_deref(), Some(found.name()));
    assert!(!found.name().ends_with('.') && !found.name().bytes().any(|b| b.is_ascii_uppercase()));
    for spelling in [text, found.authority()] {
        // Browsers ignore these characters at the ends and everywhere.
        if spelling.contains(|c: char| c.is_ascii_control() || c == ' ') {
            continue;
        }
        let Ok(url) = url::Url::parse(&format!("http://{spelling}/")) else { continue };
        let read = url.host_str().unwrap_or_default();
        assert_eq!(read.strip_suffix('.').unwrap_or(read), found.name(), "{spelling:?}");
        let port = found.authority()[found.name().len()..].strip_prefix(':');
        assert_eq!(url.port().map(|port| port.to_string()).as_deref(), port, "{spelling:?}");
    }
}

/// Checks a path.
///
/// # Panics
/// The normal form of an accepted path is not normal, or a URL parser reads another path.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(found) = path::normalise(text) else { return };
    let normal = &*found;
    let again = path::normalise(normal).expect("the normal form is a path");
    assert_eq!(&*again, normal);
    // A dot segment may have removed the only semicolon.
    assert_eq!(again.kept().check(found.kept()), Ok(()));
    let readings = path::other_readings(&found);
    for reading in readings.iter().map(String::as_str).chain([normal]) {
        assert!(reading.starts_with('/') && !reading.contains("//"), "{reading:?}");
        let is_dots = |segment: &str| {
            let plain = segment.replace("%2E", ".").replace("%2e", ".");
            [".", ".."].contains(&plain.as_str())
        };
        assert!(!reading.split('/').any(is_dots), "{reading:?}");
        assert!(reading.is_ascii() && !reading.contains(|c: char| c.is_control() || c == '\\'));
    }
    if normal.contains(['?', '#', ' ']) {
        return;
    }
    let Ok(url) = url::Url::parse(&format!("http://a{normal}")) else { return };
    let decode = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    assert_eq!(decode(url.path()), decode(normal));
}

/// Checks the fields that a client sends through a trusted proxy, which appends its own report.
///
/// # Panics
/// The client made the proxy's report name another client.
pub fn forwarded(data: &[u8]) {
    let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().expect("a network")];
    let peer: IpAddr = "10.0.0.1".parse().expect("an address");
    let client: IpAddr = "203.0.113.7".parse().expect("an address");
    let sent = fields(data);
    let _ = Report::of_proxy(&sent, peer, &trusted);
    // A proxy appends to the last field, or adds a field.
    for name in ["x-forwarded-for", "forwarded"] {
        for joins in [true, false] {
            let own = if name == "forwarded" { "for=203.0.113.7" } else { "203.0.113.7" };
            let mut headers = sent.clone();
            let mut values: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
            match values.pop() {
                Some(last) if joins => {
                    let joined = [last.as_bytes(), b", ", own.as_bytes()].concat();
                    values.push(HeaderValue::from_bytes(&joined).expect("two values are a value"));
                }
                last => values.extend(last.into_iter().chain([HeaderValue::from_static(own)])),
            }
            headers.remove(name);
            for value in values {
                headers.append(name, value);
            }
            if let Ok(Some(read)) = forwarded::client(&headers, &trusted) {
                assert_eq!(read, client, "{headers:?}");
            }
            if let Ok(report) = Report::of_proxy(&headers, peer, &trusted) {
                assert_eq!(report.client, client, "{headers:?}");
                assert_eq!(report.proxies, [peer]);
                let is_safe = |prefix: &str| prefix.starts_with('/') && !prefix.contains("//");
                assert!(report.prefix.is_none_or(is_safe), "{:?}", report.prefix);
            }
        }
    }
}

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
