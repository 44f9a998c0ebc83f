//! hyper answers what is not HTTP by itself, with an empty body. Every error of ours has one, in the form that clients parse.

use ::http::StatusCode;

/// The answer in the place of hyper's own, if that is what is about to be written.
///
/// hyper writes its refusals in one piece: a 4xx with an empty body and no content type. Ours always have a content type.
pub(in crate::server) fn instead_of(written: &[u8]) -> Option<Vec<u8>> {
    let status =
        written.strip_prefix(b"HTTP/1.1 ").or_else(|| written.strip_prefix(b"HTTP/1.0 "))?;
    if status.first() != Some(&b'4') {
        return None;
    }
    let head = std::str::from_utf8(written.strip_suffix(b"\r\n\r\n")?).ok()?;
    let is = |line: &str, name: &str| {
        line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    let has = |name: &str| head.split("\r\n").any(|line| is(line, name));
    if has("content-type:") || !has("content-length: 0") {
        return None;
    }
    let (status, code, description) = match status.get(..3)? {
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
    Some(
        format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\ncache-control: no-store\r\ncontent-length: {}\r\n\r\n{body}",
            body.len(),
        )
        .into_bytes(),
    )
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn only_an_empty_refusal_is_replaced() {
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let text = String::from_utf8(instead_of(own).unwrap()).unwrap();
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
            assert_eq!(instead_of(other.as_bytes()), None, "{other}");
        }
    }
}
