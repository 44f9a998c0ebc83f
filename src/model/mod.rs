//! Records, ids, secrets and permissions: plain data and its validation.
//!
//! Nothing here does I/O. A function that needs the time or random bytes gets a [`Clock`] or an
//! [`Entropy`] from its caller.

mod application;
mod audit;
mod client;
mod credential;
mod entropy;
mod fold;
mod ids;
mod key;
mod limit;
mod mode;
mod permission;
mod resource;
mod role;
mod secret;
mod span;
mod time;
mod user;
mod violation;

pub use application::{Application, AuthType, Detail, KeySource};
pub use audit::{Act, Actor, AuditEntry, OperatorProcess, SECRET_PLACEHOLDER};
pub(crate) use client::client_network;
pub use credential::{
    CredentialParts, has_similar_prefix, is_similar, is_similar_parameter, title,
};
pub use entropy::Entropy;
pub(crate) use fold::compose;
pub use fold::fold;
pub use ids::{KeyId, check_id};
pub(crate) use key::ends;
pub use key::forms::{Candidate, candidates};
pub use key::redact::redact_keys;
pub use key::scan::{Form, Found, Scanner};
pub use key::scheme::Scheme;
pub use key::text::{KeyShape, KeyText, MAX_PREFIX};
pub use key::{Key, MOST_SLOW_KEYS, Rotation};
pub use limit::{Credits, Period, RateLimit, Refill};
pub use mode::Mode;
pub use permission::{Permissions, SHIPPED};
pub use resource::{
    ANY_METHOD, Ambiguous, BodyLimit, BodyRules, Cors, Format, ForwardedField, Handler, METHODS,
    MethodRules, OriginPattern, PathOptions, PermissionSource, PreflightMode, Protocol, Proxy,
    Resource, Respond, Route, Rules, SpecialAddress, Target, Transport, WebOrigin, known_method,
    method_of_record, normal_host,
};
pub(crate) use resource::{is_refused_method, sort_methods};
pub use role::{ADMINISTRATOR, ANONYMOUS, AUTHENTICATED, Role};
pub use secret::{AuditKey, BackupKey, Digest, PasswordDigest, Pepper, Secret};
pub use span::{Expires, parse_span};
#[cfg(feature = "server")]
pub(crate) use span::{parse_day, start_of};
pub use time::{Clock, Timestamp};
pub use user::{User, mail_problem, name_problem};
pub use violation::{Violation, suggest::suggest};

/// A value that a request borrows until the request ends. To borrow the value, a request usually
/// does not change the reference count of the `Arc`. So the CPU cores do not contend for the count.
pub type Borrowed<T> = arc_swap::Guard<std::sync::Arc<T>>;
