//! What lies where in the API: paths, the methods that each has, and the permission that it asks for.

use std::borrow::Cow;

use ::http::{Method, StatusCode, request::Parts};

use crate::{
    model::KeyId,
    pipeline::{Denial, Phase},
};

/// A place in the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Me,
    MyKeys,
    RevokeMine(KeyId),
    RotateMine(KeyId),
    Users,
    User(u64),
    KeysOf(u64),
    Keys,
    Key(KeyId),
    KeysOfAll,
    ImportKeys,
    ImportUsers,
    Revoke(KeyId),
    Rotate(KeyId),
    Audit,
    VerifyAudit,
    Backup,
    State,
    Roles,
    Role(String),
    Applications,
    Application(String),
    Resources,
    Resource(String),
    Scripts,
    ReloadScripts,
    Explain,
}

impl Route {
    /// The place that a request is for.
    ///
    /// # Errors
    /// There is none at its path (404), or it does not have the method (405). Told to those who may come in.
    pub fn of(request: &Parts) -> Result<Self, Denial> {
        let place = Self::at(request.uri.path()).ok_or_else(|| nothing_here(request))?;
        let methods = place.methods();
        let wanted = if request.method == Method::HEAD { &Method::GET } else { &request.method };
        if methods.contains(wanted) {
            return Ok(place);
        }
        let mut allow: Vec<&str> = methods.iter().map(Method::as_str).collect();
        if methods.contains(&Method::GET) {
            allow.push("HEAD");
        }
        let allow = allow.join(", ");
        let said = format!("{} cannot be used here. There are: {allow}.", request.method);
        let code = "METHOD_NOT_ALLOWED";
        Err(Denial::message(Phase::Edge, StatusCode::METHOD_NOT_ALLOWED, code, said)
            .with_allow(allow))
    }

    fn at(path: &str) -> Option<Self> {
        let inside = path.strip_prefix("/api/v1/")?;
        let segments: Option<Vec<Cow<'_, str>>> = inside.split('/').map(decode).collect();
        let segments = segments?;
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        Some(match segments.as_slice() {
            ["me"] => Self::Me,
            ["me", "keys"] => Self::MyKeys,
            ["me", "keys", id, "revoke"] => Self::RevokeMine(KeyId::parse(id)?),
            ["me", "keys", id, "rotate"] => Self::RotateMine(KeyId::parse(id)?),
            ["users"] => Self::Users,
            ["users", "import"] => Self::ImportUsers,
            ["users", uid] => Self::User(number(uid)?),
            ["users", uid, "keys"] => Self::KeysOf(number(uid)?),
            ["keys"] => Self::Keys,
            ["keys", "import"] => Self::ImportKeys,
            ["keys", "generate-all"] => Self::KeysOfAll,
            ["keys", id] => Self::Key(KeyId::parse(id)?),
            ["keys", id, "revoke"] => Self::Revoke(KeyId::parse(id)?),
            ["keys", id, "rotate"] => Self::Rotate(KeyId::parse(id)?),
            ["backup"] => Self::Backup,
            ["state"] => Self::State,
            ["audit"] => Self::Audit,
            ["audit", "verify"] => Self::VerifyAudit,
            ["roles"] => Self::Roles,
            ["roles", id] => Self::Role((*id).to_owned()),
            ["applications"] => Self::Applications,
            ["applications", id] => Self::Application((*id).to_owned()),
            ["resources"] => Self::Resources,
            ["resources", id] => Self::Resource((*id).to_owned()),
            ["scripts"] => Self::Scripts,
            ["scripts", "reload"] => Self::ReloadScripts,
            ["explain"] => Self::Explain,
            _ => return None,
        })
    }

    fn methods(&self) -> &'static [Method] {
        const LIST: &[Method] = &[Method::GET, Method::POST];
        const RECORD: &[Method] = &[Method::GET, Method::PATCH, Method::DELETE];
        match self {
            Self::Users | Self::KeysOf(_) | Self::MyKeys => LIST,
            Self::Roles | Self::Applications | Self::Resources => LIST,
            Self::User(_) => RECORD,
            Self::Role(_) | Self::Application(_) | Self::Resource(_) => RECORD,
            Self::Audit | Self::VerifyAudit => &[Method::GET],
            Self::Backup => &[Method::POST],
            Self::State => LIST,
            Self::Me | Self::Keys => &[Method::GET],
            Self::Key(_) => &[Method::GET, Method::PATCH],
            Self::Revoke(_) | Self::Rotate(_) | Self::KeysOfAll => &[Method::POST],
            Self::ImportKeys | Self::ImportUsers => &[Method::POST],
            Self::RevokeMine(_) | Self::RotateMine(_) => &[Method::POST],
            Self::Scripts => &[Method::GET],
            Self::ReloadScripts | Self::Explain => &[Method::POST],
        }
    }

    /// The permission that every call of this place asks for.
    pub fn permission(&self) -> &'static str {
        match self {
            Self::Me | Self::MyKeys => "generate own api key",
            Self::RevokeMine(_) | Self::RotateMine(_) => "generate own api key",
            Self::Users | Self::User(_) => "administer users",
            Self::KeysOf(_) | Self::Keys | Self::Key(_) => "administer users",
            Self::Revoke(_) | Self::Rotate(_) | Self::KeysOfAll => "administer users",
            Self::ImportKeys | Self::ImportUsers => "administer users",
            Self::Audit | Self::VerifyAudit => "view audit log",
            Self::Roles | Self::Role(_) => "administer permissions",
            Self::Applications | Self::Application(_) => "administer site configuration",
            Self::Backup | Self::State => "administer site configuration",
            Self::Scripts | Self::ReloadScripts => "administer site configuration",
            Self::Explain => "administer site configuration",
            Self::Resources | Self::Resource(_) => "administer rest resources",
        }
    }
}

/// One way to write a number: no sign, no zeros in front.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

/// A segment without its escapes; none: what it holds is no text.
fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn nothing_here(request: &Parts) -> Denial {
    // The path may hold anything, so it is not repeated.
    let said = match request.uri.path().starts_with("/api/v1/") {
        true => "There is nothing at this path of the API.",
        false => "There is nothing at this path. The API begins at /api/v1/.",
    };
    Denial::message(Phase::Edge, StatusCode::NOT_FOUND, "NOT_FOUND", said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, path: &str) -> Result<Route, (u16, Option<String>)> {
        let request = ::http::Request::builder().method(method).uri(path).body(()).unwrap();
        Route::of(&request.into_parts().0)
            .map_err(|denial| (denial.status.as_u16(), denial.allow.clone()))
    }

    #[test]
    fn a_path_leads_to_one_place() {
        assert_eq!(of("GET", "/api/v1/users"), Ok(Route::Users));
        assert_eq!(of("HEAD", "/api/v1/users/7?x=y"), Ok(Route::User(7)));
        assert_eq!(of("POST", "/api/v1/users/7/keys"), Ok(Route::KeysOf(7)));
        let id = KeyId::parse("0000aZ19").unwrap();
        assert_eq!(of("POST", "/api/v1/keys/0000aZ19/revoke"), Ok(Route::Revoke(id)));
        assert_eq!(of("GET", "/api/v1/scripts"), Ok(Route::Scripts));
        assert_eq!(of("POST", "/api/v1/scripts/reload"), Ok(Route::ReloadScripts));
        assert_eq!(of("POST", "/api/v1/explain"), Ok(Route::Explain));
        assert_eq!(of("PATCH", "/api/v1/roles/a%2Fb"), Ok(Route::Role("a/b".into())));
    }

    #[test]
    fn everything_else_leads_nowhere() {
        for path in [
            "/",
            "/api/v1",
            "/api/v1/",
            "/api/v2/users",
            "/api/v1/users/",
            "/api/v1//users",
            "/api/v1/users/07",
            "/api/v1/users/+7",
            "/api/v1/users/x",
            "/api/v1/users/7/keys/",
            "/api/v1/roles/%zz",
            "/api/v1/roles/%+1",
            "/api/v1/roles/%ff",
            "/api/v1/keys/kw_0000aZ19",
            "/API/v1/users",
            "/x/../api/v1/users",
        ] {
            assert_eq!(of("GET", path), Err((404, None)), "{path}");
        }
    }

    #[test]
    fn a_place_has_its_methods_and_no_others() {
        assert_eq!(of("PUT", "/api/v1/users"), Err((405, Some("GET, POST, HEAD".into()))));
        assert_eq!(of("GET", "/api/v1/keys/0000aZ19/revoke"), Err((405, Some("POST".into()))));
        assert_eq!(
            of("DELETE", "/api/v1/keys/0000aZ19"),
            Err((405, Some("GET, PATCH, HEAD".into())))
        );
    }
}
