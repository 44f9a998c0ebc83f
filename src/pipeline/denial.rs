//! A [`Denial`] says why a request was refused, with one message for the client and one for the
//! operator.
//!
//! A denial is not yet a response. The function `http::response::denial` turns every denial into a
//! response.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, StatusCode};

use crate::{
    directory::CompiledApplication,
    limits::Subject,
    model::{KeyId, Violation},
};

/// The message of a wrong key.
pub(super) const INVALID_KEY: &str = "Sorry, you are using an invalid API Key.";

/// A refused request. The fields are boxed to keep the results of the phases small: every phase can
/// return a denial, but few requests are denied.
#[derive(Debug, Clone)]
pub struct Denial(Box<DenialFields>);

/// The fields of a [`Denial`].
#[derive(Debug, Clone)]
pub struct DenialFields {
    /// The phase that refused the request.
    pub phase: Phase,
    /// The status code of the response.
    pub status: StatusCode,
    /// The stable name of the error, for programs.
    pub code: Cow<'static, str>,
    /// The message for the client, as a sentence.
    pub external_message: Cow<'static, str>,
    /// The message for the operator's log. The client never gets this message, and the message
    /// never contains a secret.
    pub internal_message: Option<Cow<'static, str>>,
    /// The form of the body.
    pub shape: Shape,
    /// The values of `WWW-Authenticate`, which every 401 must have (RFC 9110, section 15.5.2).
    pub challenges: Vec<HeaderValue>,
    /// Additional header fields: the fields of the limits, and fields that a script has added.
    pub headers: HeaderMap,
    /// A body that a script has set; `None` means the usual body.
    pub body: Option<ScriptedBody>,
    /// `Allow`, which every 405 must have (RFC 9110, section 15.5.6).
    pub allow: Option<String>,
    /// `X-Keyward-Hint`: advice for the person who set up the client.
    pub hint: Option<&'static str>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
    /// The invalid fields of the request's body.
    pub violations: Vec<Violation>,
    /// The user who was refused, if the refusing phase knew one.
    pub(super) subject: Subject,
    /// The id of the application with a scripted authentication type whose challenge this is.
    pub(super) challenger: Option<String>,
    /// Whether the denial counts as a failure of the client's address in any phase.
    pub(super) is_failure: bool,
}

/// The body of a denial, as set by a script.
#[derive(Debug, Clone)]
pub struct ScriptedBody {
    /// The text.
    pub text: String,
    /// The media type; `None` means the usual media type.
    pub content_type: Option<String>,
}

/// The form of a denial's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"status","http_code","error","error_description"}`, for authentication.
    Envelope,
    /// `{"message"}`, for resources.
    Message,
    /// RFC 9457, for the admin API.
    Problem,
}

/// The phase that refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the pipeline: the request is malformed.
    Edge,
    /// Choosing the application and reading the credential's header field.
    Header,
    /// Decoding the credential.
    Decode,
    /// Finding the user and the key.
    Lookup,
    /// Checking the credential.
    Verify,
    /// Checking permissions and limits.
    Permit,
    /// After the pipeline: the handler could not do what was requested.
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
    /// A denial with the body of authentication errors ([`Shape::Envelope`]).
    pub fn new(
        phase: Phase,
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        external_message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(DenialFields {
            phase,
            status,
            code: code.into(),
            external_message: external_message.into(),
            internal_message: None,
            shape: Shape::Envelope,
            challenges: Vec::new(),
            headers: HeaderMap::new(),
            body: None,
            allow: None,
            hint: None,
            retry_after: None,
            violations: Vec::new(),
            subject: Subject::default(),
            challenger: None,
            is_failure: false,
        }))
    }

    /// The denial, counted as a failure of the client's address in any phase.
    #[must_use]
    pub(super) fn counted_as_failure(mut self) -> Self {
        self.0.is_failure = true;
        self
    }

    /// A denial with the body of resources: `{"message": …}`.
    pub fn message(
        phase: Phase,
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        external_message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(phase, status, code, external_message).in_shape(Shape::Message)
    }

    /// A 401 of an application, with the application's challenge.
    pub(super) fn unauthorized(
        phase: Phase,
        application: &CompiledApplication,
        code: impl Into<Cow<'static, str>>,
        external_message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(phase, StatusCode::UNAUTHORIZED, code, external_message)
            .challenged_by(application)
    }

    /// The 401 of a key that is wrong. The client does not learn why.
    pub(super) fn wrong_key(
        application: &CompiledApplication,
        internal_message: &'static str,
    ) -> Self {
        Self::unauthorized(Phase::Verify, application, "AUTHENTICATION_FAILED", INVALID_KEY)
            .with_internal_message(internal_message)
    }

    /// Sets the challenge of an application. In later phases than the header phase, the client has
    /// sent a credential, which the challenge says (RFC 6750, section 3).
    #[must_use]
    pub(super) fn challenged_by(mut self, application: &CompiledApplication) -> Self {
        self.0.challenger =
            application.record.auth_type.script().map(|_| application.record.id.clone());
        let challenge = match self.0.phase {
            Phase::Header => &application.challenge,
            _ => &application.rejection,
        };
        self.0.challenges = vec![challenge.clone()];
        self
    }

    /// Sets the message for the operator's log.
    #[must_use]
    pub fn with_internal_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.0.internal_message = Some(message.into());
        self
    }

    /// Sets the user and the key for the audit trail; the response does not contain them. The user
    /// must exist, and the key must have matched.
    #[must_use]
    pub(super) fn about(mut self, uid: u64, key: Option<KeyId>) -> Self {
        self.0.subject = Subject { uid: Some(uid), key, ..Subject::default() };
        self
    }

    /// Sets `X-Keyward-Hint`.
    #[must_use]
    pub fn with_hint(mut self, hint: &'static str) -> Self {
        self.0.hint = Some(hint);
        self
    }

    /// Sets the additional header fields.
    #[must_use]
    pub(super) fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.0.headers = headers;
        self
    }

    /// Sets `WWW-Authenticate`.
    #[must_use]
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server uses it"))]
    pub(crate) fn with_challenge(self, challenge: HeaderValue) -> Self {
        self.with_challenges(vec![challenge])
    }

    /// Sets the values of `WWW-Authenticate`.
    #[must_use]
    pub(super) fn with_challenges(mut self, challenges: Vec<HeaderValue>) -> Self {
        self.0.challenges = challenges;
        self
    }

    /// The additional header fields.
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.0.headers
    }

    /// The fields, for the changes that a script makes.
    pub(super) fn fields_mut(&mut self) -> &mut DenialFields {
        &mut self.0
    }

    /// Sets `Allow`.
    #[must_use]
    pub fn with_allow(mut self, allow: String) -> Self {
        self.0.allow = Some(allow);
        self
    }

    /// Sets `Retry-After`.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// Sets the invalid fields of the request's body.
    #[must_use]
    pub fn with_violations(mut self, violations: Vec<Violation>) -> Self {
        self.0.violations = violations;
        self
    }

    /// Sets the form of the body.
    #[must_use]
    pub fn in_shape(mut self, shape: Shape) -> Self {
        self.0.shape = shape;
        self
    }
}

impl std::ops::Deref for Denial {
    type Target = DenialFields;

    fn deref(&self) -> &DenialFields {
        &self.0
    }
}
