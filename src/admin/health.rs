//! What supervisors ask: is the program alive, and can it do its work? Neither asks for a key, and neither tells a secret.

use ::http::{Method, StatusCode, request::Parts};
use serde_json::json;

use super::answer;
use crate::{accounts::Accounts, handlers::Reply};

/// The answer, if that is what the request is for.
pub(super) fn answer(request: &Parts, accounts: &Accounts) -> Option<Reply> {
    if ![Method::GET, Method::HEAD].contains(&request.method) {
        return None;
    }
    match request.uri.path() {
        "/health/alive" => Some(answer::json(StatusCode::OK, &json!({ "status": "alive" }))),
        "/health/ready" => Some(ready(accounts)),
        _ => None,
    }
}

/// A server whose store has stopped writing goes on deciding, and wants to be looked at.
fn ready(accounts: &Accounts) -> Reply {
    match accounts.fault() {
        None => answer::json(StatusCode::OK, &json!({ "status": "ready" })),
        Some(fault) => {
            let reason =
                format!("The store stopped writing: {fault}. Restart when its cause is gone.");
            let body = json!({ "status": "unready", "reason": reason });
            answer::json(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
    }
}
