//! The health check on the public listener, for load balancers. It comes before routing, and needs
//! neither a host nor a credential.

use std::sync::Arc;

use ::http::{
    HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
    request::Parts,
};
use tokio::sync::watch;

use crate::{accounts::Accounts, handlers::PayloadResponse};

/// The health check at one path.
#[derive(Clone)]
pub(super) struct HealthCheck {
    path: Arc<str>,
    stopping: watch::Receiver<bool>,
}

impl HealthCheck {
    pub fn new(path: &str, stopping: watch::Receiver<bool>) -> Self {
        Self { path: path.into(), stopping }
    }

    /// The response to a health check. `None` means that the request is not a health check.
    ///
    /// The response is 503 if the server stops or the store has stopped writing, as at
    /// `/health/ready` of the admin listener. It does not tell the reason, because anybody can ask.
    pub fn respond(&self, head: &Parts, accounts: &Accounts) -> Option<PayloadResponse> {
        let is_check =
            head.uri.path() == &*self.path && [Method::GET, Method::HEAD].contains(&head.method);
        if !is_check {
            return None;
        }
        let (status, text) = if *self.stopping.borrow() {
            (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
        } else if accounts.fault().is_some() {
            (StatusCode::SERVICE_UNAVAILABLE, "unready\n")
        } else {
            (StatusCode::OK, "ok\n")
        };
        let mut response = PayloadResponse::new(text.into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(response)
    }
}
