//! The CORS settings of a resource: the web pages of other origins that may use the resource.

use std::{collections::BTreeSet, net::Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Handler, Resource};
use crate::model::Violation;

/// The maximum number of origins, and of names in each list.
const MAX_NAMES: usize = 100;
/// The maximum of [`Cors::max_age`], in seconds. No browser keeps a preflight longer than a day.
const MAX_AGE: u32 = 86_400;
const EVERY: &str = "*";

/// The CORS settings of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// The origins whose pages may use the resource: `https://app.example.com`,
    /// `https://*.example.com` for all names below a name, `*` for every origin, `null` for pages
    /// without an origin.
    #[serde(default)]
    pub origins: BTreeSet<String>,
    /// The methods that pages may use. `None` means all methods of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<BTreeSet<String>>,
    /// The request header fields that pages may set, or `*` for all. `None` means the fields that
    /// carry credentials, and `Content-Type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeSet<String>>,
    /// The response header fields that pages may read, or `*` for all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub expose: BTreeSet<String>,
    /// Whether browsers may send cookies, client certificates and their own logins.
    #[serde(default)]
    pub credentials: bool,
    /// The time for which browsers may keep the response to a preflight, in seconds.
    #[serde(default = "default_max_age")]
    pub max_age: u32,
    /// The program that responds to preflights.
    #[serde(default)]
    pub preflight: PreflightMode,
    /// Whether pages from public networks may use the resource in a private network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private_network: bool,
}

/// The program that responds to preflights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreflightMode {
    /// Keyward.
    #[default]
    Answer,
    /// The application behind Keyward, which gets preflights without authentication.
    Pass,
}

fn default_max_age() -> u32 {
    600
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            origins: BTreeSet::new(),
            methods: None,
            headers: None,
            expose: BTreeSet::new(),
            credentials: false,
            max_age: default_max_age(),
            preflight: PreflightMode::default(),
            private_network: false,
        }
    }
}

impl PreflightMode {
    /// The mode with this name.
    pub fn parse(location: &str, name: &str) -> Result<Self, Violation> {
        match name {
            "answer" => Ok(Self::Answer),
            "pass" => Ok(Self::Pass),
            _ => Err(Violation::new(
                location,
                format!("{name:?} is not a way to treat preflights."),
                "Use answer or pass.",
            )),
        }
    }
}

impl Cors {
    /// Whether every origin is allowed.
    pub fn allows_every_origin(&self) -> bool {
        self.origins.contains(EVERY)
    }

    /// Whether pages may set every request header field.
    pub fn allows_every_header(&self) -> bool {
        self.headers.as_ref().is_some_and(|names| names.contains(EVERY))
    }

    /// Whether pages may use this method of the resource.
    pub fn allows_method(&self, method: &str) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(method))
    }
}

/// An origin in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// Every origin.
    Every,
    /// Pages without an origin: `null`.
    Null,
    /// One origin.
    Exact(WebOrigin),
    /// All hosts below a host; [`WebOrigin::host`] is the host above, with a dot at its beginning.
    Below(WebOrigin),
}

/// An origin in its normal form (RFC 6454, section 4): lower case, no default port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl OriginPattern {
    /// Parses `https://app.example.com`, `https://*.example.com:8443`, `*` or `null`.
    ///
    /// # Errors
    /// The reason why the text is no origin, as the second half of a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text == EVERY {
            return Ok(Self::Every);
        }
        if text == "null" {
            return Ok(Self::Null);
        }
        let Some((scheme, below)) = text.split_once("://*.") else {
            return Ok(Self::Exact(WebOrigin::parse(text)?));
        };
        let above = WebOrigin::parse(&format!("{scheme}://{below}"))?;
        if above.host.starts_with('[') || above.host.parse::<std::net::Ipv4Addr>().is_ok() {
            return Err("there are no names below an address");
        }
        Ok(Self::Below(WebOrigin { host: format!(".{}", above.host), ..above }))
    }

    /// Whether an `Origin` header field names an allowed origin. `None` stands for `null`.
    pub fn matches(&self, origin: Option<&WebOrigin>) -> bool {
        match (self, origin) {
            (Self::Every, _) | (Self::Null, None) => true,
            (Self::Exact(allowed), Some(origin)) => allowed == origin,
            (Self::Below(above), Some(origin)) => {
                let is_below = origin.host.strip_suffix(&above.host);
                is_below.is_some_and(|labels| !labels.is_empty())
                    && (&above.scheme, above.port) == (&origin.scheme, origin.port)
            }
            (Self::Null, Some(_)) | (Self::Exact(_) | Self::Below(_), None) => false,
        }
    }
}

impl WebOrigin {
    /// Parses `scheme://host` or `scheme://host:port`.
    ///
    /// # Errors
    /// The reason why the text is no origin, as the second half of a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) =
            text.split_once("://").ok_or("it does not begin with a scheme such as https://")?;
        let is_scheme_byte = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            || !scheme.bytes().all(is_scheme_byte)
        {
            return Err("its scheme is not a scheme such as https");
        }
        if rest.contains(['/', '?', '#', '\\']) {
            return Err("an origin has no path, not even a slash at its end");
        }
        if rest.contains('@') {
            return Err("an origin has no user");
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = split_port(rest)?;
        let port = port.filter(|port| Some(*port) != default_port(&scheme));
        Ok(Self { host: normal_host(host)?, scheme, port })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    if authority.starts_with('[') && !authority.contains(']') {
        return Err("it has no valid host");
    }
    let end_of_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = authority[end_of_host..].find(':').map(|colon| colon + end_of_host) else {
        return Ok((authority, None));
    };
    let digits = &authority[colon + 1..];
    let port = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
    Ok((&authority[..colon], Some(port.ok_or("its port is not a number from 0 to 65535")?)))
}

fn normal_host(host: &str) -> Result<String, &'static str> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| "its IPv6 address is invalid")?;
        return Ok(format!("[{address}]"));
    }
    if host.contains('*') {
        return Err("a * can only be the whole first label, as in https://*.example.com");
    }
    if !host.is_ascii() {
        return Err(
            "browsers send names with other letters than ASCII in Punycode, which begins with xn--",
        );
    }
    let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let has_empty_label = host.trim_end_matches('.').split('.').any(str::is_empty);
    if !host.bytes().all(is_host_byte) || has_empty_label || host.len() > 253 {
        return Err("it has no valid host");
    }
    Ok(host.to_ascii_lowercase())
}

impl Resource {
    pub(super) fn check_cors(&self, found: &mut Vec<Violation>) {
        let Some(cors) = &self.cors else { return };
        cors.check_origins(found);
        cors.check_names(found);
        let methods = cors.methods.iter().flatten();
        for method in methods.filter(|method| !self.has_cors_method(method)) {
            found.push(Violation::new(
                "cors.methods",
                format!("{method:?} is not a method of the resource."),
                "Name methods of the resource, or leave cors.methods out to allow all of them.",
            ));
        }
        let has_application = matches!(self.handler, Handler::Proxy | Handler::Decide);
        if cors.preflight == PreflightMode::Pass && !has_application {
            found.push(Violation::new(
                "cors.preflight",
                format!(
                    "The handler {} has no application that could respond to preflights.",
                    self.handler.name()
                ),
                "Leave cors.preflight out, so that Keyward responds to preflights.",
            ));
        }
        if cors.max_age > MAX_AGE {
            found.push(Violation::new(
                "cors.max_age",
                format!("{} is out of range.", cors.max_age),
                format!("Use a whole number of seconds from 0 to {MAX_AGE}."),
            ));
        }
    }

    /// Whether the resource accepts a method; `GET` includes `HEAD`.
    fn has_cors_method(&self, method: &str) -> bool {
        let method = if method == "HEAD" { "GET" } else { method };
        self.rules.of(method).is_some()
    }
}

impl Cors {
    fn check_origins(&self, found: &mut Vec<Violation>) {
        let mut reject = |message: String, fix: &str| {
            found.push(Violation::new("cors.origins", message, fix));
        };
        if self.origins.is_empty() {
            let fix =
                "Give an origin such as https://app.example.com. To turn CORS off, leave cors out.";
            reject("CORS needs at least one origin.".into(), fix);
        }
        if self.allows_every_origin() && self.credentials {
            let fix = "Name the origins, or set cors.credentials to false: pages do not need it to send a key in a header field.";
            reject("Credentials cannot be allowed for every origin.".into(), fix);
        }
        if self.allows_every_origin() && self.origins.len() > 1 {
            let fix = "Leave * out, or leave the other origins out.";
            reject("* allows every origin, so the other origins have no effect.".into(), fix);
        }
        for origin in &self.origins {
            if let Err(problem) = OriginPattern::parse(origin) {
                let fix = "Give scheme and host, and the port unless it is the default port, such as https://app.example.com or http://localhost:3000.";
                reject(format!("{origin:?} cannot be an origin: {problem}."), fix);
            }
        }
    }

    fn check_names(&self, found: &mut Vec<Violation>) {
        let no_names = BTreeSet::new();
        for (location, names) in [
            ("cors.origins", &self.origins),
            ("cors.methods", self.methods.as_ref().unwrap_or(&no_names)),
            ("cors.headers", self.headers.as_ref().unwrap_or(&no_names)),
            ("cors.expose", &self.expose),
        ] {
            if names.len() > MAX_NAMES {
                found.push(Violation::new(
                    location,
                    format!("There are more than {MAX_NAMES} names."),
                    "Use a wildcard.",
                ));
            }
            let is_field = ["cors.headers", "cors.expose"].contains(&location);
            let is_name =
                |name: &str| name == EVERY || http::HeaderName::from_bytes(name.as_bytes()).is_ok();
            for name in names.iter().filter(|name| is_field && !is_name(name)) {
                found.push(Violation::new(
                    location,
                    format!("{name:?} is not the name of a header field."),
                    "Give names such as X-Request-Id, or *.",
                ));
            }
        }
        if self.credentials && self.expose.contains(EVERY) {
            found.push(Violation::new(
                "cors.expose",
                "With credentials, browsers do not read * as all header fields.",
                "Name the header fields, or set cors.credentials to false.",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, origin: &str) -> bool {
        let pattern = OriginPattern::parse(pattern).unwrap();
        match origin {
            "null" => pattern.matches(None),
            origin => WebOrigin::parse(origin).is_ok_and(|origin| pattern.matches(Some(&origin))),
        }
    }

    #[test]
    fn origins_are_compared_in_their_normal_form() {
        for (pattern, origin) in [
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.Example:443", "https://app.example"),
            ("https://app.example", "https://app.example:443"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://localhost:80", "http://localhost"),
            ("http://[0:0::1]:8080", "http://[::1]:8080"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("https://*.example", "https://a.example"),
            ("https://*.example.com:8443", "https://b.a.Example.com:8443"),
            ("*", "https://anything.example:1"),
            ("*", "null"),
            ("null", "null"),
        ] {
            assert!(allows(pattern, origin), "{pattern} {origin}");
        }
    }

    #[test]
    fn other_origins_are_not_allowed() {
        for (pattern, origin) in [
            ("https://app.example", "http://app.example"),
            ("https://app.example", "https://app.example:444"),
            ("https://app.example", "https://app.example."),
            ("https://app.example", "https://app.example.evil"),
            ("https://app.example", "https://evil-app.example"),
            ("https://app.example", "https://app.example@evil"),
            ("https://app.example", "https://app.example/"),
            ("https://app.example", "https://evil#https://app.example"),
            ("https://app.example", "null"),
            ("http://localhost:3000", "http://localhost"),
            ("https://*.example", "https://example"),
            ("https://*.example", "https://.example"),
            ("https://*.example", "https://evilexample"),
            ("https://*.example", "http://a.example"),
            ("https://*.example", "https://a.example:8443"),
            ("https://*.example", "https://a.example."),
            ("https://*.example", "https://a.example.evil"),
            ("https://*.example", "https://evil/.example"),
            ("null", "https://null"),
        ] {
            assert!(!allows(pattern, origin), "{pattern} {origin}");
        }
    }

    #[test]
    fn texts_that_are_no_origins_are_refused_with_the_reason() {
        for (text, reason) in [
            ("", "scheme"),
            ("app.example", "scheme"),
            ("*.example.com", "scheme"),
            ("1s://a", "scheme"),
            ("https://app.example/", "slash"),
            ("https://app.example/path", "path"),
            ("https://user@app.example", "user"),
            ("https://", "host"),
            ("https://*", "first label"),
            ("https://*.", "host"),
            ("https://*.*.example", "first label"),
            ("https://a*.example", "first label"),
            ("https://a..example", "host"),
            ("https://a b", "host"),
            ("https://caf\u{e9}.example", "Punycode"),
            ("https://*.[::1]", "address"),
            ("https://*.127.0.0.1", "address"),
            ("https://[::1", "host"),
            ("https://a:x", "port"),
            ("https://a:+1", "port"),
            ("https://a:65536", "port"),
        ] {
            let problem = OriginPattern::parse(text).unwrap_err();
            assert!(problem.contains(reason), "{text}: {problem}");
        }
    }
}
