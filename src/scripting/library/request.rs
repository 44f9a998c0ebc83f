//! `req`.

use rhai::{
    Array, Blob, Dynamic, Engine, ImmutableString, Module, NativeCallContext, exported_module,
};

use super::{Checked, answers::refusal};
use crate::scripting::{
    runtime::context::{CallContext, runtime_error},
    values::request::ScriptRequest,
};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

fn most_bytes(engine: &Engine) -> usize {
    engine.max_array_size()
}

fn readable(req: &ScriptRequest, name: &str) -> Checked<()> {
    match req.has_unreadable(name) {
        false => Ok(()),
        true => Err(refusal(400, "INVALID_HEADER", "A header field of the request is no text.")),
    }
}

fn text_or_unit(text: Option<&str>) -> Dynamic {
    text.map_or(Dynamic::UNIT, Into::into)
}

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// The method, in capitals.
    ///
    /// Example: `if req.method == "GET" { … }`
    #[rhai_fn(get = "method", pure)]
    pub fn method(req: &mut ScriptRequest) -> ImmutableString {
        req.method()
    }

    /// The path, normalised: what was checked is what is forwarded.
    ///
    /// Example: `req.path.starts_with("/tenants/")`
    #[rhai_fn(get = "path", pure)]
    pub fn path(req: &mut ScriptRequest) -> ImmutableString {
        req.path()
    }

    /// The query as it came, without the question mark; empty where there is none. See `param()`.
    ///
    /// Example: `hex(sha256(req.query))`
    #[rhai_fn(get = "query", pure)]
    pub fn query(req: &mut ScriptRequest) -> ImmutableString {
        req.parts().query.as_deref().unwrap_or("").into()
    }

    /// The client's address, as a text. An IPv4 address that is written as IPv6 is shown as IPv4.
    ///
    /// Example: `in_network(req.client, "10.0.0.0/8")`
    #[rhai_fn(get = "client", pure)]
    pub fn client(req: &mut ScriptRequest) -> ImmutableString {
        req.client()
    }

    /// The host that was asked for, in small letters and without the port; `()` where there is none.
    ///
    /// Example: `req.host == "api.example.com"`
    #[rhai_fn(get = "host", pure)]
    pub fn host(req: &mut ScriptRequest) -> Dynamic {
        text_or_unit(req.parts().host.as_deref())
    }

    /// The body as a text; `()` where the resource does not buffer it, or where it is no UTF-8.
    ///
    /// Example: `if req.body != () { let order = json_parse(req.body); }`
    #[rhai_fn(get = "body", pure)]
    pub fn body(req: &mut ScriptRequest) -> Dynamic {
        let body = req.parts().body.as_deref();
        text_or_unit(body.and_then(|bytes| std::str::from_utf8(bytes).ok()))
    }

    /// The body as a blob; `()` where the resource does not buffer it.
    ///
    /// Error: the body has more bytes than a blob may have. Use `body` or `body_sha256` then.
    ///
    /// Example: `req.body_bytes.len()`
    #[rhai_fn(get = "body_bytes", pure, return_raw)]
    pub fn body_bytes(context: NativeCallContext, req: &mut ScriptRequest) -> Checked<Dynamic> {
        match &req.parts().body {
            None => Ok(Dynamic::UNIT),
            Some(bytes) if bytes.len() > most_bytes(context.engine()) => {
                Err(runtime_error("the body has more bytes than a blob may have"))
            }
            Some(bytes) => Ok(Dynamic::from_blob(bytes.to_vec())),
        }
    }

    /// The SHA-256 digest of the body, as a blob of 32 bytes, whatever the body's size; `()` where the resource does not buffer it.
    ///
    /// Example: `constant_time_eq(hex(req.body_sha256), req.header("X-Digest"))`
    #[rhai_fn(get = "body_sha256", pure)]
    pub fn body_sha256(req: &mut ScriptRequest) -> Dynamic {
        use sha2::Digest as _;
        match &req.parts().body {
            None => Dynamic::UNIT,
            Some(bytes) => Dynamic::from_blob(Blob::from(sha2::Sha256::digest(bytes).as_slice())),
        }
    }

    /// The first value of a query parameter, decoded (`+` and `%20` are spaces); `()` where it is not there.
    ///
    /// Example: `let key = req.param("api_key");`
    #[rhai_fn(pure)]
    pub fn param(req: &mut ScriptRequest, name: &str) -> Dynamic {
        text_or_unit(req.param(name).as_deref())
    }

    /// The value of a header field, whose name has no case; `()` where it is not there. Several values are joined with `, `.
    ///
    /// Refuses the request with 400 `INVALID_HEADER` where the value is no UTF-8 text: what cannot be seen must not pass for absent. In a file
    /// that defines `header(req)` itself, use `headers()`.
    ///
    /// Example: `let token = req.header("Authorization");`
    #[rhai_fn(pure, return_raw)]
    pub fn header(req: &mut ScriptRequest, name: &str) -> Checked<Dynamic> {
        readable(req, name)?;
        let mut values = req.header_values(name);
        let Some(first) = values.next() else { return Ok(Dynamic::UNIT) };
        let mut joined = first.to_owned();
        for value in values {
            joined.push_str(", ");
            joined.push_str(value);
        }
        Ok(joined.into())
    }

    /// All values of a header field, as an array; empty where it is not there.
    ///
    /// Refuses the request with 400 `INVALID_HEADER` where a value is no UTF-8 text.
    ///
    /// Example: `if req.headers("X-Signature").len() != 1 { deny(401, "ONE_SIGNATURE", "Send one signature."); }`
    #[rhai_fn(pure, return_raw)]
    pub fn headers(req: &mut ScriptRequest, name: &str) -> Checked<Array> {
        readable(req, name)?;
        Ok(req.header_values(name).map(Into::into).collect())
    }

    /// Leaves a note for later hooks of the same request. The value is plain data: text, number, boolean, array, map, blob.
    ///
    /// Error: there are too many notes, or the value is no plain data.
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

    /// A note that an earlier hook of the same request left; `()` where there is none.
    ///
    /// Example: `if req.get("tenant") == () { deny(403, "NO_TENANT", "No tenant."); }`
    #[rhai_fn(name = "get", pure)]
    pub fn get(req: &mut ScriptRequest, name: &str) -> Dynamic {
        req.note(name).unwrap_or(Dynamic::UNIT)
    }

    /// `req` as a text: the method and the path, nothing that could be a secret.
    ///
    /// Example: `log(req.to_string());`
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn show(req: &mut ScriptRequest) -> String {
        format!("{} {}", req.method(), req.path())
    }
}
