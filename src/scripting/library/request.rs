//! Functions of `req`, the request.

use rhai::{
    Array, Blob, Dynamic, Engine, ImmutableString, Module, NativeCallContext, exported_module,
};

use super::{Checked, responses::refusal};
use crate::scripting::{
    runtime::context::{CallContext, runtime_error, too_large},
    values::request::ScriptRequest,
};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

fn max_blob_bytes(engine: &Engine) -> usize {
    engine.max_array_size()
}

/// Denies the request if a value of the header field is not UTF-8.
fn require_utf8(req: &ScriptRequest, name: &str) -> Checked<()> {
    if req.has_unreadable(name) {
        Err(refusal(400, "INVALID_HEADER", "A header field of the request is not UTF-8 text."))
    } else {
        Ok(())
    }
}

fn text_or_unit(text: Option<&str>) -> Dynamic {
    text.map_or(Dynamic::UNIT, Into::into)
}

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// The method, in upper case.
    ///
    /// Example: `if req.method == "GET" { … }`
    #[rhai_fn(get = "method", pure)]
    pub fn method(req: &mut ScriptRequest) -> ImmutableString {
        req.method()
    }

    /// The normalised path. Keyward checks and forwards the same path.
    ///
    /// Example: `req.path.starts_with("/tenants/")`
    #[rhai_fn(get = "path", pure)]
    pub fn path(req: &mut ScriptRequest) -> ImmutableString {
        req.path()
    }

    /// The query as received, without the question mark. An empty text means the request has no
    /// query. See `param()`.
    ///
    /// Example: `hex(sha256(req.query))`
    #[rhai_fn(get = "query", pure)]
    pub fn query(req: &mut ScriptRequest) -> ImmutableString {
        req.query().into()
    }

    /// The client's address as a text. An IPv4-mapped IPv6 address is shown as IPv4.
    ///
    /// Example: `in_network(req.client, "10.0.0.0/8")`
    #[rhai_fn(get = "client", pure)]
    pub fn client(req: &mut ScriptRequest) -> ImmutableString {
        req.client()
    }

    /// The requested host, in lower case and without the port. `()` means the request names no
    /// host.
    ///
    /// Example: `req.host == "api.example.com"`
    #[rhai_fn(get = "host", pure)]
    pub fn host(req: &mut ScriptRequest) -> Dynamic {
        text_or_unit(req.parts().host.as_deref())
    }

    /// The body as a text. `()` means the resource does not buffer the body, the body is not UTF-8,
    /// or, in `on_denied`, the request was denied before its body was read.
    ///
    /// Example: `if req.body != () { let order = json_parse(req.body); }`
    #[rhai_fn(get = "body", pure)]
    pub fn body(req: &mut ScriptRequest) -> Dynamic {
        text_or_unit(req.body().and_then(|bytes| std::str::from_utf8(bytes).ok()))
    }

    /// The body as a blob. `()` means the resource does not buffer the body.
    ///
    /// Denies the request if the body is larger than a blob may be. Use `body` or `body_sha256` for
    /// larger bodies.
    ///
    /// Example: `req.body_bytes.len()`
    #[rhai_fn(get = "body_bytes", pure, return_raw)]
    pub fn body_bytes(context: NativeCallContext, req: &mut ScriptRequest) -> Checked<Dynamic> {
        match req.body() {
            None => Ok(Dynamic::UNIT),
            Some(bytes) if bytes.len() > max_blob_bytes(context.engine()) => {
                Err(too_large("the body as a blob (scripts.array_items)"))
            }
            Some(bytes) => Ok(Dynamic::from_blob(bytes.to_vec())),
        }
    }

    /// The SHA-256 digest of a body of any size, as a blob of 32 bytes. `()` means the resource
    /// does not buffer the body.
    ///
    /// Example: `constant_time_eq(hex(req.body_sha256), req.header("X-Digest"))`
    #[rhai_fn(get = "body_sha256", pure)]
    pub fn body_sha256(req: &mut ScriptRequest) -> Dynamic {
        use sha2::Digest as _;
        match req.received_body() {
            None => Dynamic::UNIT,
            Some(bytes) => Dynamic::from_blob(Blob::from(sha2::Sha256::digest(bytes).as_slice())),
        }
    }

    /// The first value of a query parameter, decoded (`+` and `%20` are spaces). `()` means the
    /// query has no such parameter.
    ///
    /// Example: `let key = req.param("api_key");`
    #[rhai_fn(pure)]
    pub fn param(req: &mut ScriptRequest, name: &str) -> Dynamic {
        text_or_unit(req.params(name).next().as_deref())
    }

    /// All values of a query parameter, decoded, as an array. An empty array means the query has no
    /// such parameter.
    ///
    /// Example: `if req.params("api_key").len() > 1 { deny(401, "ONE_KEY", "Send one key."); }`
    #[rhai_fn(pure)]
    pub fn params(req: &mut ScriptRequest, name: &str) -> Array {
        req.params(name).map(Into::into).collect()
    }

    /// The first value of a cookie. `()` means the request has no such cookie.
    ///
    /// Denies the request with 400 `INVALID_HEADER` if a `Cookie` field is not UTF-8.
    ///
    /// Example: `let session = req.cookie("session");`
    #[rhai_fn(pure, return_raw)]
    pub fn cookie(req: &mut ScriptRequest, name: &str) -> Checked<Dynamic> {
        require_utf8(req, "cookie")?;
        Ok(text_or_unit(req.cookies(name).next()))
    }

    /// All values of a cookie, as an array. An empty array means the request has no such cookie.
    ///
    /// Denies the request with 400 `INVALID_HEADER` if a `Cookie` field is not UTF-8.
    ///
    /// Example: `if req.cookies("session").len() > 1 { deny(401, "ONE_SESSION", "Send one
    /// session."); }`
    #[rhai_fn(pure, return_raw)]
    pub fn cookies(req: &mut ScriptRequest, name: &str) -> Checked<Array> {
        require_utf8(req, "cookie")?;
        Ok(req.cookies(name).map(Into::into).collect())
    }

    /// The value of a header field. Case in the name does not matter. `()` means the field is
    /// absent. Several values are joined with `, `.
    ///
    /// Denies the request with 400 `INVALID_HEADER` if the value is not UTF-8, so that an
    /// unreadable value does not count as absent. In a file that defines a function `header(req)`,
    /// use `headers()` instead.
    ///
    /// Example: `let token = req.header("Authorization");`
    #[rhai_fn(pure, return_raw)]
    pub fn header(req: &mut ScriptRequest, name: &str) -> Checked<Dynamic> {
        require_utf8(req, name)?;
        let mut values = req.header_values(name);
        let Some(first) = values.next() else { return Ok(Dynamic::UNIT) };
        let mut joined = first.to_owned();
        for value in values {
            joined.push_str(", ");
            joined.push_str(value);
        }
        Ok(joined.into())
    }

    /// All values of a header field, as an array. An empty array means the field is absent.
    ///
    /// Denies the request with 400 `INVALID_HEADER` if a value is not UTF-8.
    ///
    /// Example: `if req.headers("X-Signature").len() != 1 { deny(401, "ONE_SIGNATURE", "Send one
    /// signature."); }`
    #[rhai_fn(pure, return_raw)]
    pub fn headers(req: &mut ScriptRequest, name: &str) -> Checked<Array> {
        require_utf8(req, name)?;
        Ok(req.header_values(name).map(Into::into).collect())
    }

    /// Sets a note for later hooks of this request. The value is plain data: text, number, boolean,
    /// array, map, blob.
    ///
    /// Error: there are too many notes, or the value is not plain data.
    ///
    /// Example: `req.set("tenant", "llama");`
    #[rhai_fn(name = "set", pure, return_raw)]
    pub fn set(
        context: NativeCallContext,
        req: &mut ScriptRequest,
        name: ImmutableString,
        value: Dynamic,
    ) -> Checked<()> {
        let call = CallContext::current(&context)?;
        req.set_note(name, value, call.host.limits.notes).map_err(runtime_error)
    }

    /// A note that an earlier hook of this request set. `()` means there is no such note.
    ///
    /// Example: `if req.get("tenant") == () { deny(403, "NO_TENANT", "No tenant."); }`
    #[rhai_fn(name = "get", pure)]
    pub fn get(req: &mut ScriptRequest, name: &str) -> Dynamic {
        req.note(name).unwrap_or(Dynamic::UNIT)
    }

    /// `req` as a text: only method and path, which contain no secret.
    ///
    /// Example: `log(req.to_string());`
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn show(req: &mut ScriptRequest) -> String {
        format!("{} {}", req.method(), req.path())
    }
}
