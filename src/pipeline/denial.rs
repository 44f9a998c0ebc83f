//! What a request gets that is not let through. A denial has two messages: what the client is told, and what the operator's log is told.
//!
//! A denial is a value and no response: one function at the edge turns every one of them into an answer.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, StatusCode};

use crate::{
    directory::CompiledApplication,
    limits::Suspect,
    model::{KeyId, Violation},
};

/// A refusal, and all that its answer says. Boxed, because few requests get one and every room can return it.
#[derive(Debug, Clone)]
pub struct Denial(Box<Parts>);

/// What a [`Denial`] is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where the request was refused.
    pub room: Phase,
    /// The status code of the answer.
    pub status: StatusCode,
    /// The stable name of the error, for programs.
    pub code: Cow<'static, str>,
    /// What the client is told, as a sentence.
    pub description: Cow<'static, str>,
    /// What the operator is told besides. Never a secret.
    pub detail: Option<Cow<'static, str>>,
    /// The form of the body.
    pub shape: Shape,
    /// `WWW-Authenticate`, which every 401 carries (RFC 9110, section 15.5.2).
    pub challenge: Option<HeaderValue>,
    /// More header fields: what limits say, and what a script has added.
    pub headers: HeaderMap,
    /// A body that a script has put in the place of the usual one.
    pub body: Option<ScriptedBody>,
    /// `Allow`, which every 405 carries (RFC 9110, section 15.5.6).
    pub allow: Option<String>,
    /// `X-Keyward-Hint`: what the person behind the client should look at.
    pub hint: Option<&'static str>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
    /// The fields that are not in order, where the fault is in the body.
    pub violations: Vec<Violation>,
    /// Who was refused, where the room knew that refused.
    pub(super) suspect: Suspect,
}

/// A refusal's body as a script wrote it.
#[derive(Debug, Clone)]
pub struct ScriptedBody {
    /// The text.
    pub text: String,
    /// Its media type; none: the usual one.
    pub content_type: Option<String>,
}

/// The form of a refusal's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"status","http_code","error","error_description"}`: authentication.
    Envelope,
    /// `{"message"}`: resources.
    Message,
    /// RFC 9457: the admin API.
    Problem,
}

/// Where a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the pipeline: the request itself is not in order.
    Edge,
    /// Which application, and is there a credential.
    Header,
    /// What the credential says.
    Decode,
    /// Whose it is.
    Lookup,
    /// Whether it is theirs.
    Verify,
    /// Whether they may.
    Permit,
    /// After the pipeline: what was asked for cannot be done.
    Handler,
}

impl Phase {
    /// The name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Header => "header",
            Self::Decode => "decode",
            Self::Lookup => "lookup",
            Self::Verify => "verify",
            Self::Permit => "permit",
            Self::Handler => "handler",
        }
    }
}

impl Denial {
    /// A refusal in the form that authentication answers with.
    pub fn new(
        room: Phase,
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Parts {
            room,
            status,
            code: code.into(),
            description: description.into(),
            detail: None,
            shape: Shape::Envelope,
            challenge: None,
            headers: HeaderMap::new(),
            body: None,
            allow: None,
            hint: None,
            retry_after: None,
            violations: Vec::new(),
            suspect: Suspect::default(),
        }))
    }

    /// A refusal in the form that resources answer with: `{"message": …}`.
    pub fn message(
        room: Phase,
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        let mut denial = Self::new(room, status, code, message);
        denial.0.shape = Shape::Message;
        denial
    }

    /// A 401 of an application, with its challenge.
    pub(super) fn unauthorized(
        room: Phase,
        application: &CompiledApplication,
        code: impl Into<Cow<'static, str>>,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        let mut denial = Self::new(room, StatusCode::UNAUTHORIZED, code, description);
        denial.0.challenge = Some(application.challenge.clone());
        denial
    }

    /// Adds what only the operator is told.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds whom it is about, which only the audit trail is told: a user who exists, and a key that has matched.
    #[must_use]
    pub(super) fn about(mut self, uid: u64, key: Option<KeyId>) -> Self {
        self.0.suspect = Suspect { uid: Some(uid), key, ..Suspect::default() };
        self
    }

    /// Adds `X-Keyward-Hint`.
    #[must_use]
    pub fn with_hint(mut self, hint: &'static str) -> Self {
        self.0.hint = Some(hint);
        self
    }

    /// Adds header fields.
    #[must_use]
    pub(super) fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.0.headers = headers;
        self
    }

    /// Adds a challenge.
    #[must_use]
    pub(super) fn with_challenge(mut self, challenge: HeaderValue) -> Self {
        self.0.challenge = Some(challenge);
        self
    }

    /// What a script has made of it.
    pub(super) fn parts_mut(&mut self) -> &mut Parts {
        &mut self.0
    }

    /// Adds `Allow`.
    #[must_use]
    pub fn with_allow(mut self, allow: String) -> Self {
        self.0.allow = Some(allow);
        self
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// Adds the fields that are not in order.
    #[must_use]
    pub fn with_violations(mut self, violations: Vec<Violation>) -> Self {
        self.0.violations = violations;
        self
    }

    /// The same refusal in another form.
    #[must_use]
    pub fn in_shape(mut self, shape: Shape) -> Self {
        self.0.shape = shape;
        self
    }
}

impl std::ops::Deref for Denial {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
