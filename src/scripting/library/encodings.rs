//! Encodings of texts and bytes.

use std::io;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rhai::{Blob, Dynamic, Module, NativeCallContext, exported_module};

use super::Checked;
use crate::scripting::{
    compiler::texts::check_text,
    runtime::context::{runtime_error, too_large},
    values::request::is_plain_data,
};

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

/// Formats a value as JSON, up to the maximum size of a text.
pub(in crate::scripting) fn json_text(
    context: &NativeCallContext<'_>,
    value: &Dynamic,
) -> Checked<String> {
    if !is_plain_data(value, 0) {
        return Err(runtime_error(
            "only plain data that is not nested too deeply can be written as JSON",
        ));
    }
    let mut out = BoundedBytes { bytes: Vec::new(), max: context.engine().max_string_size() };
    match serde_json::to_writer(&mut out, value) {
        Ok(()) => {}
        Err(error) if error.is_io() => return Err(too_large("Length of string")),
        Err(_) => return Err(runtime_error("the value cannot be written as JSON")),
    }
    String::from_utf8(out.bytes).map_err(|_| runtime_error("the value cannot be written as JSON"))
}

/// Bytes up to a maximum size.
struct BoundedBytes {
    bytes: Vec<u8>,
    max: usize,
}

impl io::Write for BoundedBytes {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + part.len() > self.max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Parses JSON with at most as many values as arrays and maps may contain together.
pub(in crate::scripting) fn json_parse(
    context: &NativeCallContext<'_>,
    text: &str,
) -> Checked<Dynamic> {
    let engine = context.engine();
    if values_in_json(text) > engine.max_array_size().saturating_add(engine.max_map_size()) {
        return Err(too_large("Size of array/BLOB"));
    }
    let value: Dynamic = serde_json::from_str(text)
        .map_err(|_| runtime_error("the text is not JSON, or is nested too deeply"))?;
    if is_plain_data(&value, 0) {
        Ok(value)
    } else {
        Err(runtime_error("the JSON is nested too deeply"))
    }
}

/// Almost the number of values in arrays and objects: the number of commas outside of strings.
fn values_in_json(text: &str) -> usize {
    let (mut count, mut is_string, mut is_escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            b',' if !is_string => count += 1,
            _ => {}
        }
    }
    count
}

/// # Errors
/// A blob may not contain so many bytes.
fn check_blob(context: &NativeCallContext<'_>, bytes: usize) -> Checked<()> {
    if bytes > context.engine().max_array_size() {
        return Err(too_large("Size of array/BLOB"));
    }
    Ok(())
}

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// Encodes data in base64 (RFC 4648, section 4), with padding.
    ///
    /// Example: `base64_encode("a:b") == "YTpi"`
    #[rhai_fn(return_raw)]
    pub fn base64_encode(context: NativeCallContext, data: Dynamic) -> Checked<String> {
        let bytes = bytes(&data)?;
        check_text(&context, bytes.len().div_ceil(3) * 4)?;
        Ok(STANDARD.encode(bytes))
    }

    /// Decodes base64 into a blob. The padding must be canonical, and spaces are not allowed.
    ///
    /// Error: the text is not base64. Catch this error if the text comes from a client.
    ///
    /// Example: `to_text(base64_decode("YTpi")) == "a:b"`
    #[rhai_fn(return_raw)]
    pub fn base64_decode(context: NativeCallContext, text: &str) -> Checked<Blob> {
        check_blob(&context, (text.len() / 4 * 3).saturating_sub(2))?;
        let bytes = STANDARD.decode(text).map_err(|_| runtime_error("the text is not base64"))?;
        check_blob(&context, bytes.len()).map(|()| bytes)
    }

    /// Encodes data in URL-safe base64 (RFC 4648, section 5), without padding.
    ///
    /// Example: `base64url_encode(sha256("a"))`
    #[rhai_fn(return_raw)]
    pub fn base64url_encode(context: NativeCallContext, data: Dynamic) -> Checked<String> {
        let bytes = bytes(&data)?;
        check_text(&context, (bytes.len() * 4).div_ceil(3))?;
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Decodes URL-safe base64 without padding into a blob.
    ///
    /// Error: the text is not URL-safe base64.
    ///
    /// Example: `base64url_decode("YTpi").len() == 3`
    #[rhai_fn(return_raw)]
    pub fn base64url_decode(context: NativeCallContext, text: &str) -> Checked<Blob> {
        check_blob(&context, text.len() / 4 * 3)?;
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| runtime_error("the text is not URL-safe base64"))?;
        check_blob(&context, bytes.len()).map(|()| bytes)
    }

    /// Encodes data in hexadecimal, in lower case.
    ///
    /// Example: `hex(sha256(req.body))`
    #[rhai_fn(return_raw)]
    pub fn hex(context: NativeCallContext, data: Dynamic) -> Checked<String> {
        let bytes = bytes(&data)?;
        check_text(&context, bytes.len() * 2)?;
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
        check_blob(&context, text.len() / 2)?;
        let bytes =
            ::hex::decode(text).map_err(|_| runtime_error("the text is not hexadecimal"))?;
        Ok(bytes)
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
    #[rhai_fn(return_raw)]
    pub fn url_encode(context: NativeCallContext, text: &str) -> Checked<String> {
        const KEPT: percent_encoding::AsciiSet =
            percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        let encoded = percent_encoding::utf8_percent_encode(text, &KEPT);
        check_text(&context, encoded.clone().map(str::len).sum())?;
        Ok(encoded.to_string())
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
    #[rhai_fn(name = "json_parse", return_raw)]
    pub fn parse(context: NativeCallContext, text: &str) -> Checked<Dynamic> {
        json_parse(&context, text)
    }

    /// Formats a value as JSON. The value is plain data: text, number, boolean, `()`, array, map.
    ///
    /// Error: the value contains other data.
    ///
    /// Example: `json_text(#{ title: "No" }) == "{\"title\":\"No\"}"`
    #[rhai_fn(name = "json_text", return_raw)]
    pub fn text(context: NativeCallContext, value: Dynamic) -> Checked<String> {
        json_text(&context, &value)
    }
}
