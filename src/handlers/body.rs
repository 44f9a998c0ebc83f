//! Reads request bodies, with limits of size and time. A body is read only after the pipeline has
//! granted the request, except where scripts read the body.

use std::{error::Error, time::Duration};

use ::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Incoming};

use crate::pipeline::{Denial, Phase};

/// The limits of a request body.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// The maximum size in bytes.
    pub bytes: usize,
    /// The maximum time until the whole body has arrived.
    pub read: Duration,
}

/// A body that has not been read yet.
#[derive(Debug)]
pub enum RequestBody {
    /// The body is in memory.
    Full(Bytes),
    /// The body is still to be read from the connection.
    Stream(Incoming),
}

impl Default for RequestBody {
    fn default() -> Self {
        Self::Full(Bytes::new())
    }
}

impl RequestBody {
    /// Reads the whole body.
    ///
    /// # Errors
    /// The body is too large (413), takes too long (408), or ends early (400).
    pub async fn collect(self, limits: &BodyLimits) -> Result<Bytes, Denial> {
        match self {
            Self::Full(bytes) if bytes.len() > limits.bytes => Err(too_large(limits)),
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
    // A body that declares too large a size is not read at all.
    if stream.size_hint().lower() > limits.bytes as u64 {
        return Err(too_large(limits));
    }
    let reading = Limited::new(stream, limits.bytes).collect();
    match tokio::time::timeout(limits.read, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(problem)) if problem.is::<LengthLimitError>() => Err(too_large(limits)),
        Ok(Err(problem)) => Err(Denial::message(
            Phase::Handler,
            StatusCode::BAD_REQUEST,
            "BODY_BROKEN",
            "The request's body ended early.",
        )
        .with_internal_message(problem.to_string())),
        Err(_) => Err(Denial::message(
            Phase::Handler,
            StatusCode::REQUEST_TIMEOUT,
            "REQUEST_TIMEOUT",
            format!("The request's body took longer than {} s.", limits.read.as_secs()),
        )),
    }
}

fn too_large(limits: &BodyLimits) -> Denial {
    Denial::message(
        Phase::Handler,
        StatusCode::PAYLOAD_TOO_LARGE,
        "CONTENT_TOO_LARGE",
        format!("The request's body is larger than {} bytes.", limits.bytes),
    )
}
