//! Errors between Keyward and an upstream, with the messages for the client and the operator.

use std::{error::Error, io};

use ::http::StatusCode;

use super::upload::UploadFailure;
use crate::pipeline::{Denial, Phase};

/// The reason why an upstream did not respond.
#[derive(Debug)]
pub(super) enum ProxyError {
    /// No TCP connection was possible.
    Unreachable(io::Error),
    /// The upstream has an address that it must not have.
    ForbiddenAddress(String),
    /// The TLS handshake failed: the certificate is not trusted, or the protocols do not match.
    TlsFailed(io::Error),
    /// No connection within `connect_seconds`.
    ConnectTimeout,
    /// The connection ended before the response, or the response is not HTTP.
    Broken(hyper::Error),
    /// No response within `response_seconds`.
    ResponseTimeout,
    /// The response switches to a protocol that was not requested.
    UnexpectedUpgrade,
    /// The response says in two ways how long its body is.
    AmbiguousLength,
    /// The client's body ended early or exceeded a limit.
    Upload(UploadFailure),
    /// The client stopped sending its body.
    ClientTimeout,
    /// Every upstream is ejected. The number is the seconds until one of the upstreams may be used
    /// again.
    AllEjected(u32),
    /// The base URL of the upstream and the path of the request do not form a valid URL.
    InvalidTarget,
    /// The resource has no upstream.
    NoUpstream,
}

impl ProxyError {
    /// Whether the upstream is to blame, so that another upstream may work.
    pub fn blames_upstream(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::ForbiddenAddress(_)
                | Self::TlsFailed(_)
                | Self::ConnectTimeout
                | Self::Broken(_)
                | Self::ResponseTimeout
                | Self::UnexpectedUpgrade
                | Self::AmbiguousLength
        )
    }

    /// The denial for this error. Only the operator's message names the upstream.
    pub fn denial(&self, upstream: Option<&str>) -> Denial {
        match self {
            Self::Upload(UploadFailure::TooLarge(limits)) => return limits.too_large(),
            Self::Upload(UploadFailure::TooSlow(limits)) => return limits.too_slow(),
            _ => {}
        }
        let (status, code, message) = self.external_message();
        let mut denial = Denial::new(Phase::Handler, status, code, message);
        if let Self::AllEjected(seconds) = self {
            denial = denial.with_retry_after(*seconds);
        }
        let message = self.internal_message();
        denial.with_internal_message(match upstream {
            Some(upstream) => format!("upstream {upstream}: {message}"),
            None => message,
        })
    }

    fn internal_message(&self) -> String {
        match self {
            Self::Unreachable(error) => error.to_string(),
            Self::ForbiddenAddress(why) => why.clone(),
            Self::TlsFailed(error) => format!("the TLS handshake failed: {error}"),
            Self::Broken(error) => with_causes(error),
            Self::ConnectTimeout => "no connection within connect_seconds".into(),
            Self::ResponseTimeout => "no response within response_seconds".into(),
            Self::UnexpectedUpgrade => {
                "the upstream switched to a protocol that was not requested".into()
            }
            Self::AmbiguousLength => {
                "the response has two lengths, or a transfer coding other than chunked".into()
            }
            Self::Upload(_) => "the client's body ended early".into(),
            Self::ClientTimeout => {
                "the client sent no data of its body within response_seconds".into()
            }
            Self::AllEjected(_) => "every upstream is ejected".into(),
            Self::InvalidTarget => {
                "the upstream's base URL and the request's path do not form a valid URL".into()
            }
            Self::NoUpstream => "the resource has no upstream".into(),
        }
    }

    fn external_message(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Unreachable(_) | Self::ForbiddenAddress(_) => (
                StatusCode::BAD_GATEWAY,
                "UPSTREAM_UNREACHABLE",
                "The upstream server cannot be reached.",
            ),
            Self::TlsFailed(_) => (
                StatusCode::BAD_GATEWAY,
                "UPSTREAM_UNTRUSTED",
                "No secure connection to the upstream server can be made.",
            ),
            Self::Broken(_) | Self::UnexpectedUpgrade | Self::AmbiguousLength => (
                StatusCode::BAD_GATEWAY,
                "UPSTREAM_BROKEN",
                "The upstream server sent no valid response.",
            ),
            Self::ConnectTimeout | Self::ResponseTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "UPSTREAM_TIMEOUT",
                "The upstream server took too long.",
            ),
            Self::AllEjected(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "UPSTREAM_UNAVAILABLE",
                "No upstream server is available. Try again in a moment.",
            ),
            Self::Upload(_) => {
                (StatusCode::BAD_REQUEST, "BODY_BROKEN", "The request's body ended early.")
            }
            Self::ClientTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "REQUEST_TIMEOUT",
                "The request's body took too long.",
            ),
            Self::InvalidTarget | Self::NoUpstream => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "INTERNAL_ERROR",
                "The request could not be served.",
            ),
        }
    }
}

/// An error with all its causes.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
