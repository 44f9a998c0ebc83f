//! The id of a request (`X-Request-Id`), by which its lines in several logs are found.

use ::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header field with the id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The maximum number of bytes of an id of another program.
const MAX_BYTES: usize = 128;

/// The id that a trusted proxy sent, or else a new one. Another client could send the id of
/// somebody else's request.
pub(crate) fn request_id(headers: &HeaderMap, is_proxy: bool) -> HeaderValue {
    let mut given = headers.get_all(REQUEST_ID).iter();
    match (given.next(), given.next()) {
        (Some(id), None) if is_proxy && is_plain(id) => id.clone(),
        _ => new_id(),
    }
}

/// Whether an id may stand in every log and header field: letters, digits and `-._~+/=@:`.
fn is_plain(id: &HeaderValue) -> bool {
    let is_allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/=@:".contains(b);
    (1..=MAX_BYTES).contains(&id.len()) && id.as_bytes().iter().all(is_allowed)
}

/// A UUID of version 7, which begins with the time.
fn new_id() -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    let text = Uuid::now_v7().hyphenated().encode_lower(&mut text);
    // This cannot fail: the text consists of digits and hyphens.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ids: &[&str], is_proxy: bool) -> String {
        let mut headers = HeaderMap::new();
        for id in ids {
            headers.append(REQUEST_ID, HeaderValue::from_str(id).unwrap());
        }
        request_id(&headers, is_proxy).to_str().unwrap().to_owned()
    }

    #[test]
    fn only_one_plain_id_of_a_trusted_proxy_is_taken() {
        assert_eq!(of(&["a-1.b_2/~+=@:"], true), "a-1.b_2/~+=@:");
        for (ids, is_proxy) in [
            (&["mine"][..], false),
            (&[], true),
            (&["a", "b"], true),
            (&[""], true),
            (&["a b"], true),
            (&["a\"b"], true),
            (&[&*"x".repeat(129)], true),
        ] {
            let id = of(ids, is_proxy);
            assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 7, "{ids:?}");
        }
        assert_ne!(of(&[], true), of(&[], true));
    }
}
