//! Turns denials into responses, and reports them to the log.

use std::net::IpAddr;

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    handlers::{PassThrough, Payload, PayloadResponse},
    model::Violation,
    pipeline::{Denial, ScriptedBody, Shape},
};

/// The challenge of a 401 that belongs to no application.
const DEFAULT_CHALLENGE: HeaderValue = HeaderValue::from_static("ApiKey realm=\"Keyward\"");
const HINT: HeaderName = HeaderName::from_static("x-keyward-hint");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The response to a denied request. The response does not contain the message for the operator,
/// [`internal_message`](crate::pipeline::DenialFields::internal_message).
pub fn from_denial(denial: &Denial) -> PayloadResponse {
    let (media_type, body) = match (&denial.body, denial.shape) {
        (Some(body), _) => (media_type(body), body.text.clone()),
        (None, Shape::Envelope) => {
            (JSON, envelope(denial.status, &denial.code, &denial.external_message))
        }
        (None, Shape::Message) => (JSON, json!({ "message": denial.external_message }).to_string()),
        (None, Shape::Problem) => (PROBLEM_JSON, problem(denial)),
    };
    let mut response = PayloadResponse::new(body.into());
    *response.status_mut() = denial.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, media_type);
    // No cache may keep a denial, because the next request may be allowed.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for challenge in &denial.challenges {
        headers.append(WWW_AUTHENTICATE, challenge.clone());
    }
    if let Some(allow) = denial.allow.as_deref().and_then(|allow| allow.try_into().ok()) {
        headers.insert(ALLOW, allow);
    }
    if let Some(seconds) = denial.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if let Some(hint) = denial.hint {
        headers.insert(HINT, HeaderValue::from_static(hint));
    }
    add_script_headers(denial, headers);
    response
}

fn media_type(body: &ScriptedBody) -> HeaderValue {
    body.content_type.as_deref().and_then(|text| text.try_into().ok()).unwrap_or(JSON)
}

/// Adds the header fields that a script has set, which replace the usual fields of the same names.
/// Every 401 gets a challenge, even if a script has chosen the status.
fn add_script_headers(denial: &Denial, headers: &mut HeaderMap) {
    for name in denial.headers.keys() {
        headers.remove(name);
    }
    headers.extend(denial.headers.clone());
    if denial.status == StatusCode::UNAUTHORIZED && !headers.contains_key(WWW_AUTHENTICATE) {
        headers.insert(WWW_AUTHENTICATE, DEFAULT_CHALLENGE);
    }
}

/// The error envelope, indented by four spaces and without a line end after the last brace, because
/// existing clients compare the envelope as text.
pub(crate) fn envelope(status: StatusCode, code: &str, description: &str) -> String {
    // The text is written part by part, so that a request with a wrong key costs no more than an
    // allowed request.
    let mut text = String::with_capacity(128 + code.len() + description.len());
    text.push_str("{\n    \"status\": \"error\",\n    \"http_code\": ");
    text.push_str(status.as_str());
    text.push_str(",\n    \"error\": ");
    push_quoted(code, &mut text);
    text.push_str(",\n    \"error_description\": ");
    push_quoted(description, &mut text);
    text.push_str("\n}");
    text
}

/// Appends a JSON string.
fn push_quoted(value: &str, text: &mut String) {
    let is_plain = |b: u8| b >= b' ' && b != b'"' && b != b'\\';
    if value.bytes().fold(true, |so_far, b| so_far & is_plain(b)) {
        text.push('"');
        text.push_str(value);
        text.push('"');
    } else {
        text.push_str(&Value::from(value).to_string());
    }
}

/// Problem details (RFC 9457). The error code becomes the last part of the type. `errors` has one
/// entry for each invalid field.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Violation],
}

fn problem(denial: &Denial) -> String {
    let problem = Problem {
        r#type: format!(
            "urn:keyward:problem:{}",
            denial.code.to_ascii_lowercase().replace('_', "-")
        ),
        title: denial.status.canonical_reason().unwrap_or("Error"),
        status: denial.status.as_u16(),
        detail: &denial.external_message,
        errors: &denial.violations,
    };
    // Texts and numbers can always be written as JSON.
    serde_json::to_string(&problem).unwrap_or_default()
}

/// The body of a denial in one line, for a header field.
#[cfg(feature = "server")]
pub(crate) fn one_line_body(denial: &Denial) -> Option<HeaderValue> {
    let body = match denial.shape {
        Shape::Envelope => json!({
            "status": "error",
            "http_code": denial.status.as_u16(),
            "error": denial.code,
            "error_description": denial.external_message,
        })
        .to_string(),
        Shape::Message => json!({ "message": denial.external_message }).to_string(),
        Shape::Problem => problem(denial),
    };
    HeaderValue::try_from(body).ok()
}

/// Logs a denial for the operator. Neither the query nor a header field is written, because both
/// can contain secrets.
pub fn report(denial: &Denial, method: &Method, path: &str, client: IpAddr) {
    let (phase, status, code) = (denial.phase.name(), denial.status.as_u16(), &*denial.code);
    let detail = denial.internal_message.as_deref().unwrap_or_default();
    if denial.status.is_server_error() {
        tracing::error!(phase, status, code, %method, path, %client, detail, "refused");
    } else {
        tracing::info!(phase, status, code, %method, path, %client, detail, "refused");
    }
}

/// The response that a request with this method gets: for `HEAD`, the response has no body (RFC
/// 9110, section 9.3.2).
///
/// The `Content-Length` of a streamed response, or of an upstream's response, stays unchanged,
/// because such a response was made for this method.
pub fn for_method(method: &Method, mut response: PayloadResponse) -> PayloadResponse {
    if method == Method::HEAD {
        let is_from_upstream = response.extensions().get::<PassThrough>().is_some();
        if let Payload::Full(body) = response.body()
            && !is_from_upstream
        {
            let length = body.len();
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        *response.body_mut() = Payload::default();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Phase;

    fn body(response: PayloadResponse) -> String {
        use http_body_util::BodyExt as _;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn envelope_has_the_exact_text_that_clients_compare() {
        let refused = Denial::new(
            Phase::Header,
            StatusCode::UNAUTHORIZED,
            "MISSING_API_KEY_HEADER",
            "API key header is missing.",
        )
        .with_internal_message("for the operator");
        let response = from_denial(&refused);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(
            body(response),
            "{\n    \"status\": \"error\",\n    \"http_code\": 401,\n    \"error\": \"MISSING_API_KEY_HEADER\",\n    \
             \"error_description\": \"API key header is missing.\"\n}"
        );
    }

    #[test]
    fn envelope_is_valid_json_for_every_text() {
        for text in ["", "plain", "\"", "a\\", "\u{0}\n", "\u{1f}", "\u{7f}", "é\u{2028}", "\"}"] {
            let written = envelope(StatusCode::FORBIDDEN, "CODE", text);
            let read: Value = serde_json::from_str(&written).unwrap();
            assert_eq!(
                (&read["error_description"], &read["error"]),
                (&json!(text), &json!("CODE"))
            );
        }
    }

    #[test]
    fn message_and_problem_shapes_contain_the_same_facts() {
        let refused = Denial::message(
            Phase::Handler,
            StatusCode::UNPROCESSABLE_ENTITY,
            "INVALID",
            "No \"x\".",
        )
        .with_violations(vec![Violation::new("name", "Missing.", "Give one.")]);
        assert_eq!(body(from_denial(&refused)), r#"{"message":"No \"x\"."}"#);
        let response = from_denial(&refused.in_shape(Shape::Problem));
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            body(response),
            r#"{"type":"urn:keyward:problem:invalid","title":"Unprocessable Entity","status":422,"detail":"No \"x\".","errors":[{"location":"name","message":"Missing.","fix":"Give one."}]}"#
        );
    }

    #[test]
    fn head_gets_the_length_of_a_full_body_and_keeps_the_length_of_a_streamed_body() {
        let whole = for_method(&Method::HEAD, PayloadResponse::new("four".into()));
        assert_eq!(whole.headers()[CONTENT_LENGTH], "4");
        assert_eq!(body(whole), "");
        let mut streamed = PayloadResponse::new(Payload::stream(Payload::default()));
        streamed.headers_mut().insert(CONTENT_LENGTH, 7.into());
        let streamed = for_method(&Method::HEAD, streamed);
        assert_eq!(streamed.headers()[CONTENT_LENGTH], "7");
        let unknown =
            for_method(&Method::HEAD, PayloadResponse::new(Payload::stream(Payload::default())));
        assert!(!unknown.headers().contains_key(CONTENT_LENGTH));
        assert_eq!(body(for_method(&Method::GET, PayloadResponse::new("four".into()))), "four");
    }
}
