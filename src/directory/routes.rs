//! The routes of all resources: finds the resource of a request by host, path and method.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::CompiledCors;
use crate::{
    limits::Bounds,
    model::{Format, MethodRules, Resource, Violation},
};

/// The routes of all resources.
#[derive(Default)]
pub struct Routes {
    resources: HashMap<String, Arc<Resource>>,
    /// Routes of resources with a host, by host.
    hosts: HashMap<String, matchit::Router<PathRules>>,
    /// Routes of resources without a host.
    any_host: matchit::Router<PathRules>,
}

/// The rules of one path, by method.
type PathRules = Vec<(&'static str, Arc<Rule>)>;

/// The access rule of one method of a resource at one path.
#[derive(Debug)]
pub struct Rule {
    /// The resource.
    pub resource: Arc<Resource>,
    /// The path pattern.
    pub path: String,
    /// The formats that the method accepts and returns.
    pub formats: Vec<Format>,
    /// The applications that a request may use, and whether a request may be anonymous.
    pub access: RuleAccess,
    /// The required permissions: a request needs all of them.
    pub permissions: Vec<String>,
    /// The limits that all clients of the resource share. `None` means no limits.
    pub bounds: Option<Arc<Bounds>>,
    /// The pages of other origins that may use the resource. `None` means no pages.
    pub cors: Option<Arc<CompiledCors>>,
}

/// The requests that a rule allows.
#[derive(Debug, Default)]
pub struct RuleAccess {
    /// Whether anonymous requests are allowed.
    pub anonymous: bool,
    /// Whether every application is allowed.
    pub all_applications: bool,
    /// The ids of the allowed applications.
    pub applications: Vec<String>,
}

impl RuleAccess {
    /// Whether an application is allowed.
    pub fn allows_application(&self, id: &str) -> bool {
        self.all_applications || self.applications.iter().any(|allowed| allowed == id)
    }
}

/// The rules of the path that a request matches.
pub struct RouteMatch<'r, 'p> {
    rules: &'r PathRules,
    /// The values of the pattern's parameters.
    pub params: matchit::Params<'r, 'p>,
}

impl<'r> RouteMatch<'r, '_> {
    /// The rule of a method. `HEAD` has the rule of `GET`. `None` means that the path does not
    /// accept the method.
    pub fn rule(&self, method: &str) -> Option<&'r Rule> {
        let method = if method == "HEAD" { "GET" } else { method };
        self.rules.iter().find(|(name, _)| *name == method).map(|(_, rule)| &**rule)
    }

    /// The rules of all methods.
    pub fn rules(&self) -> impl Iterator<Item = &'r Rule> {
        self.rules.iter().map(|(_, rule)| &**rule)
    }

    /// The methods of a resource at this path.
    pub fn methods_of(&self, resource: &str) -> impl Iterator<Item = &'static str> {
        let of_resource = self.rules.iter().filter(move |(_, rule)| rule.resource.id == resource);
        of_resource.map(|(method, _)| *method)
    }

    /// The value of the `Allow` header field (RFC 9110, section 10.2.1).
    pub fn allow_header(&self) -> String {
        let mut methods: Vec<&str> = self.rules.iter().map(|(method, _)| *method).collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.join(", ")
    }
}

impl Routes {
    /// Builds the routes. Also returns the conflicts: if another resource already uses a method and
    /// path, the resource gets no route for them.
    pub fn new(resources: impl IntoIterator<Item = Resource>) -> (Self, Vec<Violation>) {
        Self::with_bounds(resources, |_| None)
    }

    /// Builds the routes; see [`Routes::new`]. `bounds` returns the limits of the resource with an
    /// id.
    pub(in crate::directory) fn with_bounds(
        resources: impl IntoIterator<Item = Resource>,
        bounds: impl Fn(&str) -> Option<Arc<Bounds>>,
    ) -> (Self, Vec<Violation>) {
        // Sorted, so that the result of a conflict does not depend on the order of the resources.
        let sorted: BTreeMap<String, Arc<Resource>> = resources
            .into_iter()
            .map(|resource| (resource.id.clone(), Arc::new(resource)))
            .collect();
        let mut routes = Self::default();
        let mut problems = Vec::new();
        let mut paths: BTreeMap<(Option<String>, String), PathRules> = BTreeMap::new();
        for resource in sorted.values() {
            let bounds = bounds(&resource.id);
            let cors = resource.cors.clone().map(|record| Arc::new(CompiledCors::new(record)));
            for route in resource.routes() {
                let path_rules =
                    paths.entry((resource.host.clone(), route.path.clone())).or_default();
                for (method, rules) in route.methods {
                    match path_rules.iter().find(|(used, _)| *used == method) {
                        Some((_, rule)) => problems.push(route_conflict(
                            resource,
                            &format!("{method} {}", route.path),
                            &rule.resource.id,
                        )),
                        None => path_rules.push((
                            method,
                            compile_rule(
                                resource,
                                &route.path,
                                rules,
                                (bounds.clone(), cors.clone()),
                            ),
                        )),
                    }
                }
            }
        }
        for ((host, path), rules) in paths.into_iter().filter(|(_, rules)| !rules.is_empty()) {
            let resource = rules[0].1.resource.clone();
            let router = match host {
                Some(host) => routes.hosts.entry(host).or_default(),
                None => &mut routes.any_host,
            };
            if let Err(problem) = router.insert(path.clone(), rules) {
                let other = match problem {
                    matchit::InsertError::Conflict { with } => with.to_string(),
                    other => other.to_string(),
                };
                problems.push(route_conflict(&resource, &path, &other));
            }
        }
        routes.resources = sorted.into_iter().collect();
        (routes, problems)
    }

    /// Finds the rules of a normalised path at a host (in lower case, without port). A resource
    /// with this host has precedence over resources without a host.
    pub fn find<'r, 'p>(&'r self, host: &str, path: &'p str) -> Option<RouteMatch<'r, 'p>> {
        let of_host = if self.hosts.is_empty() {
            None
        } else {
            self.hosts.get(host).and_then(|router| router.at(path).ok())
        };
        let found = of_host.or_else(|| self.any_host.at(path).ok())?;
        Some(RouteMatch { rules: found.value, params: found.params })
    }

    /// All resources, in undefined order.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }
}

fn route_conflict(resource: &Resource, route: &str, other: &str) -> Violation {
    Violation::new(
        "path",
        format!("The resource {} cannot have {route}: {other} already uses it.", resource.id),
        "Choose another path, host or method, or disable the other resource.",
    )
}

fn compile_rule(
    resource: &Arc<Resource>,
    path: &str,
    rules: MethodRules,
    (bounds, cors): (Option<Arc<Bounds>>, Option<Arc<CompiledCors>>),
) -> Arc<Rule> {
    let mut access = RuleAccess::default();
    for name in rules.authentication {
        match name.as_str() {
            "*" => access.all_applications = true,
            "anonymous" => access.anonymous = true,
            _ => access.applications.push(name),
        }
    }
    Arc::new(Rule {
        resource: resource.clone(),
        path: path.to_owned(),
        formats: rules.formats.iter().filter_map(|name| Format::parse(name)).collect(),
        access,
        permissions: rules.permissions.into_iter().collect(),
        bounds,
        cors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Handler, Rules};

    fn respond(id: &str, path: &str, methods: &[&str]) -> Resource {
        let set = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        Resource {
            id: id.into(),
            enabled: true,
            handler: Handler::Respond,
            path: Some(path.into()),
            host: None,
            rules: Rules::Resource {
                methods: set(methods),
                formats: set(&["any"]),
                authentication: set(&["*"]),
                permissions: BTreeMap::new(),
            },
            applications: Vec::new(),
            permission: crate::model::PermissionSource::Records,
            buffer_body: false,
            body: crate::model::BodyRules::default(),
            respond: None,
            proxy: None,
            rate_limit: None,
            cors: None,
        }
    }

    /// The id of the resource that serves a request.
    fn resource_at<'a>(
        routes: &'a Routes,
        host: &str,
        path: &str,
        method: &str,
    ) -> Option<&'a str> {
        let found = routes.find(host, path)?;
        Some(&found.rule(method)?.resource.id)
    }

    #[test]
    fn resources_can_share_a_path_but_not_a_method() {
        let (routes, problems) =
            Routes::new([respond("a", "/x", &["GET"]), respond("b", "/x", &["POST", "GET"])]);
        assert_eq!(resource_at(&routes, "", "/x", "HEAD"), Some("a"));
        assert_eq!(resource_at(&routes, "", "/x", "POST"), Some("b"));
        assert_eq!(resource_at(&routes, "", "/x", "DELETE"), None);
        assert_eq!(routes.find("", "/x").unwrap().allow_header(), "GET, POST, HEAD");
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].message, "The resource b cannot have GET /x: a already uses it.");
    }

    #[test]
    fn resource_with_a_host_has_precedence() {
        let mut with_host = respond("with-host", "/x", &["GET"]);
        with_host.host = Some("api.example".into());
        let (routes, problems) = Routes::new([respond("any", "/x", &["GET"]), with_host]);
        assert_eq!(problems, []);
        assert_eq!(resource_at(&routes, "api.example", "/x", "GET"), Some("with-host"));
        assert_eq!(resource_at(&routes, "other.example", "/x", "GET"), Some("any"));
    }

    #[test]
    fn patterns_that_match_the_same_paths_conflict() {
        let (_, problems) =
            Routes::new([respond("a", "/x/{one}", &["GET"]), respond("b", "/x/{two}", &["POST"])]);
        assert_eq!(problems.len(), 1);
    }
}
