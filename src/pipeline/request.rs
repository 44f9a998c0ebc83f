//! The input of the pipeline: the request, and the action that needs a decision.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::Denial;
use crate::directory::Rule;

/// The parts of a request that decisions need.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path, normalized.
    pub path: &'a str,
    /// The query, unchanged.
    pub query: Option<&'a str>,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The requested host, in lower case, without the port; `None` means the request names none.
    pub host: Option<&'a str>,
    /// The body, if the resource reads it before the decision.
    pub body: Option<&'a Bytes>,
    /// The client's address. The client of a unix socket has the loopback address.
    pub client: IpAddr,
    /// The listener that accepted the request.
    pub face: Face,
}

/// The listener that accepted a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// The public listener.
    Public,
    /// The admin API's listener.
    Admin,
}

impl Face {
    /// Whether hooks run for requests to this listener. Hooks do not run for the admin listener, so
    /// that a hook that refuses everybody cannot lock out the administrator who can fix the hook.
    /// Scripted authentication types work on both listeners.
    pub(super) fn has_hooks(self) -> bool {
        self == Self::Public
    }
}

/// The action that a request wants to perform.
///
/// Authentication comes before routing: a request without a route is authenticated first, and only
/// an authenticated client learns that there is no route.
#[derive(Debug)]
pub enum Action<'a> {
    /// Use a method of a resource.
    Use(&'a Rule),
    /// Use a method of a resource with an unsupported content type or format.
    Misuse(&'a Rule, Denial),
    /// The request has no route.
    NoRoute(Denial),
    /// Call the admin API, which requires this permission.
    Administer(&'static str),
    /// Use a program that embeds Keyward and defines no resources.
    Enter(EntryRules<'a>),
}

/// The requirements of a program that embeds Keyward and defines no resources.
#[derive(Debug, Clone, Copy)]
pub struct EntryRules<'a> {
    /// The permissions that the caller needs.
    pub permissions: &'a [String],
    /// Whether anonymous requests may enter.
    pub anonymous: Anonymous,
}

/// How to decide about a request without a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// Refuse the request.
    Refused,
    /// Let the request pass with the permissions of the role `anonymous`.
    Admitted,
}

impl<'a> Action<'a> {
    /// The rule of the resource, if the action is about a resource.
    pub(crate) fn rule(&self) -> Option<&'a Rule> {
        match self {
            Self::Use(rule) | Self::Misuse(rule, _) => Some(rule),
            Self::NoRoute(_) | Self::Administer(_) | Self::Enter(_) => None,
        }
    }

    /// Whether an anonymous request may perform the action.
    pub(super) fn admits_anonymous(&self) -> bool {
        match self {
            Self::Use(rule) | Self::Misuse(rule, _) => rule.access.anonymous,
            Self::Enter(rules) => rules.anonymous == Anonymous::Admitted,
            Self::NoRoute(_) | Self::Administer(_) => false,
        }
    }
}
