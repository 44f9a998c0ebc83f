//! The routes of the API: one table with the method, path, permission and handler of each route.

use std::{borrow::Cow, pin::Pin};

use ::http::{Method, StatusCode, request::Parts};

use super::{
    ApiRequest, apply, audit, backup, bulk, explain, import_users, keys, me, records, scripts,
    users,
};
use crate::{
    handlers::PayloadResponse,
    model::{Application, KeyId, Resource, Role},
    pipeline::{Denial, Phase},
};

const PREFIX: &str = "/api/v1/";

const OWN_KEYS: &str = "generate own api key";
const USERS: &str = "administer users";
const AUDIT: &str = "view audit log";
const PERMISSIONS: &str = "administer permissions";
const SITE: &str = "administer site configuration";
const RESOURCES: &str = "administer rest resources";

/// The future of a handler.
type ResponseFuture<'a> =
    Pin<Box<dyn Future<Output = Result<PayloadResponse, Denial>> + Send + 'a>>;

/// A handler that already has the parameter of the request's path.
type BoundHandler = Box<dyn for<'a> FnOnce(ApiRequest<'a>) -> ResponseFuture<'a> + Send>;

/// A row of the table of routes.
pub(super) struct ApiRoute {
    method: Method,
    /// The path below `/api/v1/`. At most one segment is in braces. This segment is the parameter.
    pattern: &'static str,
    /// The permission that the request needs.
    pub permission: &'static str,
    handler: RouteHandler,
}

/// A handler. The variants differ in the type of the path's parameter.
#[derive(Clone, Copy)]
enum RouteHandler {
    /// No parameter.
    Plain(for<'a> fn(ApiRequest<'a>) -> ResponseFuture<'a>),
    /// The uid of a user.
    User(for<'a> fn(u64, ApiRequest<'a>) -> ResponseFuture<'a>),
    /// The id of a key.
    Key(for<'a> fn(KeyId, ApiRequest<'a>) -> ResponseFuture<'a>),
    /// The id of a role, an application or a resource.
    Record(for<'a> fn(String, ApiRequest<'a>) -> ResponseFuture<'a>),
}

/// The route of a request, and its handler with the parameter of the request's path.
pub(super) struct MatchedRoute {
    pub route: &'static ApiRoute,
    pub handler: BoundHandler,
    #[cfg(test)]
    parameter: String,
}

macro_rules! handler {
    (Plain $respond:path) => {
        RouteHandler::Plain(|request| Box::pin($respond(request)))
    };
    ($parameter:ident $respond:path) => {
        RouteHandler::$parameter(|id, request| Box::pin($respond(id, request)))
    };
}

macro_rules! routes {
    ($($method:ident $pattern:literal $permission:ident $parameter:ident => $respond:path;)*) => {
        static ROUTES: &[ApiRoute] = &[$(ApiRoute {
            method: Method::$method,
            pattern: $pattern,
            permission: $permission,
            handler: handler!($parameter $respond),
        },)*];
    };
}

// Rows with the same path are in the order in which the `Allow` header field lists their methods.
routes! {
    GET    "me"                    OWN_KEYS    Plain  => me::show;
    GET    "me/keys"               OWN_KEYS    Plain  => me::list_keys;
    POST   "me/keys"               OWN_KEYS    Plain  => me::generate_key;
    PATCH  "me/keys/{id}"          OWN_KEYS    Key    => me::change_key;
    DELETE "me/keys/{id}"          OWN_KEYS    Key    => me::delete_key;
    POST   "me/keys/{id}/revoke"   OWN_KEYS    Key    => me::revoke_key;
    POST   "me/keys/{id}/rotate"   OWN_KEYS    Key    => me::rotate_key;

    GET    "users"                 USERS       Plain  => users::list;
    POST   "users"                 USERS       Plain  => users::create;
    POST   "users/import"          USERS       Plain  => import_users::import;
    POST   "users/bulk"            USERS       Plain  => bulk::users;
    GET    "users/{uid}"           USERS       User   => users::show;
    PATCH  "users/{uid}"           USERS       User   => users::change;
    DELETE "users/{uid}"           USERS       User   => users::delete;
    GET    "users/{uid}/keys"      USERS       User   => keys::list_of_user;
    POST   "users/{uid}/keys"      USERS       User   => keys::generate_for_user;

    GET    "keys"                  USERS       Plain  => keys::list;
    POST   "keys/import"           USERS       Plain  => keys::import::import;
    POST   "keys/bulk"             USERS       Plain  => bulk::keys;
    POST   "keys/generate-all"     USERS       Plain  => keys::bulk::generate;
    POST   "keys/find"             USERS       Plain  => keys::find::find;
    POST   "keys/purge"            USERS       Plain  => keys::remove::purge;
    GET    "keys/{id}"             USERS       Key    => keys::show;
    PATCH  "keys/{id}"             USERS       Key    => keys::edit::change;
    DELETE "keys/{id}"             USERS       Key    => keys::remove::delete;
    POST   "keys/{id}/revoke"      USERS       Key    => keys::revoke;
    POST   "keys/{id}/rotate"      USERS       Key    => keys::rotate;

    GET    "roles"                 PERMISSIONS Plain  => records::list::<Role>;
    POST   "roles"                 PERMISSIONS Plain  => records::create::<Role>;
    GET    "roles/{id}"            PERMISSIONS Record => records::show::<Role>;
    PATCH  "roles/{id}"            PERMISSIONS Record => records::change::<Role>;
    DELETE "roles/{id}"            PERMISSIONS Record => records::delete::<Role>;

    GET    "applications"          SITE        Plain  => records::list::<Application>;
    POST   "applications"          SITE        Plain  => records::create::<Application>;
    GET    "applications/{id}"     SITE        Record => records::show::<Application>;
    PATCH  "applications/{id}"     SITE        Record => records::change::<Application>;
    DELETE "applications/{id}"     SITE        Record => records::delete::<Application>;

    GET    "resources"             RESOURCES   Plain  => records::list::<Resource>;
    POST   "resources"             RESOURCES   Plain  => records::create::<Resource>;
    GET    "resources/{id}"        RESOURCES   Record => records::show::<Resource>;
    PATCH  "resources/{id}"        RESOURCES   Record => records::change::<Resource>;
    DELETE "resources/{id}"        RESOURCES   Record => records::delete::<Resource>;

    GET    "audit"                 AUDIT       Plain  => audit::list;
    GET    "audit/verify"          AUDIT       Plain  => audit::verify;
    GET    "state"                 SITE        Plain  => apply::export;
    POST   "state"                 SITE        Plain  => apply::apply;
    POST   "backup"                SITE        Plain  => backup::write;
    GET    "scripts"               SITE        Plain  => scripts::show;
    POST   "scripts/reload"        SITE        Plain  => scripts::reload;
    POST   "explain"               SITE        Plain  => explain::explain;
}

/// Finds the route of a request. A HEAD request has the same route as a GET request.
///
/// # Errors
/// No route has the path (404), or no route with this path has the method (405). Only authorized
/// clients may see these denials.
pub(super) fn find(head: &Parts) -> Result<MatchedRoute, Denial> {
    let segments = path_segments(head.uri.path()).unwrap_or_default();
    let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
    let mut allow: Vec<&str> = Vec::new();
    for route in ROUTES {
        let Some(parameter) = route.match_path(&segments) else { continue };
        // A route does not match if the segment cannot be an id. So `users/{uid}` does not match
        // `users/import`.
        let Some(handler) = route.handler.bind(parameter) else { continue };
        if route.method == *method {
            return Ok(MatchedRoute {
                route,
                handler,
                #[cfg(test)]
                parameter: parameter.to_owned(),
            });
        }
        allow.push(route.method.as_str());
    }
    if allow.is_empty() {
        return Err(not_found(head));
    }
    if allow.contains(&"GET") {
        allow.push("HEAD");
    }
    let allow = allow.join(", ");
    let message = format!("{} is not allowed here. Allowed methods: {allow}.", head.method);
    let code = "METHOD_NOT_ALLOWED";
    Err(Denial::message(Phase::Edge, StatusCode::METHOD_NOT_ALLOWED, code, message)
        .with_allow(allow))
}

impl ApiRoute {
    /// The parameter of a path, or `""` if this route's pattern has no parameter. `None` means that
    /// the path does not match the pattern.
    fn match_path<'s>(&self, segments: &'s [Cow<'_, str>]) -> Option<&'s str> {
        let mut parameter = "";
        let mut remaining = segments.iter();
        for expected in self.pattern.split('/') {
            let segment = remaining.next()?;
            if expected.starts_with('{') {
                parameter = segment;
            } else if segment != expected {
                return None;
            }
        }
        remaining.next().is_none().then_some(parameter)
    }
}

impl RouteHandler {
    /// Gives the handler the path's parameter. `None` means that the parameter is not an id of the
    /// kind that the handler needs.
    fn bind(self, parameter: &str) -> Option<BoundHandler> {
        let handler: BoundHandler = match self {
            Self::Plain(respond) => Box::new(respond),
            Self::User(respond) => {
                let uid = parse_uid(parameter)?;
                Box::new(move |request| respond(uid, request))
            }
            Self::Key(respond) => {
                let id = KeyId::parse(parameter)?;
                Box::new(move |request| respond(id, request))
            }
            Self::Record(respond) => {
                let id = parameter.to_owned();
                Box::new(move |request| respond(id, request))
            }
        };
        Some(handler)
    }
}

/// Parses a uid. Signs and leading zeros are not accepted, so that each user has exactly one path.
fn parse_uid(text: &str) -> Option<u64> {
    text.parse().ok().filter(|uid: &u64| uid.to_string() == text)
}

/// The decoded segments of a path below `/api/v1/`.
fn path_segments(path: &str) -> Option<Vec<Cow<'_, str>>> {
    path.strip_prefix(PREFIX)?.split('/').map(decode_segment).collect()
}

/// Decodes the percent-encoding of a path segment. `None` means that the result is not UTF-8, or
/// that an escape is malformed.
fn decode_segment(segment: &str) -> Option<Cow<'_, str>> {
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

fn not_found(head: &Parts) -> Denial {
    // The message does not repeat the path, because the path may contain any text.
    let message = if head.uri.path().starts_with(PREFIX) {
        "The API has no such path."
    } else {
        "There is no such path. The API begins at /api/v1/."
    };
    Denial::message(Phase::Edge, StatusCode::NOT_FOUND, "NOT_FOUND", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The method and the pattern of a route, and the parameter of the path.
    type RouteAndParameter = (&'static str, &'static str, String);

    fn find(method: &str, path: &str) -> Result<RouteAndParameter, (u16, Option<String>)> {
        let request = ::http::Request::builder().method(method).uri(path).body(()).unwrap();
        match super::find(&request.into_parts().0) {
            Ok(MatchedRoute { route, parameter, .. }) => {
                Ok((route.method.as_str(), route.pattern, parameter))
            }
            Err(denial) => Err((denial.status.as_u16(), denial.allow.clone())),
        }
    }

    #[test]
    fn route_and_parameter_of_each_path_are_found() {
        for (method, path, expected) in [
            ("GET", "/api/v1/users", ("GET", "users", "")),
            ("HEAD", "/api/v1/users/7?x=y", ("GET", "users/{uid}", "7")),
            ("POST", "/api/v1/users/import", ("POST", "users/import", "")),
            ("POST", "/api/v1/users/7/keys", ("POST", "users/{uid}/keys", "7")),
            ("POST", "/api/v1/keys/0000aZ19/revoke", ("POST", "keys/{id}/revoke", "0000aZ19")),
            ("GET", "/api/v1/scripts", ("GET", "scripts", "")),
            ("POST", "/api/v1/scripts/reload", ("POST", "scripts/reload", "")),
            ("POST", "/api/v1/explain", ("POST", "explain", "")),
            ("PATCH", "/api/v1/roles/a%2Fb", ("PATCH", "roles/{id}", "a/b")),
        ] {
            let (route_method, pattern, parameter) = expected;
            let expected = Ok((route_method, pattern, parameter.to_owned()));
            assert_eq!(find(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn unknown_paths_are_not_found() {
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
            assert_eq!(find("GET", path), Err((404, None)), "{path}");
        }
    }

    #[test]
    fn other_methods_are_not_allowed() {
        assert_eq!(find("PUT", "/api/v1/users"), Err((405, Some("GET, POST, HEAD".into()))));
        assert_eq!(find("GET", "/api/v1/keys/0000aZ19/revoke"), Err((405, Some("POST".into()))));
        assert_eq!(
            find("PUT", "/api/v1/keys/0000aZ19"),
            Err((405, Some("GET, PATCH, DELETE, HEAD".into())))
        );
    }
}
