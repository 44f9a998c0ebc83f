//! Health checks for supervisors: is the process alive, and is it ready? Health checks need no key,
//! and their responses contain no secret.

use ::http::{Method, StatusCode, request::Parts};
use serde_json::{Value, json};

use super::response;
use crate::{
    accounts::{Accounts, TrailStatus},
    handlers::PayloadResponse,
    limits::BufferUse,
};

/// Returns the problem of the listeners' certificates. `None` means that there is none.
type CertificateProblem<'a> = &'a (dyn Fn() -> Option<String> + Send + Sync);

/// The response to a health check. `None` means that the request is not a health check.
pub(super) fn respond(
    head: &Parts,
    accounts: &Accounts,
    certificates: Option<CertificateProblem<'_>>,
) -> Option<PayloadResponse> {
    if ![Method::GET, Method::HEAD].contains(&head.method) {
        return None;
    }
    match head.uri.path() {
        "/health/alive" => Some(response::json(StatusCode::OK, &json!({ "status": "alive" }))),
        "/health/ready" => Some(ready(accounts, certificates)),
        _ => None,
    }
}

/// The response to `/health/ready`. If the store has stopped writing, the server continues to
/// decide requests, but the server is not ready, because an operator has to repair the store.
fn ready(accounts: &Accounts, certificates: Option<CertificateProblem<'_>>) -> PayloadResponse {
    match accounts.fault() {
        None => {
            let mut body = ready_body(accounts);
            if let Some(problem) = certificates.and_then(|problem| problem()) {
                body["certificate_problem"] = problem.into();
            }
            response::json(StatusCode::OK, &body)
        }
        Some(fault) => {
            let reason = format!("The store stopped writing: {fault}. Fix the cause and restart.");
            let body = json!({ "status": "unready", "reason": reason });
            response::json(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
    }
}

/// The body for a ready server, with the number of script problems. A server with script problems
/// is ready, because it uses the last valid scripts and denies requests that need a script that is
/// switched off. `/api/v1/scripts` shows the problems to authorized clients.
///
/// A broken audit trail does not make a server unready either: decisions do not need the trail, and
/// a restart would not repair it. The same is true for a scheduled backup that could not be
/// written, and for a certificate that is not valid.
fn ready_body(accounts: &Accounts) -> Value {
    let mut body = json!({ "status": "ready" });
    let problems = accounts.scripts().problems().len();
    if problems > 0 {
        body["script_problems"] = problems.into();
    }
    let tables = accounts.scripts().table_entries();
    if (tables.once, tables.rate_limit) != (0, 0) {
        body["script_tables"] = json!({ "once": tables.once, "rate_limit": tables.rate_limit });
    }
    let buffers = accounts.buffers().usage();
    if buffers != BufferUse::default() {
        body["buffers"] = json!({
            "bytes": buffers.bytes,
            "unauthenticated_bytes": buffers.unauthenticated_bytes,
            "refused": buffers.refused,
        });
    }
    let trail = accounts.trail_status();
    if matches!(trail, TrailStatus::Tampered { .. } | TrailStatus::Unreadable(_)) {
        body["audit_problem"] = trail.to_string().into();
    }
    if let Some(problem) = accounts.backup_problem() {
        body["backup_problem"] = json!(problem);
    }
    // Decisions are safe in the meantime, because the clock does not go back for them.
    if let Some(seconds) = accounts.clock().seconds_behind() {
        body["clock_behind_seconds"] = seconds.into();
    }
    body
}
