//! Formats: whether a request's body comes in one that the method takes, and whether the answer can have the one that was asked for.
//!
//! The format of the answer is asked for with the query parameter `_format`, the way existing clients do; `Accept` is not looked at.

use ::http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE};

use crate::{
    model::Format,
    pipeline::{Denial, Phase},
};

/// Why a request cannot be served in the formats that there are, if it cannot.
pub fn misuse(
    method: &Method,
    query: Option<&str>,
    headers: &HeaderMap,
    formats: &[Format],
) -> Option<Denial> {
    if formats.contains(&Format::Any) {
        return None;
    }
    if [Method::POST, Method::PATCH, Method::PUT].contains(method)
        && let Some(denial) = unsupported_body(headers, formats)
    {
        return Some(denial);
    }
    let asked = query.filter(|query| query.contains("format") || query.contains('%'))?;
    // The last one counts, as it does for the clients' old server.
    let (_, format) =
        form_urlencoded::parse(asked.as_bytes()).filter(|(name, _)| name == "_format").last()?;
    let is_known = Format::parse(&format).is_some_and(|format| formats.contains(&format));
    (!is_known).then(|| {
        let names: Vec<_> = formats.iter().map(|format| format.name()).collect();
        Denial::message(
            Phase::Edge,
            StatusCode::NOT_ACCEPTABLE,
            "NOT_ACCEPTABLE",
            format!(
                "No route found for the specified format. Supported formats: {}.",
                names.join(", ")
            ),
        )
    })
}

fn unsupported_body(headers: &HeaderMap, formats: &[Format]) -> Option<Denial> {
    let unsupported = |message: String| {
        Some(Denial::message(
            Phase::Edge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            message,
        ))
    };
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return unsupported("No \"Content-Type\" request header specified".into());
    };
    let given = String::from_utf8_lossy(value.as_bytes());
    // Parameters such as charset do not make another type (RFC 9110, section 8.3.1).
    let essence = given.split(';').next().unwrap_or_default().trim();
    let is_taken = formats
        .iter()
        .flat_map(|format| format.media_types())
        .any(|taken| taken.eq_ignore_ascii_case(essence));
    match is_taken && headers.get_all(CONTENT_TYPE).iter().count() == 1 {
        true => None,
        false => unsupported(format!("No route found that matches \"Content-Type: {given}\"")),
    }
}
