//! Prepares the head of an upstream's response for the client: removes the fields of this hop.

use ::http::{
    HeaderMap, HeaderValue, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
    response::Parts,
};

use super::headers::HopFields;

/// Whether a response switches to exactly the requested protocol.
pub(super) fn switches_to<B>(response: &Response<B>, requested: Option<&HeaderValue>) -> bool {
    let new_protocol = response.headers().get(UPGRADE);
    matches!((new_protocol, requested), (Some(new_protocol), Some(requested))
        if new_protocol.as_bytes().eq_ignore_ascii_case(requested.as_bytes()))
}

/// Whether a response says in at most one way how long its body is. With two lengths, the client
/// may read another end of the body than Keyward (RFC 9112, section 6.3).
pub(super) fn has_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths.next(), codings.next()) {
        (None, None) => true,
        (Some(length), None) => {
            lengths.next().is_none() && length.as_bytes().iter().all(u8::is_ascii_digit)
        }
        (None, Some(coding)) => {
            codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        }
        (Some(_), Some(_)) => false,
    }
}

/// Removes the fields of this hop (RFC 9110, section 7.6.1), but keeps the fields of an upgrade,
/// which the client needs too.
pub(super) fn clean(head: &mut Parts, is_upgraded: bool) {
    let upgrade = head.headers.get(UPGRADE).filter(|_| is_upgraded).cloned();
    let hop_fields = HopFields::of(&head.headers);
    let removed: Vec<_> =
        head.headers.keys().filter(|name| hop_fields.contains(name)).cloned().collect();
    for name in removed {
        head.headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, upgrade);
    }
    if head.status == StatusCode::NOT_MODIFIED {
        // `Content-Length` contains the length of a body that a 304 does not send.
        head.headers.remove(CONTENT_LENGTH);
    }
    // When the server writes the response, it uses the version of the client's connection.
    head.version = Version::HTTP_11;
}
