//! Settings of the listeners: ports, trusted proxies, the public URL and identity header fields.

use http::HeaderName;
use ipnet::IpNet;

use super::{Check, Settings, file, overlap};
use crate::{
    handlers::IdentityFields,
    http::path::{Kept, normalise},
};

impl<R: FnMut(&[&str], String, String)> Check<R> {
    /// Checks that no two listeners have the same port.
    pub(super) fn ports(&mut self, settings: &Settings) {
        let public = settings.server.listen;
        let (admin, grpc) = (settings.admin.listen.tcp(), settings.server.grpc_listen);
        for (one, other, keys, message, fix) in [
            (
                admin,
                Some(public),
                ["admin.listen", "server.listen"],
                "The public listener and the admin listener have the same port.",
                "Give server.listen and admin.listen different ports.",
            ),
            (
                grpc,
                Some(public),
                ["server.grpc_listen", "server.listen"],
                "The public listener and the gRPC listener have the same port.",
                "Give server.listen and server.grpc_listen different ports.",
            ),
            (
                grpc,
                admin,
                ["server.grpc_listen", "admin.listen"],
                "The admin listener and the gRPC listener have the same port.",
                "Give admin.listen and server.grpc_listen different ports.",
            ),
        ] {
            if let (Some(one), Some(other)) = (one, other)
                && overlap(one, other)
            {
                (self.report)(&keys, message.into(), fix.into());
            }
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
        }
    }

    /// Parses the name of a header field. A name that has another meaning in HTTP is refused.
    fn field(&mut self, key: &str, text: &str) -> HeaderName {
        const RESERVED: [&str; 14] = [
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
