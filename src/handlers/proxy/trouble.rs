//! What can go wrong between us and an upstream, and what the client and the operator are told.

use std::{error::Error, io};

use ::http::StatusCode;

use super::Endpoint;
use crate::pipeline::{Denial, Phase};

/// Why there is no answer from an upstream.
#[derive(Debug)]
pub(super) enum ProxyError {
    /// No connection.
    Unreachable(io::Error),
    /// No TLS: it is not whom we called, or does not speak what we do.
    Untrusted(io::Error),
    /// No connection in time.
    NoConnection,
    /// The connection ended before the answer began, or the answer is not HTTP.
    Broken(hyper::Error),
    /// No answer in time.
    Silent,
    /// An answer in a protocol that nobody asked for.
    Unasked,
    /// The client's body broke off.
    ClientBroke,
    /// The client's body did not go on.
    ClientSilent,
    /// Every upstream is left out; the first comes back in so many seconds.
    AllEjected(u32),
    /// The address cannot be written.
    Unwritable,
    /// The resource has no upstream.
    Incomplete,
}

impl ProxyError {
    /// Whether the upstream is to blame, so that another may do better.
    pub fn is_the_upstreams(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::Untrusted(_)
                | Self::NoConnection
                | Self::Broken(_)
                | Self::Silent
                | Self::Unasked
        )
    }

    /// The refusal. The client does not learn which upstream it was.
    pub fn denial(&self, endpoint: Option<&Endpoint>) -> Denial {
        let (status, code, said) = self.told();
        let denial = Denial::new(Phase::Handler, status, code, said);
        let denial = match self {
            Self::AllEjected(seconds) => denial.with_retry_after(*seconds),
            _ => denial,
        };
        let why = match self {
            Self::Unreachable(problem) => problem.to_string(),
            Self::Untrusted(problem) => format!("no TLS with it: {problem}"),
            Self::Broken(problem) => chain(problem),
            Self::NoConnection => "no connection in connect_seconds".into(),
            Self::Silent => "no answer in response_seconds".into(),
            Self::Unasked => "it changed the protocol without being asked".into(),
            Self::ClientBroke => "the client's body broke off".into(),
            Self::ClientSilent => "the client's body did not go on in response_seconds".into(),
            Self::AllEjected(_) => "every upstream is left out".into(),
            Self::Unwritable => "the path and the upstream's base make no address".into(),
            Self::Incomplete => "the resource has no upstream".into(),
        };
        match endpoint {
            Some(endpoint) => denial.with_detail(format!("upstream {}: {why}", endpoint.name())),
            None => denial.with_detail(why),
        }
    }

    fn told(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Unreachable(_) => (
                StatusCode::BAD_GATEWAY,
                "UPSTREAM_UNREACHABLE",
                "The upstream server cannot be reached.",
            ),
            Self::Untrusted(_) => (
                StatusCode::BAD_GATEWAY,
                "UPSTREAM_UNTRUSTED",
                "No secure connection to the upstream server can be made.",
            ),
            Self::Broken(_) | Self::Unasked => (
                StatusCode::BAD_GATEWAY,
                "UPSTREAM_BROKEN",
                "The upstream server gave no valid answer.",
            ),
            Self::NoConnection | Self::Silent => (
                StatusCode::GATEWAY_TIMEOUT,
                "UPSTREAM_TIMEOUT",
                "The upstream server took too long.",
            ),
            Self::AllEjected(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "UPSTREAM_UNAVAILABLE",
                "No upstream server is available. Try again in a moment.",
            ),
            Self::ClientBroke => {
                (StatusCode::BAD_REQUEST, "BODY_BROKEN", "The request's body broke off.")
            }
            Self::ClientSilent => (
                StatusCode::REQUEST_TIMEOUT,
                "REQUEST_TIMEOUT",
                "The request's body took too long.",
            ),
            Self::Unwritable | Self::Incomplete => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "INTERNAL_ERROR",
                "The request could not be served.",
            ),
        }
    }
}

/// An error with all that caused it.
pub(super) fn chain(problem: &dyn Error) -> String {
    let mut text = problem.to_string();
    let mut cause = problem.source();
    while let Some(problem) = cause {
        text.push_str(": ");
        text.push_str(&problem.to_string());
        cause = problem.source();
    }
    text
}
