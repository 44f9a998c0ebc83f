//! What every face does alike: one spelling of paths, one host, where a request leads, and one form for each answer.

pub(crate) mod host;
mod negotiate;
pub(crate) mod path;
pub mod response;

use ::http::StatusCode;

use crate::{
    directory::Found,
    handlers::Origin,
    pipeline::{Action, Denial, Phase, Request},
};

/// What a request wants to do, as far as the routes tell.
pub(crate) fn aim<'a>(
    request: &Request<'_>,
    found: Option<&Found<'a, '_>>,
    origin: Origin<'_>,
) -> Action<'a> {
    let Request { method, path, .. } = request;
    let Some(found) = found else {
        let message = format!("No route found for \"{method} {origin}{path}\"");
        let code = "ROUTE_NOT_FOUND";
        let denial = Denial::message(Phase::Edge, StatusCode::NOT_FOUND, code, message);
        return Action::Nowhere(denial);
    };
    let Some(rule) = found.rule(method.as_str()) else {
        let allow = found.allow();
        let message = format!(
            "No route found for \"{method} {origin}{path}\": Method Not Allowed (Allow: {allow})"
        );
        let code = "METHOD_NOT_ALLOWED";
        let denial = Denial::message(Phase::Edge, StatusCode::METHOD_NOT_ALLOWED, code, message);
        return Action::Nowhere(denial.with_allow(allow));
    };
    match negotiate::misuse(method, request.query, request.headers, &rule.formats) {
        Some(denial) => Action::Misuse(rule, denial),
        None => Action::Use(rule),
    }
}

/// A request whose target cannot be read in one way alone. Nobody is asked who it is: the same target could lead elsewhere behind us.
pub(crate) fn unreadable(problem: String) -> Denial {
    Denial::new(Phase::Edge, StatusCode::BAD_REQUEST, "BAD_REQUEST", problem)
}
