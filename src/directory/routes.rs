//! The routes of all resources: finds the resource of a request by host, path and method.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::CompiledCors;
use crate::{
    limits::Bounds,
    model::{
        ANY_METHOD, Format, Handler, METHODS, MethodRules, Resource, Violation, is_refused_method,
        sort_methods,
    },
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
type PathRules = Vec<(String, Arc<Rule>)>;

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
    /// The rule of a method. `HEAD` has the rule of `GET`, unless it has a rule of its own. `None`
    /// means that the path does not accept the method.
    pub fn rule(&self, method: &str) -> Option<&'r Rule> {
        let own = self.listed(method);
        let own = own.or_else(|| if method == "HEAD" { self.listed("GET") } else { None });
        // A method that differs from a listed one by case only does not get the rule for any
        // method, because a server behind this server may read it as the listed method.
        let is_any = || !is_refused_method(method) && self.other_case(method).is_none();
        own.or_else(|| self.listed(ANY_METHOD).filter(|_| is_any()))
    }

    /// The rules of all methods.
    pub fn rules(&self) -> impl Iterator<Item = &'r Rule> {
        self.rules.iter().map(|(_, rule)| &**rule)
    }

    /// The methods of a resource at this path.
    pub fn methods_of(&self, resource: &str) -> impl Iterator<Item = &'r str> {
        let of_resource = self.rules.iter().filter(move |(_, rule)| rule.resource.id == resource);
        of_resource.map(|(method, _)| method.as_str())
    }

    fn listed(&self, method: &str) -> Option<&'r Rule> {
        self.rules.iter().find(|(name, _)| name == method).map(|(_, rule)| &**rule)
    }

    /// The listed method that differs from this one by case only.
    pub fn other_case(&self, method: &str) -> Option<&'r str> {
        let mut names = self.rules.iter().map(|(name, _)| name.as_str());
        names.find(|name| *name != method && name.eq_ignore_ascii_case(method))
    }

    /// The value of the `Allow` header field (RFC 9110, section 10.2.1). If the path accepts any
    /// method, the field lists the usual methods.
    pub fn allow_header(&self) -> String {
        let mut methods: Vec<&str> = self.rules.iter().map(|(method, _)| method.as_str()).collect();
        if methods.contains(&ANY_METHOD) {
            methods.retain(|method| *method != ANY_METHOD);
            methods.extend(METHODS);
            methods.push("OPTIONS");
            sort_methods(&mut methods);
            methods.dedup();
        }
        if methods.contains(&"GET") && !methods.contains(&"HEAD") {
            methods.push("HEAD");
        }
        methods.join(", ")
    }
}

#[cfg(test)]
thread_local! {
    /// The number of resources that this thread has compiled into routes.
    pub(crate) static COMPILED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Two resources with one method and path.
pub(crate) struct RouteConflict {
    /// The id of the resource that gets no route for them.
    pub resource: String,
    /// The id of the other resource. `None` means that it is not known.
    pub other: Option<String>,
    /// The conflict as a violation of the first resource.
    pub violation: Violation,
}

impl Routes {
    /// Builds the routes. Also returns the conflicts: if another resource already uses a method and
    /// path, the resource gets no route for them.
    pub fn new(resources: impl IntoIterator<Item = Resource>) -> (Self, Vec<Violation>) {
        Self::with_bounds(resources, |_| None)
    }

    /// The conflicts among these resources.
    pub(crate) fn conflicts(resources: impl IntoIterator<Item = Resource>) -> Vec<RouteConflict> {
        Self::build(resources, |_| None).1
    }

    /// Builds the routes; see [`Routes::new`]. `bounds` returns the limits of the resource with an
    /// id.
    pub(in crate::directory) fn with_bounds(
        resources: impl IntoIterator<Item = Resource>,
        bounds: impl Fn(&str) -> Option<Arc<Bounds>>,
    ) -> (Self, Vec<Violation>) {
        let (routes, conflicts) = Self::build(resources, bounds);
        (routes, conflicts.into_iter().map(|conflict| conflict.violation).collect())
    }

    fn build(
        resources: impl IntoIterator<Item = Resource>,
        bounds: impl Fn(&str) -> Option<Arc<Bounds>>,
    ) -> (Self, Vec<RouteConflict>) {
        #[cfg(test)]
        let resources = resources.into_iter().inspect(|_| COMPILED.set(COMPILED.get() + 1));
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
                let host = resource.host.clone().map(Resource::host_of_record);
                let path_rules = paths.entry((host, route.path.clone())).or_default();
                for (method, rules) in route.methods {
                    let mut rule =
                        compile_rule(resource, &route.path, rules, (bounds.clone(), cors.clone()));
                    let Some((_, other)) = path_rules.iter_mut().find(|(used, _)| *used == method)
                    else {
                        path_rules.push((method, rule));
                        continue;
                    };
                    // The stricter rule stays, so that a conflict among stored records opens
                    // nothing.
                    if other.difference_to(&rule).is_some() && rule.difference_to(other).is_none() {
                        std::mem::swap(other, &mut rule);
                    }
                    let (route, id) = (format!("{method} {}", route.path), &other.resource.id);
                    problems.push(RouteConflict {
                        resource: rule.resource.id.clone(),
                        other: Some(id.clone()),
                        violation: route_conflict(&rule.resource, &route, id),
                    });
                }
            }
        }
        paths.retain(|_, rules| !rules.is_empty());
        // A pattern that another resource has for the root is more specific, and has precedence.
        let roots: Vec<_> = paths
            .iter()
            .flat_map(|((host, path), rules)| {
                roots_of(path).map(move |root| ((host.clone(), root.to_owned()), rules.clone()))
            })
            .filter(|(place, _)| !paths.contains_key(place))
            .collect();
        // The id of the resource that has each host and pattern.
        let mut others: HashMap<(Option<String>, String), String> = HashMap::new();
        for ((host, path), rules) in paths.into_iter().chain(roots) {
            let resource = rules[0].1.resource.clone();
            others.insert((host.clone(), path.clone()), resource.id.clone());
            let router = match &host {
                Some(host) => routes.hosts.entry(host.clone()).or_default(),
                None => &mut routes.any_host,
            };
            if let Err(problem) = router.insert(path.clone(), rules) {
                let other = match problem {
                    matchit::InsertError::Conflict { with } => with.to_string(),
                    other => other.to_string(),
                };
                if !matches_same_paths(&other, &path) || resource.path.as_ref() == Some(&path) {
                    problems.push(RouteConflict {
                        resource: resource.id.clone(),
                        violation: route_conflict(&resource, &path, &other),
                        other: others.get(&(host, other)).cloned(),
                    });
                }
            }
        }
        routes.resources = sorted.into_iter().collect();
        (routes, problems)
    }

    /// Finds the rules of a normalised path at a host, which
    /// [`normal_host`](crate::model::normal_host) has brought into its form. A resource
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

    /// Whether the operator has configured no resource: there is at most the shipped user entity.
    pub fn are_unconfigured(&self) -> bool {
        self.resources.values().all(|resource| resource.handler == Handler::EntityUser)
    }

    /// All resources, in undefined order.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }
}

/// The paths that a pattern covers beside those that the router matches: `/a/{*rest}` also covers
/// `/a/` and `/a`, and `/{*rest}` covers `/`. The parameter is empty there.
fn roots_of(pattern: &str) -> impl Iterator<Item = &str> {
    let folder = pattern.rfind("/{*").map(|slash| &pattern[..=slash]);
    let bare = folder.and_then(|folder| folder.strip_suffix('/')).filter(|bare| !bare.is_empty());
    folder.into_iter().chain(bare)
}

/// Whether two patterns differ at most in the names of their parameters.
fn matches_same_paths(one: &str, other: &str) -> bool {
    let without_names = |pattern: &str| {
        let mut is_name = false;
        let keep = |c: &char| {
            is_name = (is_name || *c == '{') && *c != '}';
            !is_name || *c == '{' || *c == '*'
        };
        pattern.chars().filter(keep).collect::<String>()
    };
    without_names(one) == without_names(other)
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
    use crate::model::Rules;

    fn respond(id: &str, path: &str, methods: &[&str]) -> Resource {
        let set = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        Resource {
            id: id.into(),
            handler: Handler::Respond,
            path: Some(path.into()),
            rules: Rules::Resource {
                methods: set(methods),
                formats: set(&["any"]),
                authentication: set(&["*"]),
                permissions: BTreeMap::new(),
            },
            ..Resource::entity_user()
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

    #[test]
    fn prefix_covers_its_root_unless_another_pattern_has_it() {
        let resources = || {
            [
                respond("admin", "/site/admin/{*rest}", &["GET"]),
                respond("all", "/{*rest}", &["GET"]),
                respond("site", "/site/{*rest}", &["GET"]),
            ]
        };
        let (routes, problems) = Routes::new(resources());
        assert_eq!(problems, []);
        for (path, id) in [
            ("/", "all"),
            ("/site", "site"),
            ("/site/", "site"),
            ("/site/x/", "site"),
            ("/site/admin", "admin"),
            ("/site/admin/", "admin"),
            ("/site/admin/x", "admin"),
            ("/site/administrator", "site"),
        ] {
            assert_eq!(resource_at(&routes, "", path, "GET"), Some(id), "{path}");
            let params = routes.find("", path).unwrap().params;
            assert!(params.len() < 2 && params.get("rest") != Some("/"), "{path}");
        }
        let exact = [respond("exact", "/site/admin", &["POST"]), respond("home", "/", &["GET"])];
        let (routes, problems) = Routes::new(resources().into_iter().chain(exact));
        assert_eq!(problems, []);
        assert_eq!(resource_at(&routes, "", "/site/admin", "POST"), Some("exact"));
        assert_eq!(resource_at(&routes, "", "/site/admin", "GET"), None);
        assert_eq!(resource_at(&routes, "", "/site/admin/", "GET"), Some("admin"));
        assert_eq!(resource_at(&routes, "", "/", "GET"), Some("home"));
        let named = [
            respond("tenant", "/t/{tenant}/{*rest}", &["GET"]),
            respond("name", "/t/{name}", &["GET"]),
        ];
        let (routes, problems) = Routes::new(named);
        assert_eq!(problems, []);
        assert_eq!(resource_at(&routes, "", "/t/a", "GET"), Some("name"));
        assert_eq!(resource_at(&routes, "", "/t/a/", "GET"), Some("tenant"));
    }

    #[test]
    fn any_method_is_every_method_that_no_rule_names() {
        let open = respond("open", "/x", &["any"]);
        let (routes, problems) = Routes::new([open, respond("read", "/x", &["GET", "PROPFIND"])]);
        assert_eq!(problems, []);
        for (method, id) in [
            ("GET", Some("read")),
            ("HEAD", Some("read")),
            ("PROPFIND", Some("read")),
            ("POST", Some("open")),
            ("OPTIONS", Some("open")),
            ("PURGE", Some("open")),
            ("propfind", None),
            ("TRACE", None),
            ("CONNECT", None),
        ] {
            assert_eq!(resource_at(&routes, "", "/x", method), id, "{method}");
        }
        let allow = routes.find("", "/x").unwrap().allow_header();
        assert_eq!(allow, "GET, POST, PATCH, PUT, DELETE, OPTIONS, PROPFIND, HEAD");
        let (_, problems) =
            Routes::new([respond("a", "/x", &["any"]), respond("b", "/x", &["any"])]);
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn head_can_have_a_rule_of_its_own() {
        let both = [respond("get", "/x", &["GET"]), respond("head", "/x", &["HEAD"])];
        let (routes, _) = Routes::new(both);
        assert_eq!(resource_at(&routes, "", "/x", "HEAD"), Some("head"));
        assert_eq!(routes.find("", "/x").unwrap().allow_header(), "GET, HEAD");
    }

    #[test]
    fn host_of_a_record_is_normalised() {
        let mut with_host = respond("host", "/x", &["GET"]);
        with_host.host = Some("API.example.".into());
        let (routes, _) = Routes::new([with_host.clone(), respond("any", "/x", &["GET"])]);
        assert_eq!(resource_at(&routes, "api.example", "/x", "GET"), Some("host"));
        // Of two stored records that have become one, the stricter one has the route.
        let mut open = respond("a-open", "/x", &["GET"]);
        open.host = Some("api.example".into());
        let Rules::Resource { authentication, .. } = &mut open.rules else { unreachable!() };
        authentication.insert("anonymous".into());
        for pair in [[open.clone(), with_host.clone()], [with_host, open]] {
            let (routes, problems) = Routes::new(pair);
            assert_eq!(resource_at(&routes, "api.example", "/x", "GET"), Some("host"));
            assert_eq!(problems.len(), 1);
        }
    }
}
