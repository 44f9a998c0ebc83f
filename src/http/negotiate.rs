//! Checks the formats of a request: whether the method accepts the format of the body, and whether
//! it can respond in the format that the client wants.
//!
//! The client names the format of the response with the query parameter `_format`, as existing
//! clients do. `Accept` has no influence.

use ::http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE};

use crate::{
    model::Format,
    pipeline::{Denial, Phase, Request},
};

/// Checks a request against the formats of a method.
///
/// # Errors
/// The body or the wanted response has another format.
pub fn check_formats(request: &Request<'_>, formats: &[Format]) -> Result<(), Denial> {
    if formats.contains(&Format::Any) {
        return Ok(());
    }
    let has_body = [Method::POST, Method::PATCH, Method::PUT].contains(request.method)
        || request.method.as_str() == "QUERY";
    if has_body {
        check_body(request.headers, formats)?;
    }
    let might_name_format = |query: &&str| query.contains("format") || query.contains('%');
    let Some(query) = request.query.filter(might_name_format) else { return Ok(()) };
    // The last `_format` counts, as in Drupal, which the clients were written for.
    let wanted = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "_format");
    let Some((_, wanted)) = wanted.last() else { return Ok(()) };
    if Format::parse(&wanted).is_some_and(|format| formats.contains(&format)) {
        return Ok(());
    }
    let names: Vec<_> = formats.iter().map(|format| format.name()).collect();
    let names = names.join(", ");
    Err(Denial::message(
        Phase::Edge,
        StatusCode::NOT_ACCEPTABLE,
        "NOT_ACCEPTABLE",
        format!("No route found for the specified format. Supported formats: {names}."),
    ))
}

fn check_body(headers: &HeaderMap, formats: &[Format]) -> Result<(), Denial> {
    let unsupported = |message: String| {
        let (status, code) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE");
        Denial::message(Phase::Edge, status, code, message)
    };
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next() else {
        return Err(unsupported("No \"Content-Type\" request header specified".into()));
    };
    let mut given = String::from_utf8_lossy(value.as_bytes());
    // Several fields are no media type, even if they are equal. The message shows all of them.
    for other in values {
        given.to_mut().push_str(", ");
        given.to_mut().push_str(&String::from_utf8_lossy(other.as_bytes()));
    }
    // Parameters such as charset do not make another type (RFC 9110, section 8.3.1).
    let media_type = given.split(';').next().unwrap_or_default().trim();
    let is_supported = formats
        .iter()
        .flat_map(|format| format.media_types())
        .any(|supported| supported.eq_ignore_ascii_case(media_type));
    if is_supported && headers.get_all(CONTENT_TYPE).iter().nth(1).is_none() {
        Ok(())
    } else {
        Err(unsupported(format!("No route found that matches \"Content-Type: {given}\"")))
    }
}
