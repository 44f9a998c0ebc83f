//! Refusing and answering.

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use rhai::{Dynamic, EvalAltResult, INT, ImmutableString, Map, Module, Position, exported_module};

use super::{Checked, encodings};
use crate::scripting::{
    fault::{check_code, denied_status},
    runtime::context::runtime_error,
    values::{
        headers,
        response::{HandlerResponse, ScriptDenial, ScriptResponse},
    },
};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

/// What `deny()` throws.
pub(super) fn refusal(status: i64, code: &str, description: &str) -> Box<EvalAltResult> {
    let mut map = Map::new();
    map.insert("status".into(), status.into());
    map.insert("error".into(), code.into());
    map.insert("description".into(), description.into());
    EvalAltResult::ErrorRuntime(map.into(), Position::NONE).into()
}

/// A header field of an answer; several values are joined.
pub(super) fn header_of(headers: &HeaderMap, name: &str) -> Dynamic {
    let values = headers.get_all(name.to_ascii_lowercase());
    let texts: Vec<&str> =
        values.iter().filter_map(|value| std::str::from_utf8(value.as_bytes()).ok()).collect();
    if texts.is_empty() { Dynamic::UNIT } else { texts.join(", ").into() }
}

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// Refuses the request. `status` is 400 to 599, `error` is 1 to 64 of `A-Z 0-9 _`; the client is told the three and nothing else.
    ///
    /// The same as `throw #{ status, error, description }`; with `throw` the map can hold `headers` too.
    ///
    /// Example: `deny(403, "OUT_OF_HOURS", "Come back in the morning.");`
    #[rhai_fn(volatile, return_raw)]
    pub fn deny(status: INT, error: &str, description: &str) -> Checked<()> {
        denied_status(status).map_err(runtime_error)?;
        check_code(error).map_err(runtime_error)?;
        Err(refusal(status, error, description))
    }

    /// A handler's answer, 200 to 599. A text is sent as plain text; a map or an array as JSON; `()` as an empty body.
    ///
    /// Error: a status that is none, or a body that cannot be written.
    ///
    /// Example: `respond(200, #{ hello: identity.name })`
    #[rhai_fn(name = "respond", return_raw)]
    pub fn respond(status: INT, body: Dynamic) -> Checked<HandlerResponse> {
        if body.is_unit() {
            let mut reply =
                HandlerResponse::new(status, Bytes::new(), "text/plain").map_err(runtime_error)?;
            reply.headers.remove(CONTENT_TYPE);
            return Ok(reply);
        }
        if body.is_string() {
            return respond_with_type(status, body, "text/plain; charset=utf-8");
        }
        let text = encodings::json_of(&body)?;
        HandlerResponse::new(status, text.into(), "application/json").map_err(runtime_error)
    }

    /// A handler's answer whose body, a text or a blob, is of this content type.
    ///
    /// Error: a status that is none, or a content type that cannot stand in a header.
    ///
    /// Example: `respond(200, "<p>Hello</p>", "text/html; charset=utf-8")`
    #[rhai_fn(name = "respond", return_raw)]
    pub fn respond_with_type(
        status: INT,
        body: Dynamic,
        content_type: &str,
    ) -> Checked<HandlerResponse> {
        let body = encodings::bytes(&body)?;
        HandlerResponse::new(status, body.into(), content_type).map_err(runtime_error)
    }

    /// Sets a header field of the answer.
    ///
    /// Error: an invalid name or value, or a field that is not for scripts: those that frame the message, and `X-Keyward-…`.
    ///
    /// Example: `let reply = respond(302, ()); reply.set_header("Location", "/new"); reply`
    #[rhai_fn(name = "set_header", return_raw)]
    pub fn reply_set_header(reply: &mut HandlerResponse, name: &str, value: &str) -> Checked<()> {
        headers::set(&mut reply.headers, name, value).map_err(runtime_error)
    }

    /// The room that refused: `header`, `decode`, `lookup`, `verify`, `permit`, …
    ///
    /// Example: `denial.room == "permit"`
    #[rhai_fn(get = "room", pure)]
    pub fn denial_room(denial: &mut ScriptDenial) -> String {
        denial.lock().phase.clone()
    }

    /// The status of the refusal.
    ///
    /// Example: `denial.status == 404`
    #[rhai_fn(get = "status", pure)]
    pub fn denial_status(denial: &mut ScriptDenial) -> INT {
        INT::from(denial.lock().status.as_u16())
    }

    /// Changes the status.
    ///
    /// Error: it is not within 400 to 599; a denial never becomes anything else.
    ///
    /// Example: `denial.status = 404;`
    #[rhai_fn(set = "status", pure, return_raw)]
    pub fn denial_set_status(denial: &mut ScriptDenial, status: INT) -> Checked<()> {
        denial.set_status(status).map_err(runtime_error)
    }

    /// The stable name of the error.
    ///
    /// Example: `denial.error == "USER_BLOCKED"`
    #[rhai_fn(get = "error", pure)]
    pub fn denial_error(denial: &mut ScriptDenial) -> String {
        denial.lock().code.clone()
    }

    /// What the client is told.
    ///
    /// Example: `#{ detail: denial.description }`
    #[rhai_fn(get = "description", pure)]
    pub fn denial_description(denial: &mut ScriptDenial) -> String {
        denial.lock().description.clone()
    }

    /// Changes what the client is told, in the usual body.
    ///
    /// Example: `denial.description = "Ask the help desk.";`
    #[rhai_fn(set = "description", pure)]
    pub fn denial_set_description(denial: &mut ScriptDenial, text: &str) {
        denial.lock().description = text.to_owned();
    }

    /// The body that a script has set; `()`: the usual one will be sent.
    ///
    /// Example: `denial.body == ()`
    #[rhai_fn(get = "body", pure)]
    pub fn denial_body(denial: &mut ScriptDenial) -> Dynamic {
        denial.lock().body.clone().map_or(Dynamic::UNIT, Dynamic::from)
    }

    /// Sets the body in place of the usual one. Set `content_type` too.
    ///
    /// Example: `denial.body = json_text(#{ title: denial.error });`
    #[rhai_fn(set = "body", pure)]
    pub fn denial_set_body(denial: &mut ScriptDenial, text: &str) {
        denial.lock().body = Some(text.to_owned());
    }

    /// Sets the content type of the body.
    ///
    /// Error: it cannot stand in a header.
    ///
    /// Example: `denial.content_type = "application/problem+json";`
    #[rhai_fn(set = "content_type", pure, return_raw)]
    pub fn denial_set_content_type(denial: &mut ScriptDenial, text: &str) -> Checked<()> {
        denial.set_content_type(text).map_err(runtime_error)
    }

    /// Sets a header field of the refusal. The same rules as everywhere.
    ///
    /// Example: `denial.set_header("Retry-After", "60");`
    #[rhai_fn(name = "set_header", pure, return_raw)]
    pub fn denial_set_header(denial: &mut ScriptDenial, name: &str, value: &str) -> Checked<()> {
        headers::set(&mut denial.lock().headers, name, value).map_err(runtime_error)
    }

    /// The status of the response.
    ///
    /// Example: `response.status == 200`
    #[rhai_fn(get = "status", pure)]
    pub fn response_status(response: &mut ScriptResponse) -> INT {
        INT::from(response.lock().status.as_u16())
    }

    /// Changes the status, to one from 200 to 599.
    ///
    /// Example: `response.status = 202;`
    #[rhai_fn(set = "status", pure, return_raw)]
    pub fn response_set_status(response: &mut ScriptResponse, status: INT) -> Checked<()> {
        response.set_status(status).map_err(runtime_error)
    }

    /// The value of a header field of the response; `()` where it is not there.
    ///
    /// Example: `response.header("Content-Type")`
    #[rhai_fn(name = "header", pure)]
    pub fn response_header(response: &mut ScriptResponse, name: &str) -> Dynamic {
        header_of(&response.lock().headers, name)
    }

    /// Sets a header field of the response.
    ///
    /// Error: an invalid name or value, or a field that is not for scripts.
    ///
    /// Example: `response.set_header("Cache-Control", "no-store");`
    #[rhai_fn(name = "set_header", pure, return_raw)]
    pub fn response_set_header(
        response: &mut ScriptResponse,
        name: &str,
        value: &str,
    ) -> Checked<()> {
        headers::set(&mut response.lock().headers, name, value).map_err(runtime_error)
    }

    /// Removes a header field of the response.
    ///
    /// Error: a field that is not for scripts.
    ///
    /// Example: `response.remove_header("Server");`
    #[rhai_fn(name = "remove_header", pure, return_raw)]
    pub fn response_remove_header(response: &mut ScriptResponse, name: &str) -> Checked<()> {
        let name = headers::parse_name(name).map_err(runtime_error)?;
        response.lock().headers.remove(name);
        Ok(())
    }

    /// The body as a text; `()` where it is streamed, or no UTF-8.
    ///
    /// Example: `let entity = json_parse(response.body);`
    #[rhai_fn(get = "body", pure)]
    pub fn response_body(response: &mut ScriptResponse) -> Dynamic {
        let parts = response.lock();
        let text = parts.body.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.map_or(Dynamic::UNIT, Into::into)
    }

    /// Sets the body.
    ///
    /// Error: it is streamed.
    ///
    /// Example: `response.body = json_text(entity);`
    #[rhai_fn(set = "body", pure, return_raw)]
    pub fn response_set_body(response: &mut ScriptResponse, text: ImmutableString) -> Checked<()> {
        response.set_body(&text).map_err(runtime_error)
    }
}
