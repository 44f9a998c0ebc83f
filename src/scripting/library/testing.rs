//! Functions for the `test_…` functions of scripts.

use std::{net::IpAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rhai::{Dynamic, EvalAltResult, FnPtr, INT, Map, Module, NativeCallContext, exported_module};

use super::{Checked, responses};
use crate::scripting::{
    fault::{denied_status, describe, innermost},
    runtime::{
        context::{CallContext, runtime_error},
        sandbox::{Sandbox, TestUser},
    },
    values::{
        records::{IdentityParts, IdentityView, ResourceParts, ResourceView, UserView},
        request::{RequestParts, ScriptRequest, is_plain_data},
        response::{DenialParts, HandlerResponse, ResponseParts, ScriptDenial, ScriptResponse},
    },
};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

fn sandbox(context: &NativeCallContext) -> Checked<Arc<Sandbox>> {
    let sandbox = CallContext::current(context)?.host.sandbox.clone();
    sandbox.ok_or_else(|| {
        runtime_error(format!(
            "{}() can be called only in test_… functions, and this is a real request",
            context.fn_name()
        ))
    })
}

/// A value as JSON, or its type if it cannot be written as JSON.
fn describe_value(value: &Dynamic) -> String {
    if value.is_unit() {
        return "()".to_owned();
    }
    if !is_plain_data(value, 0) {
        return value.type_name().to_owned();
    }
    if let Ok(items) = value.as_array_ref() {
        let items: Vec<String> = items.iter().map(describe_value).collect();
        return format!("[{}]", items.join(","));
    }
    if let Ok(map) = value.as_map_ref() {
        let entries = map.iter().map(|(key, item)| format!("{key:?}:{}", describe_value(item)));
        return format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    }
    serde_json::to_string(value).unwrap_or_else(|_| value.type_name().to_owned())
}

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// Fails the test unless the condition holds.
    ///
    /// Example: `assert(user.is_active, "the user is blocked");`
    #[rhai_fn(name = "assert", volatile, return_raw)]
    pub fn assert_that(context: NativeCallContext, condition: bool, message: &str) -> Checked<()> {
        sandbox(&context)?;
        if condition { Ok(()) } else { Err(runtime_error(format!("assertion failed: {message}"))) }
    }

    /// Fails the test unless the two values are equal.
    ///
    /// Example: `assert_eq(duration("1m"), 60);`
    #[rhai_fn(volatile, return_raw)]
    pub fn assert_eq(context: NativeCallContext, left: Dynamic, right: Dynamic) -> Checked<()> {
        sandbox(&context)?;
        let (left_text, right_text) = (describe_value(&left), describe_value(&right));
        let (mut left, mut right) = (left, right);
        let equal = context
            .call_native_fn_raw("==", true, &mut [&mut left, &mut right])
            .ok()
            .and_then(|equal| equal.as_bool().ok())
            .unwrap_or(false);
        if equal {
            Ok(())
        } else {
            Err(runtime_error(format!("assertion failed: {left_text} is not {right_text}")))
        }
    }

    /// Fails the test unless the function denies with this status and error.
    ///
    /// Example: `assert_denied(|| verify(test_request("GET", "/"), (), #{}), 401,
    /// "INVALID_TOKEN");`
    #[rhai_fn(volatile, return_raw)]
    pub fn assert_denied(
        context: NativeCallContext,
        function: FnPtr,
        status: INT,
        error: &str,
    ) -> Checked<()> {
        sandbox(&context)?;
        let Err(thrown) = function.call_within_context::<Dynamic>(&context, ()) else {
            return Err(runtime_error("assertion failed: the function did not deny"));
        };
        let (thrown, _) = innermost(&thrown);
        if let EvalAltResult::ErrorRuntime(value, _) = thrown
            && let Some(map) = value.clone().try_cast::<Map>()
        {
            let given_status = map.get("status").and_then(|status| status.as_int().ok());
            let given = map.get("error").and_then(|error| error.clone().into_string().ok());
            let given = given.unwrap_or_default();
            if given_status == Some(status) && given == error {
                return Ok(());
            }
            let given_status = given_status.unwrap_or_default();
            return Err(runtime_error(format!(
                "assertion failed: denied with {given_status} {given}"
            )));
        }
        Err(runtime_error(format!(
            "assertion failed: the function failed and did not deny: {}",
            describe(thrown)
        )))
    }

    /// A request for tests. The target is a path, optionally with a query. The client is 192.0.2.1,
    /// the host `localhost`, and there is no body.
    ///
    /// Example: `let req = test_request("GET", "/orders?page=2");`
    #[rhai_fn(return_raw)]
    pub fn test_request(
        context: NativeCallContext,
        method: &str,
        target: &str,
    ) -> Checked<ScriptRequest> {
        sandbox(&context)?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        if !path.starts_with('/') || method.is_empty() {
            return Err(runtime_error("test_request takes a method and a path that begins with /"));
        }
        Ok(ScriptRequest::new(RequestParts {
            method: method.to_owned(),
            path: path.to_owned(),
            query,
            headers: HeaderMap::new(),
            client: IpAddr::from([192, 0, 2, 1]),
            host: Some("localhost".into()),
            body: None,
        }))
    }

    /// A copy of the request with one more header field.
    ///
    /// Example: `test_request("GET", "/").with_header("API-KEY", "abc")`
    #[rhai_fn(pure, return_raw)]
    pub fn with_header(
        context: NativeCallContext,
        req: &mut ScriptRequest,
        name: &str,
        value: &str,
    ) -> Checked<ScriptRequest> {
        sandbox(&context)?;
        let name = HeaderName::from_bytes(name.as_bytes());
        let name = name.map_err(|_| runtime_error("this is not the name of a header field"))?;
        let value = HeaderValue::from_str(value)
            .map_err(|_| runtime_error("this is not the value of a header field"))?;
        Ok(req.changed(|parts| {
            parts.headers.append(name, value);
        }))
    }

    /// A copy of the request with another client address.
    ///
    /// Example: `test_request("GET", "/").with_client("10.0.0.7")`
    #[rhai_fn(pure, return_raw)]
    pub fn with_client(
        context: NativeCallContext,
        req: &mut ScriptRequest,
        address: &str,
    ) -> Checked<ScriptRequest> {
        sandbox(&context)?;
        let client = address.parse().map_err(|_| runtime_error("this is not an IP address"))?;
        Ok(req.changed(|parts| parts.client = client))
    }

    /// A copy of the request with another host.
    ///
    /// Example: `test_request("GET", "/").with_host("api.example.com")`
    #[rhai_fn(pure, return_raw)]
    pub fn with_host(
        context: NativeCallContext,
        req: &mut ScriptRequest,
        host: &str,
    ) -> Checked<ScriptRequest> {
        sandbox(&context)?;
        Ok(req.changed(|parts| parts.host = Some(host.to_owned())))
    }

    /// A copy of the request with a body.
    ///
    /// Example: `test_request("POST", "/orders").with_body("{}")`
    #[rhai_fn(pure, return_raw)]
    pub fn with_body(
        context: NativeCallContext,
        req: &mut ScriptRequest,
        text: &str,
    ) -> Checked<ScriptRequest> {
        sandbox(&context)?;
        Ok(req.changed(|parts| parts.body = Some(Bytes::copy_from_slice(text.as_bytes()))))
    }

    /// A copy of the request with a key of this user in the format of the type `api_key`: `API-KEY:
    /// base64(user:key)`. Use such a request for `decide()` in tests of hooks.
    ///
    /// Example: `decide(test_request("GET", "/orders").with_user(user))`
    #[rhai_fn(pure, return_raw)]
    pub fn with_user(
        context: NativeCallContext,
        req: &mut ScriptRequest,
        user: UserView,
    ) -> Checked<ScriptRequest> {
        let key = sandbox(&context)?.key_of(user.parts().uid);
        let credential = STANDARD.encode(format!("{}:{}", user.parts().name, key.expose()));
        let value =
            HeaderValue::try_from(credential).map_err(|_| runtime_error("the name is too long"))?;
        Ok(req.changed(|parts| {
            parts.headers.insert(HeaderName::from_static("api-key"), value);
        }))
    }

    /// The text of a key that belongs to this user. `decide()` accepts the key. Use the key in
    /// tests of authentication types that leave the check of the key to the built-in phases.
    ///
    /// Example: `decide(test_request("GET", "/orders?key=" + test_key(user)))`
    #[rhai_fn(volatile, return_raw)]
    pub fn test_key(context: NativeCallContext, user: UserView) -> Checked<String> {
        Ok(sandbox(&context)?.key_of(user.parts().uid).expose().to_owned())
    }

    /// Creates a user for this test. Fields: `name` (required), `roles`, `permissions` (arrays of
    /// texts), `attributes` (a map of texts), `active` (by default true).
    ///
    /// Example: `test_user(#{ name: "llama", roles: ["editor"], attributes: #{ tenant: "a" } });`
    #[rhai_fn(volatile, return_raw)]
    pub fn test_user(context: NativeCallContext, fields: Map) -> Checked<UserView> {
        let sandbox = sandbox(&context)?;
        TestUser::read(&fields).and_then(|user| sandbox.add_user(user)).map_err(runtime_error)
    }

    /// Defines a named secret for this test.
    ///
    /// Example: `test_secret("webhook", "a key of the test's own");`
    #[rhai_fn(volatile, return_raw)]
    pub fn test_secret(context: NativeCallContext, name: &str, value: &str) -> Checked<()> {
        sandbox(&context)?.set_secret(name, value);
        Ok(())
    }

    /// Sets this test's clock to an RFC 3339 time. The clock does not advance by itself.
    ///
    /// Example: `test_at("2026-01-05T12:00:00Z");`
    #[rhai_fn(volatile, return_raw)]
    pub fn test_at(context: NativeCallContext, text: &str) -> Checked<()> {
        let sandbox = sandbox(&context)?;
        let at = crate::model::Timestamp::parse(text);
        sandbox.clock().set(
            at.ok_or_else(|| runtime_error("test_at takes a time like 2026-01-05T12:00:00Z"))?,
        );
        // A test may set an earlier time.
        sandbox.clock().forget_newest();
        Ok(())
    }

    /// The identity of a user from `test_user()`, for tests of hooks.
    ///
    /// Example: `on_permit(test_request("GET", "/"), test_identity(user), test_resource("orders"))`
    #[rhai_fn(return_raw)]
    pub fn test_identity(context: NativeCallContext, user: UserView) -> Checked<IdentityView> {
        sandbox(&context)?;
        let parts = user.parts();
        Ok(IdentityView::new(IdentityParts {
            uid: Some(parts.uid),
            name: parts.name.clone(),
            roles: parts.roles.clone(),
            scopes: None,
            key_id: None,
            application: Some("default".into()),
            attributes: parts.attributes.clone(),
            allows: parts.allows.clone(),
        }))
    }

    /// The anonymous identity, for tests of hooks.
    ///
    /// Example: `assert(test_anonymous().is_anonymous, "somebody");`
    #[rhai_fn(return_raw)]
    pub fn test_anonymous(context: NativeCallContext) -> Checked<IdentityView> {
        sandbox(&context)?;
        Ok(IdentityView::anonymous(Arc::new(|_| false)))
    }

    /// A resource, for tests of hooks.
    ///
    /// Example: `test_resource("orders")`
    #[rhai_fn(return_raw)]
    pub fn test_resource(context: NativeCallContext, id: &str) -> Checked<ResourceView> {
        sandbox(&context)?;
        Ok(ResourceView::new(ResourceParts {
            id: id.to_owned(),
            handler: "proxy".into(),
            path: "/{*path}".into(),
            host: None,
            method: "GET".into(),
        }))
    }

    /// A denial, for tests of `on_denied`.
    ///
    /// Example: `let denial = test_denial(401, "AUTHENTICATION_FAILED"); on_denied(req, denial);
    /// assert_eq(denial.status, 401);`
    #[rhai_fn(return_raw)]
    pub fn test_denial(
        context: NativeCallContext,
        status: INT,
        error: &str,
    ) -> Checked<ScriptDenial> {
        sandbox(&context)?;
        Ok(ScriptDenial::new(DenialParts {
            phase: "verify".into(),
            status: denied_status(status).map_err(runtime_error)?,
            code: error.to_owned(),
            description: "The request was refused.".into(),
            body: None,
            content_type: None,
            headers: HeaderMap::new(),
        }))
    }

    /// A response, for tests of `on_response`.
    ///
    /// Example: `let response = test_response(200, "{}");`
    #[rhai_fn(return_raw)]
    pub fn test_response(
        context: NativeCallContext,
        status: INT,
        body: &str,
    ) -> Checked<ScriptResponse> {
        sandbox(&context)?;
        let response = ScriptResponse::new(ResponseParts {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Some(Bytes::copy_from_slice(body.as_bytes())),
        });
        response.set_status(status).map_err(runtime_error)?;
        Ok(response)
    }

    /// The value of a header field of a denial, for tests of `on_denied`. `()` means the field is
    /// not set.
    ///
    /// Example: `assert_eq(denial.header("Retry-After"), "60");`
    #[rhai_fn(name = "header", pure)]
    pub fn denial_header(denial: &mut ScriptDenial, name: &str) -> Dynamic {
        responses::header_of(&denial.lock().headers, name)
    }

    /// The status of a handler's response, for tests of the handler.
    ///
    /// Example: `assert_eq(handle(test_request("GET", "/"), test_anonymous()).status, 200);`
    #[rhai_fn(get = "status", pure)]
    pub fn reply_status(reply: &mut HandlerResponse) -> INT {
        reply.status.as_u16().into()
    }

    /// The body of a handler's response as a text, for tests of the handler. `()` means the body is
    /// not UTF-8.
    ///
    /// Example: `assert_eq(handle(test_request("GET", "/"), test_anonymous()).body, "hello");`
    #[rhai_fn(get = "body", pure)]
    pub fn reply_body(reply: &mut HandlerResponse) -> Dynamic {
        std::str::from_utf8(&reply.body).map_or(Dynamic::UNIT, Into::into)
    }

    /// Sends a request through the whole pipeline, with this script and this test's users. Returns
    /// a map with the fields `allowed`, `status`, `error`, `description`, `detail` (the message for
    /// the log), `user` and `room` (the phase). Fields that do not apply are `()`. Handlers and
    /// `on_response` do not run.
    ///
    /// The test has one application, `default`. Its authentication type is the script under test,
    /// or `api_key` if this script is not an authentication type. The application reads
    /// `Authorization` if the request has `Authorization` and no `API-KEY`; otherwise the
    /// application reads `API-KEY`. The test has one resource for all paths: the resource of the
    /// script under test, or else `test`. The resource requires a credential but no permission.
    ///
    /// Example: `assert_eq(decide(test_request("GET", "/orders")).status, 401);`
    #[rhai_fn(volatile, return_raw)]
    pub fn decide(context: NativeCallContext, req: ScriptRequest) -> Checked<Map> {
        let verdict = sandbox(&context)?.decide(req).map_err(runtime_error)?;
        let text = |text: Option<String>| text.map_or(Dynamic::UNIT, Into::into);
        let mut map = Map::new();
        map.insert("allowed".into(), verdict.allowed.into());
        map.insert("status".into(), INT::from(verdict.status).into());
        map.insert("error".into(), text(verdict.code));
        map.insert("description".into(), text(verdict.description));
        map.insert("detail".into(), text(verdict.detail));
        map.insert("user".into(), text(verdict.user));
        map.insert("room".into(), text(verdict.phase));
        Ok(map)
    }
}
