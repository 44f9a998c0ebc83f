//! The one function that turns denials into answers.

use std::net::IpAddr;

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    request::Parts,
};
use serde_json::{Value, json};

use crate::{
    handlers::{Foreign, Payload, PayloadResponse},
    pipeline::{Denial, ResponseHooks, ScriptedBody, Shape},
    scripting::ResponseParts,
};

/// The challenge of a 401 that belongs to no application.
const SOME_CHALLENGE: HeaderValue = HeaderValue::from_static("ApiKey realm=\"Keyward\"");
const HINT: HeaderName = HeaderName::from_static("x-keyward-hint");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The answer to a request that was refused. Says nothing of [`detail`](crate::pipeline::Parts::detail), which is the operator's.
pub fn denial(denial: &Denial) -> PayloadResponse {
    let (media_type, body) = match (&denial.body, denial.shape) {
        (Some(body), _) => (media_type(body), body.text.clone()),
        (None, Shape::Envelope) => {
            (JSON, envelope(denial.status, &denial.code, &denial.description))
        }
        (None, Shape::Message) => (JSON, json!({ "message": denial.description }).to_string()),
        (None, Shape::Problem) => (PROBLEM_JSON, problem(denial).to_string()),
    };
    let mut reply = PayloadResponse::new(body.into());
    *reply.status_mut() = denial.status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, media_type);
    // The next request may be let in.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(challenge) = &denial.challenge {
        headers.insert(WWW_AUTHENTICATE, challenge.clone());
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
    dress(denial, headers);
    reply
}

fn media_type(body: &ScriptedBody) -> HeaderValue {
    body.content_type.as_deref().and_then(|text| text.try_into().ok()).unwrap_or(JSON)
}

/// What a script has made of a refusal: its fields go before the usual ones. A challenge is on every 401, whoever made it one.
fn dress(denial: &Denial, headers: &mut HeaderMap) {
    for name in denial.headers.keys() {
        headers.remove(name);
    }
    headers.extend(denial.headers.clone());
    if denial.status == StatusCode::UNAUTHORIZED && !headers.contains_key(WWW_AUTHENTICATE) {
        headers.insert(WWW_AUTHENTICATE, SOME_CHALLENGE);
    }
}

/// Leads an answer through the hooks. What flows they cannot see; its status and fields they can.
pub(crate) async fn through(
    aftermath: &ResponseHooks<'_>,
    reply: PayloadResponse,
) -> Result<PayloadResponse, Denial> {
    let (mut parts, payload) = reply.into_parts();
    let (body, flowing) = match payload {
        Payload::Full(bytes) => (Some(bytes), None),
        flowing => (None, Some(flowing)),
    };
    let shown = ResponseParts { status: parts.status, headers: parts.headers, body };
    let made = aftermath.answer(shown).await?;
    parts.status = made.status;
    parts.headers = made.headers;
    let whole = made.body.unwrap_or_default();
    Ok(Response::from_parts(parts, flowing.unwrap_or(Payload::Full(whole))))
}

/// Four spaces, and no line end after the last brace: clients compare it as text.
pub(crate) fn envelope(status: StatusCode, code: &str, description: &str) -> String {
    // Written part by part: whoever knocks all the time with a wrong key is to cost no more than who comes in.
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

/// Adds a text as a JSON string.
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

/// RFC 9457. The code is the type's last part; `errors` has one entry a field.
fn problem(denial: &Denial) -> Value {
    let mut problem = json!({
        "type": format!("urn:keyward:problem:{}", denial.code.to_ascii_lowercase().replace('_', "-")),
        "title": denial.status.canonical_reason().unwrap_or("Error"),
        "status": denial.status.as_u16(),
        "detail": denial.description,
    });
    if !denial.violations.is_empty() {
        problem["errors"] = json!(denial.violations);
    }
    problem
}

/// A refusal's body where it has to fit into a header field.
pub(crate) fn in_one_line(denial: &Denial) -> Option<HeaderValue> {
    let body = match denial.shape {
        Shape::Envelope => json!({
            "status": "error",
            "http_code": denial.status.as_u16(),
            "error": denial.code,
            "error_description": denial.description,
        }),
        Shape::Message => json!({ "message": denial.description }),
        Shape::Problem => problem(denial),
    };
    HeaderValue::try_from(body.to_string()).ok()
}

/// Tells the operator's log about a refusal. Neither the query nor a header is written: both can hold secrets.
pub fn report(denial: &Denial, request: &Parts, client: IpAddr) {
    report_of(denial, &request.method, request.uri.path(), client);
}

/// The same about a request that somebody else holds.
pub(crate) fn report_of(denial: &Denial, method: &Method, path: &str, client: IpAddr) {
    let (room, status, code) = (denial.room.name(), denial.status.as_u16(), &*denial.code);
    let detail = denial.detail.as_deref().unwrap_or_default();
    if denial.status.is_server_error() {
        tracing::error!(room, status, code, %method, path, %client, detail, "refused");
    } else {
        tracing::info!(room, status, code, %method, path, %client, detail, "refused");
    }
}

/// The answer as `method` gets it: `HEAD` has everything but the body (RFC 9110, section 9.3.2).
///
/// An answer that flows through, or that somebody else has made, was made for this method already: its `Content-Length`, if it has one, stays as it is.
pub fn finish(method: &Method, mut reply: PayloadResponse) -> PayloadResponse {
    if method == Method::HEAD {
        let is_foreign = reply.extensions().get::<Foreign>().is_some();
        if let Payload::Full(body) = reply.body()
            && !is_foreign
        {
            let length = body.len();
            reply.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        *reply.body_mut() = Payload::default();
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Violation, pipeline::Phase};

    fn body(reply: PayloadResponse) -> String {
        use http_body_util::BodyExt as _;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(reply.into_body().collect()).unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn the_envelope_is_the_one_that_clients_parse() {
        let refused = Denial::new(
            Phase::Header,
            StatusCode::UNAUTHORIZED,
            "MISSING_API_KEY_HEADER",
            "API key header is missing.",
        )
        .with_detail("for the operator");
        let reply = denial(&refused);
        assert_eq!(reply.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(
            body(reply),
            "{\n    \"status\": \"error\",\n    \"http_code\": 401,\n    \"error\": \"MISSING_API_KEY_HEADER\",\n    \
             \"error_description\": \"API key header is missing.\"\n}"
        );
    }

    #[test]
    fn no_text_breaks_out_of_the_envelope() {
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
    fn the_other_forms_say_the_same_in_their_way() {
        let refused = Denial::message(
            Phase::Handler,
            StatusCode::UNPROCESSABLE_ENTITY,
            "INVALID",
            "No \"x\".",
        )
        .with_violations(vec![Violation::new("name", "Missing.", "Give one.")]);
        assert_eq!(body(denial(&refused)), r#"{"message":"No \"x\"."}"#);
        let reply = denial(&refused.in_shape(Shape::Problem));
        assert_eq!(reply.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            body(reply),
            r#"{"type":"urn:keyward:problem:invalid","title":"Unprocessable Entity","status":422,"detail":"No \"x\".","errors":[{"location":"name","message":"Missing.","fix":"Give one."}]}"#
        );
    }

    #[test]
    fn head_has_the_length_of_a_whole_body_and_keeps_what_a_flowing_one_says() {
        let whole = finish(&Method::HEAD, PayloadResponse::new("four".into()));
        assert_eq!(whole.headers()[CONTENT_LENGTH], "4");
        assert_eq!(body(whole), "");
        let mut flowing = PayloadResponse::new(Payload::stream(Payload::default()));
        flowing.headers_mut().insert(CONTENT_LENGTH, 7.into());
        let flowing = finish(&Method::HEAD, flowing);
        assert_eq!(flowing.headers()[CONTENT_LENGTH], "7");
        let unknown =
            finish(&Method::HEAD, PayloadResponse::new(Payload::stream(Payload::default())));
        assert!(!unknown.headers().contains_key(CONTENT_LENGTH));
        assert_eq!(body(finish(&Method::GET, PayloadResponse::new("four".into()))), "four");
    }
}
