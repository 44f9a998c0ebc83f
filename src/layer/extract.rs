//! The caller as an argument of an axum handler.

use ::http::{StatusCode, request::Parts};
use axum::extract::FromRequestParts;

use super::Identity;

/// The message of a route that no guard protects.
const NO_GUARD: &str = "No guard of Keyward protects this route.";

/// A handler takes the caller as an argument:
///
/// ```
/// use keyward::Identity;
/// async fn hello(caller: Identity) -> String {
///     format!("Hello, {}.", caller.name().unwrap_or("stranger"))
/// }
/// ```
///
/// On a route without a guard of Keyward, the response is 500.
impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let identity = parts.extensions.get::<Self>().cloned();
        identity.ok_or_else(|| {
            tracing::error!(path = parts.uri.path(), "no guard of Keyward protects this route");
            (StatusCode::INTERNAL_SERVER_ERROR, NO_GUARD)
        })
    }
}
