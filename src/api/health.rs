//! Health checks for supervisors: is the process alive, and is it ready? They need no key, and the
//! responses contain no secret.

use ::http::{Method, StatusCode, request::Parts};
use serde_json::{Value, json};

use super::response;
use crate::{accounts::Accounts, handlers::PayloadResponse};

/// The response to a health check. `None` means that the request is not a health check.
pub(super) fn respond(head: &Parts, accounts: &Accounts) -> Option<PayloadResponse> {
    if ![Method::GET, Method::HEAD].contains(&head.method) {
        return None;
    }
    match head.uri.path() {
        "/health/alive" => Some(response::json(StatusCode::OK, &json!({ "status": "alive" }))),
        "/health/ready" => Some(ready(accounts)),
        _ => None,
    }
}

/// A server whose store has stopped writing still decides requests, but an operator has to act.
fn ready(accounts: &Accounts) -> PayloadResponse {
    match accounts.fault() {
        None => response::json(StatusCode::OK, &ready_body(accounts)),
        Some(fault) => {
            let reason = format!("The store stopped writing: {fault}. Fix the cause and restart.");
            let body = json!({ "status": "unready", "reason": reason });
            response::json(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
    }
}

/// Rejected scripts and scripts that are switched off do not make a server unready: it uses the
/// last valid scripts, and denies the requests that it cannot decide. The body has only the number
/// of problems. `/api/v1/scripts` shows them to authorized clients.
fn ready_body(accounts: &Accounts) -> Value {
    let mut body = json!({ "status": "ready" });
    match accounts.scripts().problems().len() {
        0 => {}
        count => body["script_problems"] = count.into(),
    }
    // Decisions are safe meanwhile, because the clock does not go back for them.
    if let Some(seconds) = accounts.clock().seconds_behind() {
        body["clock_behind_seconds"] = seconds.into();
    }
    body
}
