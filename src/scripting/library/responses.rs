//! Functions for denials and responses.

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use rhai::{
    Dynamic, EvalAltResult, INT, ImmutableString, Map, Module, NativeCallContext, Position,
    exported_module,
};

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

/// The map that `deny()` throws.
pub(super) fn refusal(status: i64, code: &str, description: &str) -> Box<EvalAltResult> {
    let mut map = Map::new();
    map.insert("status".into(), status.into());
    map.insert("error".into(), code.into());
    map.insert("description".into(), description.into());
    EvalAltResult::ErrorRuntime(map.into(), Position::NONE).into()
}

/// The value of a header field, or `()` if the field is absent. Several values are joined.
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

    /// Denies the request. `status` is 400 to 599, `error` is 1 to 64 characters of `A-Z 0-9 _`.
    /// The client gets only these three values.
    ///
    /// `deny()` is equivalent to `throw #{ status, error, description }`. With `throw` the map can
    /// also contain `headers`.
    ///
    /// Example: `deny(403, "OUT_OF_HOURS", "Come back in the morning.");`
    #[rhai_fn(volatile, return_raw)]
    pub fn deny(status: INT, error: &str, description: &str) -> Checked<()> {
        denied_status(status).map_err(runtime_error)?;
        check_code(error).map_err(runtime_error)?;
        Err(refusal(status, error, description))
    }

    /// A handler's response, with a status of 200 to 599. A text is sent as plain text, a map or an
    /// array as JSON, `()` as an empty body.
    ///
    /// Error: the status is invalid, or the body cannot be written as JSON.
    ///
    /// Example: `respond(200, #{ hello: identity.name })`
    #[rhai_fn(name = "respond", return_raw)]
    pub fn respond(
        context: NativeCallContext,
        status: INT,
        body: Dynamic,
    ) -> Checked<HandlerResponse> {
        if body.is_unit() {
            let mut reply =
                HandlerResponse::new(status, Bytes::new(), "text/plain").map_err(runtime_error)?;
            reply.headers.remove(CONTENT_TYPE);
            return Ok(reply);
        }
        if body.is_string() {
            return respond_with_type(status, body, "text/plain; charset=utf-8");
        }
        let text = encodings::json_text(&context, &body)?;
        HandlerResponse::new(status, text.into(), "application/json").map_err(runtime_error)
    }

    /// A handler's response with this content type. The body is a text or a blob.
    ///
    /// Error: the status or the content type is invalid.
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

    /// Sets a header field of the response.
    ///
    /// Error: the name or the value is invalid, or scripts cannot set this field. Scripts cannot
    /// set fields for message framing, and fields with names like `X-Keyward-…`.
    ///
    /// Example: `let reply = respond(302, ()); reply.set_header("Location", "/new"); reply`
    #[rhai_fn(name = "set_header", return_raw)]
    pub fn reply_set_header(reply: &mut HandlerResponse, name: &str, value: &str) -> Checked<()> {
        headers::set(&mut reply.headers, name, value).map_err(runtime_error)
    }

    /// The phase that denied the request: `header`, `decode`, `lookup`, `verify`, `permit`, …
    ///
    /// Example: `denial.room == "permit"`
    #[rhai_fn(get = "room", pure)]
    pub fn denial_room(denial: &mut ScriptDenial) -> String {
        denial.lock().phase.clone()
    }

    /// The status of the denial.
    ///
    /// Example: `denial.status == 404`
    #[rhai_fn(get = "status", pure)]
    pub fn denial_status(denial: &mut ScriptDenial) -> INT {
        INT::from(denial.lock().status.as_u16())
    }

    /// Changes the status.
    ///
    /// Error: the status is not within 400 to 599. A script cannot turn a denial into a success.
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

    /// The description for the client.
    ///
    /// Example: `#{ detail: denial.description }`
    #[rhai_fn(get = "description", pure)]
    pub fn denial_description(denial: &mut ScriptDenial) -> String {
        denial.lock().description.clone()
    }

    /// Changes the description that the client gets in the usual body.
    ///
    /// Example: `denial.description = "Ask the help desk.";`
    #[rhai_fn(set = "description", pure)]
    pub fn denial_set_description(denial: &mut ScriptDenial, text: &str) {
        denial.lock().description = text.to_owned();
    }

    /// The body that a script has set. `()` means the usual body is sent.
    ///
    /// Example: `denial.body == ()`
    #[rhai_fn(get = "body", pure)]
    pub fn denial_body(denial: &mut ScriptDenial) -> Dynamic {
        denial.lock().body.clone().map_or(Dynamic::UNIT, Dynamic::from)
    }

    /// Replaces the usual body. Set `content_type` too.
    ///
    /// Example: `denial.body = json_text(#{ title: denial.error });`
    #[rhai_fn(set = "body", pure)]
    pub fn denial_set_body(denial: &mut ScriptDenial, text: &str) {
        denial.lock().body = Some(text.to_owned());
    }

    /// Sets the content type of the body.
    ///
    /// Error: the value is not valid in a header field.
    ///
    /// Example: `denial.content_type = "application/problem+json";`
    #[rhai_fn(set = "content_type", pure, return_raw)]
    pub fn denial_set_content_type(denial: &mut ScriptDenial, text: &str) -> Checked<()> {
        denial.set_content_type(text).map_err(runtime_error)
    }

    /// Sets a header field of the denial. The rules are the same as for `response.set_header()`.
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

    /// Changes the status to one from 200 to 599.
    ///
    /// Example: `response.status = 202;`
    #[rhai_fn(set = "status", pure, return_raw)]
    pub fn response_set_status(response: &mut ScriptResponse, status: INT) -> Checked<()> {
        response.set_status(status).map_err(runtime_error)
    }

    /// The value of a header field of the response. `()` means the field is absent.
    ///
    /// Example: `response.header("Content-Type")`
    #[rhai_fn(name = "header", pure)]
    pub fn response_header(response: &mut ScriptResponse, name: &str) -> Dynamic {
        header_of(&response.lock().headers, name)
    }

    /// Sets a header field of the response.
    ///
    /// Error: the name or the value is invalid, or scripts cannot set this field.
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
    /// Error: scripts cannot remove this field.
    ///
    /// Example: `response.remove_header("Server");`
    #[rhai_fn(name = "remove_header", pure, return_raw)]
    pub fn response_remove_header(response: &mut ScriptResponse, name: &str) -> Checked<()> {
        let name = headers::parse_name(name).map_err(runtime_error)?;
        response.lock().headers.remove(name);
        Ok(())
    }

    /// The body as a text. `()` means the body is streamed or is not UTF-8.
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
    /// Error: the body is streamed.
    ///
    /// Example: `response.body = json_text(entity);`
    #[rhai_fn(set = "body", pure, return_raw)]
    pub fn response_set_body(response: &mut ScriptResponse, text: ImmutableString) -> Checked<()> {
        response.set_body(&text).map_err(runtime_error)
    }
}
