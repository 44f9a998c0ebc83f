//! Resources: paths with their methods, formats and required permissions.

mod applications;
mod body;
mod cors;
mod forwarded;
mod handler;
mod proxy;
mod respond;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::{
    body::{BodyLimit, BodyRules},
    cors::{Cors, OriginPattern, PreflightMode, WebOrigin},
    forwarded::ForwardedField,
    handler::Handler,
    proxy::{Protocol, Proxy, Target, Transport},
    respond::Respond,
};
use super::{RateLimit, Violation, check_id};

/// The methods that a resource can list.
pub const METHODS: &[&str] = &["GET", "POST", "PATCH", "PUT", "DELETE"];

/// A resource's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// The id, in the format that [`check_id`] checks.
    pub id: String,
    /// Whether the resource is enabled. A disabled resource has no routes.
    pub enabled: bool,
    /// The handler, which responds to allowed requests.
    pub handler: Handler,
    /// The path pattern (`/orders/{id}`, `/files/{*rest}`). `None` means that the handler has fixed
    /// paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The host of the requests. `None` means any host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The rules for the methods.
    #[serde(flatten)]
    pub rules: Rules,
    /// The applications among which a request without `AUTH-METHOD` chooses by the credential that
    /// it carries, in order. An empty list means the default application.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<String>,
    /// The source of the permission decision.
    #[serde(default, skip_serializing_if = "is_default")]
    pub permission: PermissionSource,
    /// Whether the body is read before the decision, so that scripts can see it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub buffer_body: bool,
    /// The limits of the request bodies.
    #[serde(flatten)]
    pub body: BodyRules,
    /// The response of the `respond` handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<Respond>,
    /// The settings of the `proxy` handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// The rate limit of all clients of the resource together. `None` means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// The pages of other origins that may use the resource. `None` means that browsers let no page
    /// of another origin use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// The source of the permission decision. This decision follows the check whether the resource
/// accepts the application of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PermissionSource {
    /// The permissions in the resource's rules and in the user's roles decide. A script can only
    /// deny a request that these permissions allow.
    #[default]
    Records,
    /// The function `on_permit` of a script decides: it must return true. The permissions in the
    /// rules are ignored.
    Script,
}

/// The rules of a resource: one set for the whole resource, or one set for each method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "granularity", rename_all = "snake_case")]
pub enum Rules {
    /// One set of formats and applications for all methods.
    Resource {
        /// The methods.
        methods: BTreeSet<String>,
        /// The formats.
        formats: BTreeSet<String>,
        /// Application ids, `*` for every application, and `anonymous`.
        authentication: BTreeSet<String>,
        /// For each method, its required permissions: a request needs all of them.
        #[serde(default)]
        permissions: BTreeMap<String, BTreeSet<String>>,
    },
    /// Separate rules for each method.
    Method {
        /// The rules of each method.
        methods: BTreeMap<String, MethodRules>,
    },
}

/// The rules of one method.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodRules {
    /// The formats.
    #[serde(default)]
    pub formats: BTreeSet<String>,
    /// Application ids, `*` for every application, and `anonymous`.
    #[serde(default)]
    pub authentication: BTreeSet<String>,
    /// The required permissions: a request needs all of them.
    #[serde(default)]
    pub permissions: BTreeSet<String>,
}

/// A path of a resource, with the methods that the resource accepts at this path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The pattern.
    pub path: String,
    /// Each method with its rules, in the order of [`METHODS`].
    pub methods: Vec<(&'static str, MethodRules)>,
}

/// A media type that a method accepts and returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Any format: neither the content type nor `_format` is checked.
    Any,
    /// `application/json`
    Json,
    /// `application/xml`
    Xml,
    /// `text/plain`
    Text,
    /// `text/html`
    Html,
    /// `application/x-www-form-urlencoded`
    Form,
}

impl Format {
    /// All formats.
    pub const ALL: &[Self] =
        &[Self::Any, Self::Json, Self::Xml, Self::Text, Self::Html, Self::Form];

    /// The name in records and in the query parameter `_format`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Json => "json",
            Self::Xml => "xml",
            Self::Text => "text",
            Self::Html => "html",
            Self::Form => "form",
        }
    }

    /// The format with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.name() == name)
    }

    /// The media types of a request body in this format.
    pub fn media_types(self) -> &'static [&'static str] {
        match self {
            Self::Any => &["*/*"],
            Self::Json => &["application/json"],
            Self::Xml => &["application/xml", "text/xml"],
            Self::Text => &["text/plain"],
            Self::Html => &["text/html"],
            Self::Form => &["application/x-www-form-urlencoded"],
        }
    }
}

impl Rules {
    /// The rules of one method. `None` means that the resource does not accept the method.
    pub fn of(&self, method: &str) -> Option<MethodRules> {
        match self {
            Self::Resource { methods, formats, authentication, permissions } => {
                methods.contains(method).then(|| MethodRules {
                    formats: formats.clone(),
                    authentication: authentication.clone(),
                    permissions: permissions.get(method).cloned().unwrap_or_default(),
                })
            }
            Self::Method { methods } => methods.get(method).cloned(),
        }
    }
}

impl Resource {
    /// The shipped resource: the user entity, all methods, JSON, for every application.
    pub fn entity_user() -> Self {
        let set = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        Self {
            id: "entity.user".into(),
            enabled: true,
            handler: Handler::EntityUser,
            path: None,
            host: None,
            rules: Rules::Resource {
                methods: set(&["GET", "POST", "PATCH", "DELETE"]),
                formats: set(&["json"]),
                authentication: set(&["*"]),
                permissions: BTreeMap::new(),
            },
            applications: Vec::new(),
            permission: PermissionSource::Records,
            buffer_body: false,
            body: BodyRules::default(),
            respond: None,
            proxy: None,
            rate_limit: None,
            cors: None,
        }
    }

    /// The routes of the resource. A disabled resource has no routes, and neither has a proxy
    /// without an upstream. A method without a format or without an application is left out.
    pub fn routes(&self) -> Vec<Route> {
        if !self.enabled || !self.is_complete() {
            return Vec::new();
        }
        let single_path;
        let paths: &[(&str, &[&str])] = match (self.handler.fixed_paths(), &self.path) {
            (Some(paths), _) => paths,
            (None, Some(path)) => {
                single_path = [(path.as_str(), METHODS)];
                &single_path
            }
            (None, None) => &[],
        };
        paths
            .iter()
            .map(|(path, methods)| Route {
                path: (*path).to_owned(),
                methods: METHODS
                    .iter()
                    .filter(|method| methods.contains(method))
                    .filter_map(|method| Some((*method, self.rules.of(method)?)))
                    .filter(|(_, rules)| {
                        !rules.formats.is_empty() && !rules.authentication.is_empty()
                    })
                    .collect(),
            })
            .filter(|route| !route.methods.is_empty())
            .collect()
    }

    /// Checks the record's fields.
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        found.extend(check_id("id", &self.id).err());
        self.check_path(&mut found);
        self.check_host(&mut found);
        self.check_rules(&mut found);
        self.check_applications(&mut found);
        self.check_respond(&mut found);
        self.check_proxy(&mut found);
        self.check_body(&mut found);
        self.check_cors(&mut found);
        found
    }

    fn check_path(&self, found: &mut Vec<Violation>) {
        match (self.handler.fixed_paths(), &self.path) {
            (Some(_), Some(_)) => found.push(Violation::new(
                "path",
                format!("The handler {} has fixed paths.", self.handler.name()),
                "Leave path out.",
            )),
            (None, None) => found.push(Violation::new(
                "path",
                format!("The handler {} needs a path.", self.handler.name()),
                "Give a pattern such as /orders/{id} or /files/{*rest}.",
            )),
            (None, Some(path)) => {
                if let Err(problem) = check_pattern(path) {
                    found.push(Violation::new(
                        "path",
                        format!("{path:?} cannot be a path: {problem}."),
                        "Give a pattern such as /orders/{id} or /files/{*rest}.",
                    ));
                }
            }
            (Some(_), None) => {}
        }
    }

    fn check_host(&self, found: &mut Vec<Violation>) {
        let Some(host) = &self.host else { return };
        let is_allowed =
            |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'[' | b']' | b':');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(is_allowed) {
            found.push(Violation::new(
                "host",
                format!("{host:?} cannot be a host."),
                "Give a host name in lower case, without scheme and port.",
            ));
        }
    }

    fn check_rules(&self, found: &mut Vec<Violation>) {
        match &self.rules {
            Rules::Resource { methods, formats, authentication, permissions } => {
                if methods.is_empty() {
                    found.push(no_method());
                }
                self.check_methods(methods.iter(), found);
                self.check_methods(permissions.keys(), found);
                check_method_rules("", formats, authentication, &self.handler, found);
            }
            Rules::Method { methods } => {
                if methods.is_empty() {
                    found.push(no_method());
                }
                self.check_methods(methods.keys(), found);
                for (method, rules) in methods {
                    let location = format!("methods.{method}.");
                    check_method_rules(
                        &location,
                        &rules.formats,
                        &rules.authentication,
                        &self.handler,
                        found,
                    );
                }
            }
        }
    }

    fn check_methods<'a>(
        &self,
        methods: impl Iterator<Item = &'a String>,
        found: &mut Vec<Violation>,
    ) {
        let allowed: Vec<&str> = match self.handler.fixed_paths() {
            Some(paths) => paths.iter().flat_map(|(_, m)| m.iter().copied()).collect(),
            None => METHODS.to_vec(),
        };
        for method in methods.filter(|method| !allowed.contains(&method.as_str())) {
            found.push(Violation::new(
                "methods",
                format!("{method:?} is not a method of the handler {}.", self.handler.name()),
                format!("Use {}.", allowed.join(", ")),
            ));
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn no_method() -> Violation {
    Violation::new(
        "methods",
        "At least one HTTP method must be selected.",
        "Name the methods that the resource accepts.",
    )
}

/// Checks the rules of one method, or of all methods. `location` is the prefix of the fields'
/// paths.
fn check_method_rules(
    location: &str,
    formats: &BTreeSet<String>,
    authentication: &BTreeSet<String>,
    handler: &Handler,
    found: &mut Vec<Violation>,
) {
    if formats.is_empty() {
        found.push(Violation::new(
            format!("{location}formats"),
            "At least one request format must be selected.",
            "Name the formats, for example json.",
        ));
    }
    for format in formats {
        let known = match handler {
            Handler::EntityUser => format == Format::Json.name(),
            _ => Format::parse(format).is_some(),
        };
        if !known {
            let fix = match handler {
                Handler::EntityUser => "Use json.".to_owned(),
                _ => format!(
                    "Use {}.",
                    Format::ALL.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ")
                ),
            };
            found.push(Violation::new(
                format!("{location}formats"),
                format!("{format:?} is not a format of the handler {}.", handler.name()),
                fix,
            ));
        }
    }
    if authentication.is_empty() {
        found.push(Violation::new(
            format!("{location}authentication"),
            "At least one authentication provider must be selected.",
            "Name application ids, * for every application, or anonymous.",
        ));
    }
}

/// Checks a pattern: a normalised path whose segments are text, `{name}` or, at the end, `{*name}`.
/// The error is the reason, as the second half of a sentence.
fn check_pattern(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("it does not begin with /".into());
    }
    if path.len() > 1024 {
        return Err("it is longer than 1,024 bytes".into());
    }
    if path == "/-" || path.starts_with("/-/") {
        return Err("paths that begin with /-/ are reserved for Keyward".into());
    }
    let plain = path.replace(['{', '}', '*'], "");
    if let Some(bad) = plain.chars().find(|c| !(c.is_ascii_graphic()) || ";%?#\\".contains(*c)) {
        return Err(format!("it contains the character {bad:?}"));
    }
    let segments: Vec<&str> = path[1..].split('/').collect();
    let last = segments.len() - 1;
    for (index, segment) in segments.iter().enumerate() {
        if matches!(*segment, "." | "..") || (segment.is_empty() && index != last) {
            return Err("it has an empty segment, or a segment . or ..".into());
        }
        if segment.starts_with("{*") && index != last {
            return Err("only its last segment can be {*…}".into());
        }
    }
    matchit::Router::new().insert(path, ()).map_err(|problem| problem.to_string())
}
