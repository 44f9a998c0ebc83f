//! The header fields with which a client could make an application see another request than the one
//! that Keyward has decided about. They are removed before the request reaches an upstream or the
//! service behind the layer.

use ::http::HeaderName;

use super::identity::is_similar;

/// Fields of which an application can read the method, the URL or the host of a request. Frameworks
/// and proxies set or read them by default. `Proxy` becomes the environment variable `HTTP_PROXY`
/// in CGI programs, which then send their own requests through the client's proxy (httpoxy).
const OVERRIDES: &[&str] = &[
    "x-original-method",
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-override-url",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-http-host-override",
    "x-method-override",
    "proxy",
];

/// Fields that frame a message, and the host. Another spelling, such as `Content_Length`, is
/// another field for Keyward, but CGI and its successors read it as the field itself.
const FRAMING: &[&str] =
    &["connection", "content-length", "expect", "host", "te", "transfer-encoding", "upgrade"];

/// Whether only Keyward may tell an application what a field of this name tells.
pub(crate) fn is_override(name: &HeaderName) -> bool {
    let name = name.as_str();
    OVERRIDES.iter().any(|known| is_similar(name, known))
        || FRAMING.iter().any(|known| name != *known && is_similar(name, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_override_is_known() {
        for name in [
            "x-original-method",
            "x_original_host",
            "x-original-uri",
            "x.override.url",
            "x-http-host-override",
            "proxy",
            "transfer_encoding",
            "content_length",
            "content.length",
        ] {
            assert!(is_override(&HeaderName::from_static(name)), "{name}");
        }
        for name in
            ["content-length", "transfer-encoding", "host", "te", "proxy-connection", "x-original"]
        {
            assert!(!is_override(&HeaderName::from_static(name)), "{name}");
        }
    }
}
