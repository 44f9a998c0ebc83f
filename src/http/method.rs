//! Reads methods. Clients of the systems that Keyward replaces may send a known method in another
//! case, such as `patch`, so a known method is read as its upper-case form.

use ::http::{Method, header::CONTENT_LENGTH};

use crate::{
    handlers::{Payload, PayloadResponse},
    model::known_method,
};

/// Brings a method into its one spelling. Returns whether the spelling changed.
pub(crate) fn normalise(method: &mut Method) -> bool {
    let usual = [Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE];
    if usual.contains(method) {
        return false;
    }
    let known = known_method(method.as_str()).filter(|known| *known != method.as_str());
    match known.and_then(|known| Method::from_bytes(known.as_bytes()).ok()) {
        Some(known) => {
            *method = known;
            true
        }
        None => false,
    }
}

/// Parses a method, in its one spelling. `None` means that the text is not a method.
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server uses it"))]
pub(crate) fn parse(text: &str) -> Option<Method> {
    let mut method = Method::from_bytes(text.as_bytes()).ok()?;
    normalise(&mut method);
    Some(method)
}

/// The response for a client that sent `head`: the server below does not know the method and would
/// wait for the body that `Content-Length` announces.
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server uses it"))]
pub(crate) fn without_length(mut response: PayloadResponse) -> PayloadResponse {
    response.headers_mut().remove(CONTENT_LENGTH);
    *response.body_mut() = Payload::default();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_methods_have_one_case() {
        for (text, method) in [
            ("GET", "GET"),
            ("patch", "PATCH"),
            ("Patch", "PATCH"),
            ("options", "OPTIONS"),
            ("head", "HEAD"),
            ("trace", "TRACE"),
            ("PROPFIND", "PROPFIND"),
            ("propfind", "propfind"),
            ("Purge", "Purge"),
        ] {
            assert_eq!(parse(text).unwrap().as_str(), method);
        }
        assert_eq!(parse("A B"), None);
    }
}
