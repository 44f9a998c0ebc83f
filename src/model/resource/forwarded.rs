//! The header fields in which the `proxy` handler tells an upstream about the client.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A header field about the client and its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ForwardedField {
    /// The addresses of the client and of the trusted proxies behind it.
    #[serde(rename = "x-forwarded-for")]
    For,
    /// The scheme of the client's request.
    #[serde(rename = "x-forwarded-proto")]
    Proto,
    /// Host and port of the client's request.
    #[serde(rename = "x-forwarded-host")]
    Host,
    /// The port to which the client sent its request.
    #[serde(rename = "x-forwarded-port")]
    Port,
    /// The prefix that was removed from the path.
    #[serde(rename = "x-forwarded-prefix")]
    Prefix,
    /// The client's address alone.
    #[serde(rename = "x-real-ip")]
    RealIp,
    /// Address, host and scheme in the form of RFC 7239.
    #[serde(rename = "forwarded")]
    Forwarded,
}

impl ForwardedField {
    /// All fields.
    pub const ALL: [Self; 7] = [
        Self::For,
        Self::Proto,
        Self::Host,
        Self::Port,
        Self::Prefix,
        Self::RealIp,
        Self::Forwarded,
    ];

    /// The name of the header field, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::For => "x-forwarded-for",
            Self::Proto => "x-forwarded-proto",
            Self::Host => "x-forwarded-host",
            Self::Port => "x-forwarded-port",
            Self::Prefix => "x-forwarded-prefix",
            Self::RealIp => "x-real-ip",
            Self::Forwarded => "forwarded",
        }
    }

    /// The field with this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name().eq_ignore_ascii_case(name))
    }
}

/// The fields of a resource that does not say which ones its upstreams get.
pub(super) fn all() -> BTreeSet<ForwardedField> {
    ForwardedField::ALL.into()
}

/// Whether a record needs no list.
pub(super) fn is_all(fields: &BTreeSet<ForwardedField>) -> bool {
    fields.len() == ForwardedField::ALL.len()
}
