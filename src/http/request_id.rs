//! The id of a request (`X-Request-Id`) and of its trace (`traceparent`), by which its lines in
//! several logs are found.

use ::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header field with the id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
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

/// The id of the trace that the client or a proxy began, if `traceparent` has the form of W3C Trace
/// Context, section 3.2.
pub(crate) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let text = match (given.next(), given.next()) {
        (Some(value), None) => value.to_str().ok()?,
        _ => return None,
    };
    let mut parts = text.split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length| {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        text.len() == length && text.bytes().all(is_digit)
    };
    // Only version 00 has an end here; later versions may have more parts.
    let is_valid = is_hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && is_hex(trace, 32)
        && trace.bytes().any(|b| b != b'0')
        && is_hex(parent, 16)
        && parent.bytes().any(|b| b != b'0')
        && is_hex(flags, 2);
    is_valid.then_some(trace)
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
    fn trace_id_is_that_of_a_valid_traceparent() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let of = |texts: &[&str]| {
            let mut headers = HeaderMap::new();
            for text in texts {
                headers.append(TRACEPARENT, HeaderValue::from_str(text).unwrap());
            }
            trace_id(&headers).map(str::to_owned)
        };
        let valid = format!("00-{id}-00f067aa0ba902b7-01");
        assert_eq!(of(&[&valid]).as_deref(), Some(id));
        assert_eq!(of(&[&format!("01-{id}-00f067aa0ba902b7-01-later")]).as_deref(), Some(id));
        for invalid in [
            vec![],
            vec![valid.as_str(), &valid],
            vec![""],
            vec!["00-4bf92f35-00f067aa0ba902b7-01"],
            vec!["00-00000000000000000000000000000000-00f067aa0ba902b7-01"],
            vec!["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"],
            vec!["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"],
            vec!["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x"],
            vec!["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
        ] {
            assert_eq!(of(&invalid), None, "{invalid:?}");
        }
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
