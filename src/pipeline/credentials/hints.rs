//! Hints for the person who set up a client: `X-Keyward-Hint` of a refused request says what the
//! application wants, and what the request has instead.
//!
//! A hint depends only on the client's own request, and on what the error says already. It contains
//! no text of the request. An application that gives no details ([`Detail::Uniform`]) sends none.
//! Only refused requests look for a hint.

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, header::AUTHORIZATION};
use zeroize::Zeroizing;

use super::{CompiledApplication, Denial};
use crate::model::{AuthType, Detail, KeyShape, KeyText};

/// Appends what an `api_key` application wants to a sentence.
macro_rules! api_key_hint {
    ($sentence:literal) => {
        concat!(
            $sentence,
            "The application wants the base64 text of the user name, a colon and the key (printf %s \"$USER:$KEY\" | base64 -w0) in the header field that WWW-Authenticate names."
        )
    };
}

/// Appends what an application that reads `Authorization` wants to a sentence.
macro_rules! basic_hint {
    ($sentence:literal) => {
        concat!(
            $sentence,
            "The application wants Authorization: Basic with the base64 text of the user name, a colon and the key or password (curl -u)."
        )
    };
}

/// Appends what an application for pairs wants to a sentence.
macro_rules! pair_hint {
    ($application:ident, $sentence:literal) => {
        if $application.record.reads_authorization() {
            basic_hint!($sentence)
        } else {
            api_key_hint!($sentence)
        }
    };
}

/// Appends what a `bearer` application wants to a sentence.
macro_rules! bearer_hint {
    ($sentence:literal) => {
        concat!(
            $sentence,
            "The application wants the key alone, without a user name and without base64: Authorization: Bearer KEY, or in the header field that WWW-Authenticate names."
        )
    };
}

/// `Authorization` is missing.
const DROPPED: &str = "If the client did send Authorization, a proxy in between has dropped it. Configure the proxy to pass Authorization on, or use an application that reads another header.";
const DROPPED_OR_OTHER: &str = "The request has the header field of another application. This application reads Authorization. If the client did send Authorization, a proxy in between has dropped it.";
/// The user's name is unknown. Otherwise the 404 looks like that of a path.
pub(in crate::pipeline) const UNKNOWN_USER: &str =
    "No user has the name in the credential: check its spelling. This 404 is not about the path.";
/// The key's checksum is wrong.
const DAMAGED_KEY: &str =
    "The checksum of the key is wrong: the key is mistyped, or a part of it is missing.";
/// The key matches, and another application accepts it.
pub(in crate::pipeline) const OTHER_APPLICATION: &str = "Another application accepts this key. Send the id of that application in AUTH-METHOD, or use a key for this application.";
/// A password application got a key.
pub(in crate::pipeline) const KEY_AS_PASSWORD: &str = "The credential has an API key where the application wants the user's password. Send the key with an application for keys.";

/// Common header fields for API keys that are not Keyward's default.
const OTHER_FIELDS: [&str; 5] =
    ["x-api-key", "api-key", "apikey", "x-auth-token", "x-access-token"];

impl Denial {
    /// Sets `X-Keyward-Hint`, if the application gives details.
    #[must_use]
    pub(in crate::pipeline) fn with_hint_of(
        self,
        application: &CompiledApplication,
        hint: impl FnOnce() -> Option<&'static str>,
    ) -> Self {
        if application.record.detail == Detail::Uniform {
            return self;
        }
        match hint() {
            Some(hint) => self.with_hint(hint),
            None => self,
        }
    }

    /// The denial of a key with a wrong checksum. No look-up is needed to know that it is wrong.
    pub(in crate::pipeline) fn damaged_key(application: &CompiledApplication) -> Self {
        Self::wrong_key(application, "the key's checksum is wrong")
            .with_hint_of(application, || Some(DAMAGED_KEY))
    }
}

/// The hint for a request without the credential. `is_authorization` says that the application
/// reads it from `Authorization`.
pub(in crate::pipeline) fn missing(
    application: &CompiledApplication,
    headers: &HeaderMap,
    is_authorization: bool,
) -> Option<&'static str> {
    let has_other = OTHER_FIELDS.iter().any(|name| headers.contains_key(*name));
    if is_authorization {
        return Some(if has_other { DROPPED_OR_OTHER } else { DROPPED });
    }
    match &application.record.auth_type {
        AuthType::ApiKey if has_scheme(headers, "bearer") => Some(api_key_hint!(
            "The request has Authorization: Bearer, which this application does not read. "
        )),
        AuthType::ApiKey if has_scheme(headers, "basic") => Some(api_key_hint!(
            "The request has Authorization: Basic, which this application does not read. "
        )),
        AuthType::ApiKey if has_other => Some(api_key_hint!(
            "The request has another header field for keys, which this application does not read. "
        )),
        AuthType::ApiKey => Some(api_key_hint!("")),
        AuthType::Bearer => Some(bearer_hint!("")),
        AuthType::Basic | AuthType::Script(_) => None,
    }
}

fn has_scheme(headers: &HeaderMap, scheme: &str) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|value| {
        let given = value.as_bytes().trim_ascii_start().get(..scheme.len());
        given.is_some_and(|given| given.eq_ignore_ascii_case(scheme.as_bytes()))
    })
}

/// The hint for a credential in the right place that is malformed, or has another scheme.
pub(in crate::pipeline) fn wanted(application: &CompiledApplication) -> Option<&'static str> {
    match (&application.record.auth_type, application.record.reads_authorization()) {
        (AuthType::ApiKey, false) => Some(api_key_hint!("")),
        (AuthType::ApiKey | AuthType::Basic, _) => Some(basic_hint!("")),
        (AuthType::Bearer, _) => Some(bearer_hint!("")),
        (AuthType::Script(_), _) => None,
    }
}

/// The hint for a text that is not `base64(user:secret)`.
pub(in crate::pipeline) fn malformed_pair(
    application: &CompiledApplication,
    text: &str,
) -> Option<&'static str> {
    match mistake(application, text) {
        Some(mistake) => Some(mistake),
        None => wanted(application),
    }
}

fn mistake(application: &CompiledApplication, text: &str) -> Option<&'static str> {
    if KeyText::shape(text) != KeyShape::Foreign {
        return Some(pair_hint!(application, "The credential is the key alone. "));
    }
    if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        return Some(
            "The base64 text contains white space: base64 wraps long lines unless it gets -w0.",
        );
    }
    if text.contains(':') {
        return Some(pair_hint!(application, "The credential is clear text and not base64. "));
    }
    let bytes = decoded(text)?;
    let content = std::str::from_utf8(&bytes).ok()?;
    if !content.contains(':') {
        let is_key = KeyText::shape(content.trim_end()) != KeyShape::Foreign;
        return is_key
            .then_some(pair_hint!(application, "The base64 text has a key, but no user name. "));
    }
    if content.ends_with(['\n', '\r']) {
        return Some(
            "The base64 text has a line end at its end, which echo adds: use printf %s \"$USER:$KEY\" | base64 -w0.",
        );
    }
    if text.bytes().any(|byte| b"-_".contains(&byte)) {
        return Some(
            "The base64 text has the URL-safe alphabet (- and _). Use the standard alphabet (+ and /) with padding.",
        );
    }
    (!text.len().is_multiple_of(4))
        .then_some("The base64 text has no padding: its length must be a multiple of 4, with =.")
}

/// The hint for a wrong key of a `bearer` application: the client has sent the user's name, too.
pub(in crate::pipeline) fn wrong_key(
    application: &CompiledApplication,
    text: &str,
) -> Option<&'static str> {
    if application.record.auth_type != AuthType::Bearer {
        return None;
    }
    if has_name_and_key(text) {
        return Some(bearer_hint!("The credential has a user name before the key. "));
    }
    let bytes = decoded(text)?;
    let content = std::str::from_utf8(&bytes).ok()?.trim_end();
    let is_encoded = has_name_and_key(content) || KeyText::shape(content) != KeyShape::Foreign;
    is_encoded.then_some(bearer_hint!("The credential is in base64. "))
}

fn has_name_and_key(text: &str) -> bool {
    text.split_once(':').is_some_and(|(_, key)| KeyText::shape(key) != KeyShape::Foreign)
}

/// Decodes base64 in either alphabet, with or without padding.
fn decoded(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let is_url_safe = text.bytes().any(|byte| b"-_".contains(&byte));
    let alphabet = if is_url_safe { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, LENIENT).decode(text).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};

    use super::*;
    use crate::model::{Application, Entropy};

    fn application(auth_type: AuthType, header: &str, detail: Detail) -> CompiledApplication {
        let record = Application::api_key("a", "A");
        let header = header.into();
        CompiledApplication::new(Application { auth_type, header, detail, ..record }, None)
    }

    fn key() -> String {
        KeyText::generate("kw", &Entropy::seeded(1)).text.expose().to_owned()
    }

    #[test]
    fn each_mistake_of_a_pair_has_its_hint() {
        let (key, app) = (key(), application(AuthType::ApiKey, "API-KEY", Detail::Exact));
        let damaged = format!("{}x", &key[..47]);
        let long = STANDARD.encode(format!("continuous-build:{key}"));
        for (text, part) in [
            (key.clone(), "the key alone"),
            (damaged, "the key alone"),
            (format!("ann:{key}"), "clear text"),
            (STANDARD.encode(format!("ann:{key}\n")), "line end"),
            (STANDARD.encode(format!("ann:{key}\r\n")), "line end"),
            (format!("{} {}", &long[..76], &long[76..]), "white space"),
            (STANDARD.encode(&key), "no user name"),
            (URL_SAFE.encode(format!("ÿ>>?:{key}")), "URL-safe"),
            (STANDARD_NO_PAD.encode(format!("ann:{key}")), "padding"),
            ("kw_x".to_owned(), "WWW-Authenticate"),
            ("!!!!".to_owned(), "WWW-Authenticate"),
        ] {
            let hint = malformed_pair(&app, &text).unwrap();
            assert!(hint.contains(part), "{text}: {hint}");
            assert!(!hint.contains(&key) && hint.is_ascii(), "{hint}");
        }
    }

    #[test]
    fn bearer_application_recognises_a_pair() {
        let (key, app) = (key(), application(AuthType::Bearer, "Authorization", Detail::Exact));
        for (text, part) in [
            (format!("ann:{key}"), "before the key"),
            (STANDARD.encode(format!("ann:{key}")), "in base64"),
            (STANDARD.encode(format!("{key}\n")), "in base64"),
        ] {
            assert!(wrong_key(&app, &text).unwrap().contains(part), "{text}");
        }
        assert_eq!(wrong_key(&app, "some-other-systems-key"), None);
        let pairs = application(AuthType::ApiKey, "API-KEY", Detail::Exact);
        assert_eq!(wrong_key(&pairs, &format!("ann:{key}")), None);
    }

    #[test]
    fn uniform_application_sends_no_hint() {
        for (detail, expected) in [(Detail::Exact, true), (Detail::Uniform, false)] {
            let app = application(AuthType::ApiKey, "API-KEY", detail);
            assert_eq!(Denial::damaged_key(&app).hint.is_some(), expected, "{detail:?}");
        }
    }
}
