//! What the rooms are asked: the request, and what it wants to do.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::Denial;
use crate::directory::Rule;

/// A request, as far as decisions go.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path, normalised.
    pub path: &'a str,
    /// The query, as it came.
    pub query: Option<&'a str>,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The host that it is for, in lower case, without the port; none: the request names none.
    pub host: Option<&'a str>,
    /// The body, where the resource has it read before the decision.
    pub body: Option<&'a Bytes>,
    /// Where it comes from. A unix socket's client is the loopback address.
    pub client: IpAddr,
    /// Which listener it came to.
    pub face: Face,
}

/// A listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// The public one.
    Public,
    /// The admin API's.
    Admin,
}

impl Face {
    /// Whether the hooks of all requests and of resources are called. Not on the admin listener: a script that refuses everybody must not keep
    /// out the one who can mend it. Authentication types are the same on both.
    pub(super) fn has_hooks(self) -> bool {
        self == Self::Public
    }
}

/// What a request wants to do.
///
/// Authentication comes before routing: a request that leads nowhere is first asked who it is, and what is wrong with it is told
/// only to those who may come in at all.
#[derive(Debug)]
pub enum Action<'a> {
    /// Use a method of a resource.
    Use(&'a Rule),
    /// Use a method of a resource that cannot be used in this way: an unsupported content type or format.
    Misuse(&'a Rule, Denial),
    /// Go where nothing is.
    Nowhere(Denial),
    /// Call the admin API, which asks for this permission.
    Administer(&'static str),
    /// Go on in a program that has no resources.
    Enter(Entry<'a>),
}

/// What a program asks for that has no resources.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The permissions, all of them.
    pub permissions: &'a [String],
    /// Whether those may whom nobody knows.
    pub anonymous: Anonymous,
}

/// What becomes of a request without a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// It is refused.
    Refused,
    /// It goes on, with what the role `anonymous` may.
    Admitted,
}

impl<'a> Action<'a> {
    /// The rule of the resource that it is about, if it is about one.
    pub(crate) fn rule(&self) -> Option<&'a Rule> {
        match self {
            Self::Use(rule) | Self::Misuse(rule, _) => Some(rule),
            Self::Nowhere(_) | Self::Administer(_) | Self::Enter(_) => None,
        }
    }

    /// Whether somebody may do it whom nobody knows.
    pub(super) fn admits_anonymous(&self) -> bool {
        match self {
            Self::Use(rule) | Self::Misuse(rule, _) => rule.admits.anonymous,
            Self::Enter(entry) => entry.anonymous == Anonymous::Admitted,
            Self::Nowhere(_) | Self::Administer(_) => false,
        }
    }
}
