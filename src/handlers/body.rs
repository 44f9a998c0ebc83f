//! Reads request bodies, with limits of size and time. A body is read only after the pipeline has
//! granted the request, except where scripts read the body.

use std::{error::Error, pin::pin, time::Duration};

use ::http::StatusCode;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as HttpBody;

#[cfg(feature = "server")]
use super::ClientBody;
use crate::{
    limits::{Held, HeldBody, HoldError},
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
    /// The body is too large (413), takes too long (408), ends early (400), or finds no room in
    /// memory (503).
    pub async fn collect(self, limits: &BodyLimits) -> Result<Bytes, Denial> {
        Ok(self.hold(limits).await?.bytes)
    }

    /// Reads the whole body, and keeps the part of the budget of unauthenticated clients that it
    /// takes.
    ///
    /// # Errors
    /// The errors of [`RequestBody::collect`].
    pub async fn hold(self, limits: &BodyLimits) -> Result<HeldBody, Denial> {
        self.check_declared(limits)?;
        match self {
            Self::Full(bytes) => Ok(bytes.into()),
            Self::Stream(stream) => {
                let (account, standing) = stream.account();
                let held = account.map(|account| account.open(standing));
                hold_body(stream, limits, held).await
            }
        }
    }

    /// Sets the standing of the client.
    #[must_use]
    pub fn of_client(self, standing: crate::limits::Standing) -> Self {
        match self {
            Self::Stream(stream) => Self::Stream(stream.of_client(standing)),
            full => full,
        }
    }

    /// The body, if it needs no reading.
    pub fn known(&self) -> Option<Bytes> {
        match self {
            Self::Full(bytes) => Some(bytes.clone()),
            Self::Stream(stream) => stream.is_end_stream().then(Bytes::new),
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
    Ok(hold_body(stream, limits, None).await?.bytes)
}

/// Reads a whole body from any source. `held` counts its bytes; `None` means that they do not
/// count.
///
/// # Errors
/// The errors of [`RequestBody::collect`].
pub(crate) async fn hold_body<B>(
    stream: B,
    limits: &BodyLimits,
    held: Option<Held>,
) -> Result<HeldBody, Denial>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    limits.check_declared(&stream)?;
    let mut stream = pin!(stream);
    let mut body = BodyBuffer { bytes: Vec::new(), declared: stream.size_hint().exact(), held };
    let reading = async {
        while let Some(frame) = stream.frame().await {
            let data = frame.map_err(broken)?.into_data();
            body.push(&data.unwrap_or_default(), limits)?;
        }
        Ok(())
    };
    match tokio::time::timeout(limits.read, reading).await {
        Ok(read) => read.map(|()| body.finish()),
        Err(_) => Err(limits.too_slow()),
    }
}

/// The bytes of a body that have arrived. They are copied: a small piece of a body would keep the
/// whole buffer in memory that it came in.
struct BodyBuffer {
    bytes: Vec<u8>,
    /// The length that the client declares. `None` means that it declares none.
    declared: Option<u64>,
    held: Option<Held>,
}

impl BodyBuffer {
    fn push(&mut self, data: &[u8], limits: &BodyLimits) -> Result<(), Denial> {
        /// The size to which a buffer grows at once for a body that declares its length.
        const AT_ONCE: usize = 64 << 10;
        let length = self.bytes.len().saturating_add(data.len());
        if length > limits.bytes {
            return Err(limits.too_large());
        }
        let capacity = self.bytes.capacity();
        if length > capacity {
            let declared = self.declared.and_then(|bytes| usize::try_from(bytes).ok());
            let at_once = declared.unwrap_or_default().min(AT_ONCE);
            let most = declared.unwrap_or(limits.bytes);
            let wanted = capacity.saturating_mul(2).max(at_once).min(most).max(length);
            let wanted = match &mut self.held {
                Some(held) => {
                    let grown = held.grow_up_to(wanted - capacity, length - capacity);
                    capacity + grown.map_err(no_room)?
                }
                None => wanted,
            };
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    fn finish(self) -> HeldBody {
        match self.held {
            Some(held) => held.into_body(self.bytes),
            None => Bytes::from(self.bytes).into(),
        }
    }
}

fn broken(problem: impl Into<Box<dyn Error + Send + Sync>>) -> Denial {
    Denial::message(
        Phase::Handler,
        StatusCode::BAD_REQUEST,
        "BODY_BROKEN",
        "The request's body ended early.",
    )
    .with_internal_message(problem.into().to_string())
}

/// The denial of a body for which there is no room in memory.
fn no_room(problem: HoldError) -> Denial {
    match problem {
        HoldError::UsedUp { key } => Denial::message(
            Phase::Handler,
            StatusCode::SERVICE_UNAVAILABLE,
            "TEMPORARILY_UNAVAILABLE",
            "Too many request bodies are being read. Try again in a moment.",
        )
        .with_internal_message(format!("{key}, or this client's quarter of it, is used up"))
        .with_retry_after(1),
        HoldError::TooLarge { key, max } => Denial::message(
            Phase::Handler,
            StatusCode::PAYLOAD_TOO_LARGE,
            "CONTENT_TOO_LARGE",
            format!("The request's body is larger than {max} bytes."),
        )
        .with_internal_message(format!("a client may use a quarter of {key}; raise {key}")),
    }
}
