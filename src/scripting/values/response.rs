//! What scripts may change on the way out: a denial, a response, and the reply of a script that is a handler.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};

use super::headers;
use crate::scripting::fault::denied_status;

/// A denial, for `on_denied`. The script's changes are in what [`ScriptDenial::take`] returns.
#[derive(Clone)]
pub struct ScriptDenial(Arc<Mutex<DenialParts>>);

/// What a [`ScriptDenial`] is made of.
#[derive(Debug, Clone)]
pub struct DenialParts {
    /// The room that refused.
    pub room: String,
    /// 400 to 599, whatever the script does.
    pub status: StatusCode,
    /// The stable name of the error.
    pub code: String,
    /// What the client is told.
    pub description: String,
    /// The body in place of the usual one; none: the usual one.
    pub body: Option<String>,
    /// The content type of `body`.
    pub content_type: Option<String>,
    /// Header fields besides the usual ones, and in place of those of the same name.
    pub headers: HeaderMap,
}

impl ScriptDenial {
    /// Takes the parts in.
    pub fn new(parts: DenialParts) -> Self {
        Self(Arc::new(Mutex::new(parts)))
    }

    /// What the script has made of it. A status outside 400 to 599 could not be set; should one be there, it is 500.
    pub fn take(&self) -> DenialParts {
        let mut parts = self.lock().clone();
        if !(parts.status.is_client_error() || parts.status.is_server_error()) {
            parts.status = StatusCode::INTERNAL_SERVER_ERROR;
        }
        parts
    }

    pub(in crate::scripting) fn lock(&self) -> MutexGuard<'_, DenialParts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::scripting) fn set_status(&self, status: i64) -> Result<(), String> {
        self.lock().status = denied_status(status)?;
        Ok(())
    }

    pub(in crate::scripting) fn set_content_type(&self, text: &str) -> Result<(), String> {
        headers::value(&CONTENT_TYPE, text)?;
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

/// A response, for `on_response`. The script's changes are in what [`ScriptResponse::take`] returns.
#[derive(Clone)]
pub struct ScriptResponse(Arc<Mutex<ResponseParts>>);

/// What a [`ScriptResponse`] is made of.
#[derive(Clone)]
pub struct ResponseParts {
    /// 200 to 599.
    pub status: StatusCode,
    /// The header fields, as the client will get them.
    pub headers: HeaderMap,
    /// The body, where it is whole; none: it is streamed, and scripts can neither read nor set it.
    pub body: Option<Bytes>,
}

impl ScriptResponse {
    /// Takes the parts in.
    pub fn new(parts: ResponseParts) -> Self {
        Self(Arc::new(Mutex::new(parts)))
    }

    /// What the script has made of it.
    pub fn take(self) -> ResponseParts {
        match Arc::try_unwrap(self.0) {
            Ok(parts) => parts.into_inner().unwrap_or_else(PoisonError::into_inner),
            Err(shared) => shared.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    pub(in crate::scripting) fn lock(&self) -> MutexGuard<'_, ResponseParts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::scripting) fn set_status(&self, status: i64) -> Result<(), String> {
        self.lock().status = answer_status(status)?;
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

/// What a handler answers.
#[derive(Clone)]
pub struct HandlerResponse {
    /// 200 to 599.
    pub status: StatusCode,
    /// The header fields, `Content-Type` among them where there is a body.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl HandlerResponse {
    /// A reply with a body of this type.
    pub(in crate::scripting) fn new(
        status: i64,
        body: Bytes,
        content_type: &str,
    ) -> Result<Self, String> {
        let mut reply = Self { status: answer_status(status)?, headers: HeaderMap::new(), body };
        headers::set(&mut reply.headers, CONTENT_TYPE.as_str(), content_type)?;
        Ok(reply)
    }
}

impl fmt::Debug for HandlerResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandlerResponse({})", self.status.as_u16())
    }
}

/// The status of a whole answer; 1xx are none.
fn answer_status(status: i64) -> Result<StatusCode, String> {
    u16::try_from(status)
        .ok()
        .filter(|status| (200..=599).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| format!("{status} is no status of an answer; use one from 200 to 599"))
}
