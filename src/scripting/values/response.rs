//! The outgoing values that scripts may change: denials, responses, and the responses of handler
//! scripts.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use parking_lot::{Mutex, MutexGuard};

use super::headers;
use crate::scripting::fault::denied_status;

/// A denial for `on_denied`. [`ScriptDenial::take`] returns it with the script's changes.
#[derive(Clone)]
pub struct ScriptDenial(Arc<Mutex<DenialParts>>);

/// The contents of a [`ScriptDenial`].
#[derive(Debug, Clone)]
pub struct DenialParts {
    /// The phase that denied the request.
    pub phase: String,
    /// The status, from 400 to 599. A script cannot set any other status.
    pub status: StatusCode,
    /// The error code.
    pub code: String,
    /// The description for the client.
    pub description: String,
    /// The body; `None` means the default body.
    pub body: Option<String>,
    /// The content type of `body`.
    pub content_type: Option<String>,
    /// Additional header fields, which replace default fields of the same name.
    pub headers: HeaderMap,
}

impl ScriptDenial {
    /// A denial with these contents.
    pub fn new(parts: DenialParts) -> Self {
        Self(Arc::new(Mutex::new(parts)))
    }

    /// The denial with the script's changes. Scripts cannot set a status outside 400 to 599. If
    /// Rust code has set such a status, it becomes 500.
    pub fn take(&self) -> DenialParts {
        let mut parts = self.lock().clone();
        if !(parts.status.is_client_error() || parts.status.is_server_error()) {
            parts.status = StatusCode::INTERNAL_SERVER_ERROR;
        }
        parts
    }

    pub(in crate::scripting) fn lock(&self) -> MutexGuard<'_, DenialParts> {
        self.0.lock()
    }

    pub(in crate::scripting) fn set_status(&self, status: i64) -> Result<(), String> {
        self.lock().status = denied_status(status)?;
        Ok(())
    }

    pub(in crate::scripting) fn set_content_type(&self, text: &str) -> Result<(), String> {
        headers::parse_value(&CONTENT_TYPE, text)?;
        self.lock().content_type = Some(text.to_owned());
        Ok(())
    }
}

impl fmt::Debug for ScriptDenial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.lock();
        write!(f, "ScriptDenial({} {})", parts.status.as_u16(), parts.code)
    }
}

/// A response for `on_response`. [`ScriptResponse::take`] returns it with the script's changes.
#[derive(Clone)]
pub struct ScriptResponse(Arc<Mutex<ResponseParts>>);

/// The contents of a [`ScriptResponse`].
#[derive(Clone)]
pub struct ResponseParts {
    /// The status, from 200 to 599.
    pub status: StatusCode,
    /// The header fields for the client.
    pub headers: HeaderMap,
    /// The complete body. `None` means that the body is streamed, so that scripts can neither read
    /// nor set it.
    pub body: Option<Bytes>,
}

impl ScriptResponse {
    /// A response with these contents.
    pub fn new(parts: ResponseParts) -> Self {
        Self(Arc::new(Mutex::new(parts)))
    }

    /// The response with the script's changes.
    pub fn take(self) -> ResponseParts {
        match Arc::try_unwrap(self.0) {
            Ok(parts) => parts.into_inner(),
            Err(shared) => shared.lock().clone(),
        }
    }

    pub(in crate::scripting) fn lock(&self) -> MutexGuard<'_, ResponseParts> {
        self.0.lock()
    }

    /// The size of the body or of the largest header field, in bytes.
    pub(in crate::scripting) fn largest_part(&self) -> usize {
        let parts = self.lock();
        let body = parts.body.as_ref().map_or(0, Bytes::len);
        body.max(headers::largest_field(&parts.headers))
    }

    pub(in crate::scripting) fn set_status(&self, status: i64) -> Result<(), String> {
        self.lock().status = response_status(status)?;
        Ok(())
    }

    pub(in crate::scripting) fn set_body(&self, text: &str) -> Result<(), String> {
        let mut parts = self.lock();
        if parts.body.is_none() {
            return Err("the body is streamed and cannot be set".into());
        }
        parts.body = Some(Bytes::copy_from_slice(text.as_bytes()));
        Ok(())
    }
}

impl fmt::Debug for ScriptResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScriptResponse({})", self.lock().status.as_u16())
    }
}

/// The response of a handler script.
#[derive(Clone)]
pub struct HandlerResponse {
    /// The status, from 200 to 599.
    pub status: StatusCode,
    /// The header fields, including `Content-Type` if there is a body.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl HandlerResponse {
    /// A response with a body of this content type.
    pub(in crate::scripting) fn new(
        status: i64,
        body: Bytes,
        content_type: &str,
    ) -> Result<Self, String> {
        let mut response =
            Self { status: response_status(status)?, headers: HeaderMap::new(), body };
        headers::set(&mut response.headers, CONTENT_TYPE.as_str(), content_type)?;
        Ok(response)
    }
}

impl fmt::Debug for HandlerResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandlerResponse({})", self.status.as_u16())
    }
}

/// Checks a status code for a final response. The codes below 200 are for interim responses.
fn response_status(status: i64) -> Result<StatusCode, String> {
    u16::try_from(status)
        .ok()
        .filter(|status| (200..=599).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| {
            format!("a response cannot have the status {status}; use a status from 200 to 599")
        })
}
