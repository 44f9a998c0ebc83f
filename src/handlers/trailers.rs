//! The one list of fields that must not come as trailers. The listener rejects requests with such a
//! trailer over HTTP/1, and the handler `proxy` removes such trailers in both directions.

/// The fields that decide how a message is framed, routed, modified, authenticated, cached or read
/// (RFC 9110, section 6.5.1; RFC 7230, section 4.1.2, lists examples). A program that merges
/// trailers into the header fields would treat the message in another way than Keyward.
const FORBIDDEN: [&str; 35] = [
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "warning",
    "www-authenticate",
];

/// Whether a field of this name, in any case, must not be in a trailer section.
pub(crate) fn is_forbidden_trailer(name: &[u8]) -> bool {
    FORBIDDEN.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}
