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
///
/// A scheduled backup that could not be written does not make it unready either: an orchestrator
/// would stop a server that serves well.
fn ready_body(accounts: &Accounts) -> Value {
    let mut body = json!({ "status": "ready" });
    let count = accounts.scripts().problems().len();
    if count > 0 {
        body["script_problems"] = json!(count);
    }
    if let Some(problem) = accounts.backup_problem() {
        body["backup_problem"] = json!(problem);
    }
    body
}
