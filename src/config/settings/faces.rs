//! Settings of the listeners: trusted proxies, the public URL and identity header fields.

use http::HeaderName;
use ipnet::IpNet;

use super::{AdminSettings, Check, ProxyProtocol, ServerSettings, file};
use crate::{
    handlers::IdentityFields,
    http::path::{Kept, normalise},
};

impl<R: FnMut(&[&str], String, String)> Check<R> {
    /// Checks that somebody may connect if each connection must begin with a PROXY header.
    pub(super) fn proxy_protocol(&mut self, server: &ServerSettings) {
        if server.proxy_protocol == ProxyProtocol::On && server.trusted_proxies.is_empty() {
            self.broken(
                "server.proxy_protocol",
                "Only trusted proxies may connect with this value, and server.trusted_proxies is empty.",
                "Set server.trusted_proxies to the addresses of the proxies, or use \"off\".",
            );
        }
    }

    pub(super) fn networks(&mut self, key: &str, text: &str) -> Vec<IpNet> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let read: Option<Vec<IpNet>> = parts.map(network).collect();
        read.unwrap_or_else(|| {
            self.broken(
                key,
                "The value is not a list of addresses and networks.",
                "Use addresses and networks with commas between them, such as 10.0.0.5, 192.168.0.0/16, ::1, or \"\" for none.",
            );
            Vec::new()
        })
    }

    pub(super) fn admin(&mut self, raw: &file::AdminSection) -> AdminSettings {
        let listen = self.tcp_or_unix("admin.listen", &raw.listen);
        AdminSettings {
            listen,
            names: self.host_names("admin.names", &raw.names),
            tls: self.tls(raw),
        }
    }

    /// Parses a list of host names and addresses, without ports.
    pub(super) fn host_names(&mut self, key: &str, text: &str) -> Vec<String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let names: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let is_name = |name: &String| {
            name.parse::<std::net::IpAddr>().is_ok()
                || name.len() <= 253 && name.bytes().all(is_allowed)
        };
        if !names.iter().all(is_name) {
            self.broken(
                key,
                "The value is not a list of host names.",
                "Use host names without scheme and port, with commas between them, such as admin.example.com, or \"\" for none.",
            );
        }
        names
    }

    pub(super) fn public_url(&mut self, key: &str, text: &str) -> Option<String> {
        let url = text.trim_end_matches('/');
        if text.is_empty() {
            return None;
        }
        if !is_base(url) {
            self.broken(
                key,
                "The value is not a base URL.",
                "Use http:// or https:// and a host, without a user, query or fragment, such as https://api.example.com/v1.",
            );
        }
        Some(url.into())
    }

    pub(super) fn health_path(&mut self, key: &str, text: &str) -> Option<String> {
        if text.is_empty() {
            return None;
        }
        let is_normal = normalise(text).is_ok_and(|path| {
            *path == *text && path.kept() == Kept::NONE && !text.contains(['?', '#'])
        });
        if !is_normal || text == "/-" || text.starts_with("/-/") {
            self.broken(
                key,
                "The value is not an absolute path.",
                "Use a path in its normal form such as /healthz, without a query and not below /-/, or \"\" for none.",
            );
        }
        Some(text.into())
    }

    pub(super) fn identity(&mut self, raw: &file::IdentitySection) -> IdentityFields {
        let all = [
            ("identity.user", &raw.user),
            ("identity.user_id", &raw.user_id),
            ("identity.roles", &raw.roles),
            ("identity.key_id", &raw.key_id),
            ("identity.application", &raw.application),
            ("identity.scopes", &raw.scopes),
        ];
        for (index, (key, name)) in all.iter().enumerate() {
            let duplicate = all[..index].iter().find(|(_, other)| name.eq_ignore_ascii_case(other));
            if let Some((other, _)) = duplicate {
                let message = "Two identity header fields have the same name.".to_owned();
                (self.report)(&[key, other], message, "Give each field a different name.".into());
            }
        }
        IdentityFields {
            user: self.field("identity.user", &raw.user),
            user_id: self.field("identity.user_id", &raw.user_id),
            roles: self.field("identity.roles", &raw.roles),
            key_id: self.field("identity.key_id", &raw.key_id),
            application: self.field("identity.application", &raw.application),
            scopes: self.field("identity.scopes", &raw.scopes),
        }
    }

    /// Parses the name of a header field. A name that has another meaning in HTTP is refused.
    fn field(&mut self, key: &str, text: &str) -> HeaderName {
        const RESERVED: [&str; 15] = [
            "accept",
            "authorization",
            "connection",
            "content-length",
            "content-type",
            "cookie",
            "expect",
            "forwarded",
            "host",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "www-authenticate",
            "x-real-ip",
        ];
        let name = text.to_ascii_lowercase();
        let is_free = !RESERVED.contains(&name.as_str()) && !name.starts_with("x-forwarded-");
        // Underscores are refused: some programs read an underscore as a hyphen, and some proxies
        // drop fields with underscores.
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) if is_free && text.bytes().all(is_allowed) => name,
            _ => {
                self.broken(
                    key,
                    "The value cannot be the name of an identity header field.",
                    "Use letters, digits and hyphens, such as X-Keyward-User, and no name that has another meaning in HTTP.",
                );
                HeaderName::from_static("x-keyward-placeholder")
            }
        }
    }
}

/// Parses a network, or a single address.
fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().or_else(address)
}

/// Whether `url` is `http(s)://host[:port][/path]` (RFC 3986, section 3).
fn is_base(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let Some(authority) = uri.authority() else { return false };
    let host = authority.host();
    let after_host = authority.as_str().strip_prefix(host).unwrap_or("?");
    let is_port = match after_host.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok_and(|port| port != 0),
        None => after_host.is_empty(),
    };
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !host.is_empty() && host.bytes().all(is_allowed)
        }
    };
    matches!(uri.scheme_str(), Some("http" | "https"))
        && is_port
        && is_host
        && uri.query().is_none()
        && !url.contains('#')
}
