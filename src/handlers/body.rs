//! A request's body: read only after the request was let in, and bounded in size and time.

use std::{error::Error, time::Duration};

use ::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Incoming};

use crate::pipeline::{Denial, Phase};

/// What a body may take.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Bytes.
    pub bytes: usize,
    /// How long it may take to arrive.
    pub read: Duration,
}

/// A body that has not been read yet.
#[derive(Debug)]
pub enum Body {
    /// It is here already.
    Full(Bytes),
    /// It comes from the network.
    Stream(Incoming),
}

impl Default for Body {
    fn default() -> Self {
        Self::Full(Bytes::new())
    }
}

impl Body {
    /// The whole body.
    ///
    /// # Errors
    /// It is larger than it may be (413), takes longer (408), or breaks off (400).
    pub async fn collect(self, limits: &BodyLimits) -> Result<Bytes, Denial> {
        let stream = match self {
            Self::Full(bytes) if bytes.len() > limits.bytes => return Err(too_large(limits)),
            Self::Full(bytes) => return Ok(bytes),
            Self::Stream(stream) => stream,
        };
        whole(stream, limits).await
    }
}

/// The whole of a body, wherever it comes from.
///
/// # Errors
/// As those of [`Body::collect`].
pub async fn whole<B>(stream: B, limits: &BodyLimits) -> Result<Bytes, Denial>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    // What says that it is too large is not read at all.
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
            "The request's body broke off.",
        )
        .with_detail(problem.to_string())),
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
