//! Encodings of texts and bytes.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rhai::{Blob, Dynamic, Module, NativeCallContext, exported_module};

use super::Checked;
use crate::scripting::{runtime::context::runtime_error, values::request::is_plain_data};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

/// The bytes of a text or a blob.
pub(super) fn bytes(data: &Dynamic) -> Checked<Vec<u8>> {
    if let Ok(text) = data.as_immutable_string_ref() {
        return Ok(text.as_bytes().to_vec());
    }
    match data.as_blob_ref() {
        Ok(blob) => Ok(blob.to_vec()),
        Err(_) => {
            Err(runtime_error(format!("a text or a blob is needed, not {}", data.type_name())))
        }
    }
}

/// A value as JSON.
pub(super) fn json_of(value: &Dynamic) -> Checked<String> {
    if !is_plain_data(value, 0) {
        return Err(runtime_error(
            "only plain data that is not nested too deeply can be written as JSON",
        ));
    }
    serde_json::to_string(value).map_err(|_| runtime_error("the value cannot be written as JSON"))
}

/// Returns decoded bytes if a blob may contain so many bytes.
fn blob(bytes: Vec<u8>, max_bytes: usize) -> Checked<Blob> {
    if bytes.len() <= max_bytes {
        Ok(bytes)
    } else {
        Err(runtime_error(format!(
            "the decoded data has more than {max_bytes} bytes, the maximum of a blob"
        )))
    }
}

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// Encodes data in base64 (RFC 4648, section 4), with padding.
    ///
    /// Example: `base64_encode("a:b") == "YTpi"`
    #[rhai_fn(return_raw)]
    pub fn base64_encode(data: Dynamic) -> Checked<String> {
        Ok(STANDARD.encode(bytes(&data)?))
    }

    /// Decodes base64 into a blob. The padding must be canonical, and spaces are not allowed.
    ///
    /// Error: the text is not base64. Catch this error if the text comes from a client.
    ///
    /// Example: `to_text(base64_decode("YTpi")) == "a:b"`
    #[rhai_fn(return_raw)]
    pub fn base64_decode(context: NativeCallContext, text: &str) -> Checked<Blob> {
        let bytes = STANDARD.decode(text).map_err(|_| runtime_error("the text is not base64"))?;
        blob(bytes, context.engine().max_array_size())
    }

    /// Encodes data in URL-safe base64 (RFC 4648, section 5), without padding.
    ///
    /// Example: `base64url_encode(sha256("a"))`
    #[rhai_fn(return_raw)]
    pub fn base64url_encode(data: Dynamic) -> Checked<String> {
        Ok(URL_SAFE_NO_PAD.encode(bytes(&data)?))
    }

    /// Decodes URL-safe base64 without padding into a blob.
    ///
    /// Error: the text is not URL-safe base64.
    ///
    /// Example: `base64url_decode("YTpi").len() == 3`
    #[rhai_fn(return_raw)]
    pub fn base64url_decode(context: NativeCallContext, text: &str) -> Checked<Blob> {
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| runtime_error("the text is not URL-safe base64"))?;
        blob(bytes, context.engine().max_array_size())
    }

    /// Encodes data in hexadecimal, in lower case.
    ///
    /// Example: `hex(sha256(req.body))`
    #[rhai_fn(return_raw)]
    pub fn hex(data: Dynamic) -> Checked<String> {
        let bytes = bytes(&data)?;
        // The text is written into a buffer, because appending one letter at a time is slow.
        let mut text = vec![0; bytes.len() * 2];
        let written = ::hex::encode_to_slice(&bytes, &mut text).ok();
        let text = written.and_then(|()| String::from_utf8(text).ok());
        text.ok_or_else(|| runtime_error("the data cannot be written in hexadecimal"))
    }

    /// Decodes hexadecimal, in any case, into a blob.
    ///
    /// Error: the text is not hexadecimal.
    ///
    /// Example: `hex_decode("00ff").len() == 2`
    #[rhai_fn(return_raw)]
    pub fn hex_decode(context: NativeCallContext, text: &str) -> Checked<Blob> {
        let bytes =
            ::hex::decode(text).map_err(|_| runtime_error("the text is not hexadecimal"))?;
        blob(bytes, context.engine().max_array_size())
    }

    /// Converts a blob into a text.
    ///
    /// Error: the bytes are not UTF-8.
    ///
    /// Example: `let pair = to_text(base64_decode(presented));`
    #[rhai_fn(return_raw)]
    pub fn to_text(data: Blob) -> Checked<String> {
        String::from_utf8(data).map_err(|_| runtime_error("the bytes are not UTF-8"))
    }

    /// Percent-encodes a text for a query or a path: everything except letters, digits and `-._~`
    /// becomes `%XX`.
    ///
    /// Example: `url_encode("a b&c") == "a%20b%26c"`
    pub fn url_encode(text: &str) -> String {
        const KEPT: percent_encoding::AsciiSet =
            percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        percent_encoding::utf8_percent_encode(text, &KEPT).to_string()
    }

    /// Percent-decodes a text: each `%XX` is decoded; `+` stays unchanged.
    ///
    /// Error: the result is not UTF-8.
    ///
    /// Example: `url_decode("a%20b") == "a b"`
    #[rhai_fn(return_raw)]
    pub fn url_decode(text: &str) -> Checked<String> {
        percent_encoding::percent_decode_str(text)
            .decode_utf8()
            .map(std::borrow::Cow::into_owned)
            .map_err(|_| runtime_error("the bytes are not UTF-8"))
    }

    /// Parses JSON: objects become maps, `null` becomes `()`.
    ///
    /// Error: the text is not JSON, or is nested too deeply. Catch this error if the text comes
    /// from a client.
    ///
    /// Example: `json_parse(req.body).items.len()`
    #[rhai_fn(return_raw)]
    pub fn json_parse(text: &str) -> Checked<Dynamic> {
        let value: Dynamic = serde_json::from_str(text)
            .map_err(|_| runtime_error("the text is not JSON, or is nested too deeply"))?;
        if is_plain_data(&value, 0) {
            Ok(value)
        } else {
            Err(runtime_error("the JSON is nested too deeply"))
        }
    }

    /// Formats a value as JSON. The value is plain data: text, number, boolean, `()`, array, map.
    ///
    /// Error: the value contains other data.
    ///
    /// Example: `json_text(#{ title: "No" }) == "{\"title\":\"No\"}"`
    #[rhai_fn(return_raw)]
    pub fn json_text(value: Dynamic) -> Checked<String> {
        json_of(&value)
    }
}
