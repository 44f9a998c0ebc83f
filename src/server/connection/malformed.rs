//! Gives a body to hyper's responses to requests that are not valid HTTP. hyper sends an empty
//! body, but every other error of this server has a body that clients can parse.

use ::http::StatusCode;

/// The response that replaces a rejection by hyper. `None` means that `written` is no such
/// rejection. The caller knows that the bytes are not a response of a handler.
///
/// hyper writes a rejection in one piece: a 4xx with an empty body and without a content type.
///
/// `has_unknown_coding` means that the request has a transfer coding that this server does not know
/// (RFC 9112, section 6.1).
pub(in crate::server) fn replacement_for(
    written: &[u8],
    has_unknown_coding: bool,
) -> Option<Vec<u8>> {
    let status =
        written.strip_prefix(b"HTTP/1.1 ").or_else(|| written.strip_prefix(b"HTTP/1.0 "))?;
    if status.first() != Some(&b'4') {
        return None;
    }
    let head = std::str::from_utf8(written.strip_suffix(b"\r\n\r\n")?).ok()?;
    let is_field = |line: &str, name: &str| {
        line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    let has_field = |name: &str| head.split("\r\n").any(|line| is_field(line, name));
    if has_field("content-type:") || !has_field("content-length: 0") {
        return None;
    }
    let (status, code, description) = match status.get(..3)? {
        b"400" if has_unknown_coding => (
            StatusCode::NOT_IMPLEMENTED,
            "NOT_IMPLEMENTED",
            "The request's body has a transfer coding that this server does not know. Send \
             chunked, or a length.",
        ),
        b"414" => (
            StatusCode::URI_TOO_LONG,
            "URI_TOO_LONG",
            "The request's target is longer than this server takes.",
        ),
        b"431" => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "REQUEST_HEADER_FIELDS_TOO_LARGE",
            "The request's header fields are larger than this server takes.",
        ),
        _ => (StatusCode::BAD_REQUEST, "BAD_REQUEST", "The request is not valid HTTP."),
    };
    let body = crate::http::response::envelope(status, code, description);
    let length = body.len();
    let fields = "connection: close\r\ncontent-type: application/json\r\ncache-control: no-store";
    let response =
        format!("HTTP/1.1 {status}\r\n{fields}\r\ncontent-length: {length}\r\n\r\n{body}");
    Some(response.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rejection_with_an_empty_body_is_replaced() {
        let hyper_rejection = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let text = String::from_utf8(replacement_for(hyper_rejection, false).unwrap()).unwrap();
        assert!(text.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{text}");
        assert!(text.ends_with("takes.\"\n}"), "{text}");
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n",
            "4",
            "",
        ] {
            assert_eq!(replacement_for(other.as_bytes(), true), None, "{other}");
        }
    }
}
