//! The resources as a table of routes: host, then path, then method.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    limits::Bounds,
    model::{Format, MethodRules, Resource, Violation},
};

/// The routes of all resources.
#[derive(Default)]
pub struct Routes {
    resources: HashMap<String, Arc<Resource>>,
    hosts: HashMap<String, matchit::Router<Point>>,
    anywhere: matchit::Router<Point>,
}

/// What lies at one path: each method that some resource has there.
type Point = Vec<(&'static str, Arc<Rule>)>;

/// One method of one resource at one path.
#[derive(Debug)]
pub struct Rule {
    /// The resource.
    pub resource: Arc<Resource>,
    /// The path pattern.
    pub path: String,
    /// The formats that it takes and gives.
    pub formats: Vec<Format>,
    /// Who may ask.
    pub admits: Admits,
    /// The permissions that it asks for, all of them.
    pub permissions: Vec<String>,
    /// The limits of the resource, by all clients together, if it has any.
    pub bounds: Option<Arc<Bounds>>,
}

/// Who may ask.
#[derive(Debug, Default)]
pub struct Admits {
    /// Requests that nobody stands behind.
    pub anonymous: bool,
    /// Every application.
    pub all: bool,
    /// These applications.
    pub applications: Vec<String>,
}

impl Admits {
    /// Whether requests of an application may.
    pub fn application(&self, id: &str) -> bool {
        self.all || self.applications.iter().any(|one| one == id)
    }
}

/// What lies at a path.
pub struct Found<'r, 'p> {
    point: &'r Point,
    /// The values of the pattern's parameters.
    pub params: matchit::Params<'r, 'p>,
}

impl<'r> Found<'r, '_> {
    /// The rule of a method. `HEAD` is `GET` without the body.
    pub fn rule(&self, method: &str) -> Option<&'r Rule> {
        let wanted = if method == "HEAD" { "GET" } else { method };
        self.point.iter().find(|(one, _)| *one == wanted).map(|(_, rule)| &**rule)
    }

    /// The methods, as `Allow` lists them (RFC 9110, section 10.2.1).
    pub fn allow(&self) -> String {
        let mut names: Vec<&str> = self.point.iter().map(|(method, _)| *method).collect();
        if names.contains(&"GET") {
            names.push("HEAD");
        }
        names.join(", ")
    }
}

impl Routes {
    /// Builds the table. The second part names what could not be placed because something else lies there already; it has no route.
    pub fn new(resources: impl IntoIterator<Item = Resource>) -> (Self, Vec<Violation>) {
        Self::bounded(resources, |_| None)
    }

    /// The same, with the limits of each resource.
    pub(in crate::directory) fn bounded(
        resources: impl IntoIterator<Item = Resource>,
        bounds: impl Fn(&str) -> Option<Arc<Bounds>>,
    ) -> (Self, Vec<Violation>) {
        // Sorted, so that the same resources always win.
        let sorted: BTreeMap<String, Arc<Resource>> =
            resources.into_iter().map(|one| (one.id.clone(), Arc::new(one))).collect();
        let mut routes = Self::default();
        let mut problems = Vec::new();
        let mut points: BTreeMap<(Option<String>, String), Point> = BTreeMap::new();
        for resource in sorted.values() {
            let bounds = bounds(&resource.id);
            for route in resource.routes() {
                let point = points.entry((resource.host.clone(), route.path.clone())).or_default();
                for (method, rules) in route.methods {
                    match point.iter().find(|(taken, _)| *taken == method) {
                        Some((_, rule)) => problems.push(taken(
                            resource,
                            &format!("{method} {}", route.path),
                            &rule.resource.id,
                        )),
                        None => {
                            point.push((method, rule(resource, &route.path, rules, bounds.clone())))
                        }
                    }
                }
            }
        }
        for ((host, path), point) in points.into_iter().filter(|(_, point)| !point.is_empty()) {
            let resource = point[0].1.resource.clone();
            let router = match host {
                Some(host) => routes.hosts.entry(host).or_default(),
                None => &mut routes.anywhere,
            };
            if let Err(problem) = router.insert(path.clone(), point) {
                let other = match problem {
                    matchit::InsertError::Conflict { with } => with.to_string(),
                    other => other.to_string(),
                };
                problems.push(taken(&resource, &path, &other));
            }
        }
        routes.resources = sorted.into_iter().collect();
        (routes, problems)
    }

    /// What lies at a normalised path of a host (in lower case, without port). A resource for this very host goes before one for any.
    pub fn find<'r, 'p>(&'r self, host: &str, path: &'p str) -> Option<Found<'r, 'p>> {
        let of_host = if self.hosts.is_empty() {
            None
        } else {
            self.hosts.get(host).and_then(|router| router.at(path).ok())
        };
        let found = of_host.or_else(|| self.anywhere.at(path).ok())?;
        Some(Found { point: found.value, params: found.params })
    }

    /// All resources, in no order.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }
}

fn taken(resource: &Resource, what: &str, by: &str) -> Violation {
    Violation::new(
        "path",
        format!("The resource {} cannot have {what}: {by} lies there.", resource.id),
        "Choose another path, host or method, or switch the other resource off.",
    )
}

fn rule(
    resource: &Arc<Resource>,
    path: &str,
    rules: MethodRules,
    bounds: Option<Arc<Bounds>>,
) -> Arc<Rule> {
    let mut admits = Admits::default();
    for name in rules.authentication {
        match name.as_str() {
            "*" => admits.all = true,
            "anonymous" => admits.anonymous = true,
            _ => admits.applications.push(name),
        }
    }
    Arc::new(Rule {
        resource: resource.clone(),
        path: path.to_owned(),
        formats: rules.formats.iter().filter_map(|name| Format::parse(name)).collect(),
        admits,
        permissions: rules.permissions.into_iter().collect(),
        bounds,
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
            permission: crate::model::PermissionSource::Records,
            buffer_body: false,
            respond: None,
            proxy: None,
            rate_limit: None,
        }
    }

    fn at<'a>(routes: &'a Routes, host: &str, path: &str, method: &str) -> Option<&'a str> {
        let found = routes.find(host, path)?;
        Some(&found.rule(method)?.resource.id)
    }

    #[test]
    fn two_resources_can_share_a_path_and_not_a_method() {
        let (routes, problems) =
            Routes::new([respond("a", "/x", &["GET"]), respond("b", "/x", &["POST", "GET"])]);
        assert_eq!(at(&routes, "", "/x", "HEAD"), Some("a"));
        assert_eq!(at(&routes, "", "/x", "POST"), Some("b"));
        assert_eq!(at(&routes, "", "/x", "DELETE"), None);
        assert_eq!(routes.find("", "/x").unwrap().allow(), "GET, POST, HEAD");
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].message, "The resource b cannot have GET /x: a lies there.");
    }

    #[test]
    fn a_host_of_its_own_goes_first() {
        let mut own = respond("own", "/x", &["GET"]);
        own.host = Some("api.example".into());
        let (routes, problems) = Routes::new([respond("any", "/x", &["GET"]), own]);
        assert_eq!(problems, []);
        assert_eq!(at(&routes, "api.example", "/x", "GET"), Some("own"));
        assert_eq!(at(&routes, "other.example", "/x", "GET"), Some("any"));
    }

    #[test]
    fn patterns_that_match_the_same_are_a_problem() {
        let (_, problems) =
            Routes::new([respond("a", "/x/{one}", &["GET"]), respond("b", "/x/{two}", &["POST"])]);
        assert_eq!(problems.len(), 1);
    }
}
