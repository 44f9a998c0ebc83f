//! What supervisors ask: is the program alive, and can it do its work? Neither asks for a key, and neither tells a secret.

use ::http::{Method, StatusCode, request::Parts};
use serde_json::{Value, json};

use super::response;
use crate::{accounts::Accounts, handlers::PayloadResponse};

/// The answer, if that is what the request is for.
pub(super) fn answer(request: &Parts, accounts: &Accounts) -> Option<PayloadResponse> {
    if ![Method::GET, Method::HEAD].contains(&request.method) {
        return None;
    }
    match request.uri.path() {
        "/health/alive" => Some(response::json(StatusCode::OK, &json!({ "status": "alive" }))),
        "/health/ready" => Some(ready(accounts)),
        _ => None,
    }
}

/// Scripts that were refused, or are switched off, do not make a server unready: it decides by the last good ones, and refuses what it cannot
/// decide. They are counted here, and told in words to those who may see them.
fn script_problems(accounts: &Accounts) -> Value {
    match accounts.scripts().problems().len() {
        0 => json!({ "status": "ready" }),
        count => json!({ "status": "ready", "script_problems": count }),
    }
}

/// A server whose store has stopped writing goes on deciding, and wants to be looked at.
fn ready(accounts: &Accounts) -> PayloadResponse {
    match accounts.fault() {
        None => response::json(StatusCode::OK, &script_problems(accounts)),
        Some(fault) => {
            let reason =
                format!("The store stopped writing: {fault}. Restart when its cause is gone.");
            let body = json!({ "status": "unready", "reason": reason });
            response::json(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
    }
}
