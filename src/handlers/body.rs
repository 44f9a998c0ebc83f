//! Reads request bodies, with limits of size and time. A body is read only after the pipeline has
//! granted the request, except where scripts read the body.

use std::{error::Error, time::Duration};

use ::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as HttpBody;

#[cfg(feature = "server")]
use super::ClientBody;
use crate::{
    model::Resource,
    pipeline::{Denial, Phase},
};

/// The limits of a request body.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// The maximum size in bytes.
    pub bytes: usize,
    /// The maximum time until the whole body has arrived.
    pub read: Duration,
}

/// A body that has not been read yet.
#[cfg(feature = "server")]
#[derive(Debug)]
pub enum RequestBody {
    /// The body is in memory.
    Full(Bytes),
    /// The body is still to be read from the connection.
    Stream(ClientBody),
}

#[cfg(feature = "server")]
impl Default for RequestBody {
    fn default() -> Self {
        Self::Full(Bytes::new())
    }
}

impl BodyLimits {
    /// The limits of the requests of a resource: the resource's own limits, or else these.
    #[must_use]
    pub fn of_resource(self, resource: &Resource) -> Self {
        let bytes = resource.body.bytes.map_or(self.bytes, |limit| {
            limit.value().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX)
        });
        let read = resource
            .body
            .read_seconds
            .map_or(self.read, |limit| limit.value().map_or(Duration::MAX, Duration::from_secs));
        Self { bytes, read }
    }

    /// Checks the size that a body declares. A body without a declared size passes.
    ///
    /// # Errors
    /// The size is larger than the limit (413).
    pub fn check_declared<B: HttpBody>(&self, body: &B) -> Result<(), Denial> {
        // A body that declares too large a size is not read at all.
        if body.size_hint().lower() > self.bytes as u64 { Err(self.too_large()) } else { Ok(()) }
    }

    /// The denial of a body that is larger than the limit.
    pub(super) fn too_large(&self) -> Denial {
        Denial::message(
            Phase::Handler,
            StatusCode::PAYLOAD_TOO_LARGE,
            "CONTENT_TOO_LARGE",
            format!("The request's body is larger than {} bytes.", self.bytes),
        )
    }

    /// The denial of a body that does not arrive in time.
    pub(super) fn too_slow(&self) -> Denial {
        Denial::message(
            Phase::Handler,
            StatusCode::REQUEST_TIMEOUT,
            "REQUEST_TIMEOUT",
            format!("The request's body took longer than {} s.", self.read.as_secs()),
        )
    }
}

#[cfg(feature = "server")]
impl RequestBody {
    /// Checks the size of the body, or the size that the body declares.
    ///
    /// # Errors
    /// The size is larger than the limit (413).
    pub fn check_declared(&self, limits: &BodyLimits) -> Result<(), Denial> {
        match self {
            Self::Full(bytes) if bytes.len() > limits.bytes => Err(limits.too_large()),
            Self::Full(_) => Ok(()),
            Self::Stream(stream) => limits.check_declared(stream),
        }
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// The body is too large (413), takes too long (408), or ends early (400).
    pub async fn collect(self, limits: &BodyLimits) -> Result<Bytes, Denial> {
        self.check_declared(limits)?;
        match self {
            Self::Full(bytes) => Ok(bytes),
            Self::Stream(stream) => read_body(stream, limits).await,
        }
    }
}

/// Reads a whole body from any source.
///
/// # Errors
/// The errors of [`RequestBody::collect`].
pub async fn read_body<B>(stream: B, limits: &BodyLimits) -> Result<Bytes, Denial>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    limits.check_declared(&stream)?;
    let reading = Limited::new(stream, limits.bytes).collect();
    match tokio::time::timeout(limits.read, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(problem)) if problem.is::<LengthLimitError>() => Err(limits.too_large()),
        Ok(Err(problem)) => Err(Denial::message(
            Phase::Handler,
            StatusCode::BAD_REQUEST,
            "BODY_BROKEN",
            "The request's body ended early.",
        )
        .with_internal_message(problem.to_string())),
        Err(_) => Err(limits.too_slow()),
    }
}
