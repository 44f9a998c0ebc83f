//! Finds requests that a change of resources opens: a resource guards them before the change, and a
//! rule that is not as strict decides about them after the change.
//!
//! A pattern stands for many paths. To compare the routes before and after a change, the comparison
//! tries one path of each form in which two patterns overlap.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use super::{
    Routes, Rule,
    patterns::{PatternIndex, Segment, common_paths, forms},
};
use crate::model::{ANY_METHOD, METHODS, PermissionSource, Resource};

/// A method that no resource lists.
const OTHER_METHOD: &str = "OTHER-METHOD";

/// A resource whose guarded paths a change opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedGuard {
    /// The id of the resource that guards the paths before the change.
    pub guard: String,
    /// The id of the resource that decides about the paths after the change.
    pub opener: String,
    /// The host of the requests. `None` means any host.
    pub host: Option<String>,
    /// One of the paths. `…` stands for a segment with any text.
    pub path: String,
    /// The methods of the requests at this path.
    pub methods: BTreeSet<String>,
    /// The difference between the rules.
    pub difference: Difference,
}

/// The reason why a rule is not as strict as another rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The rule admits requests without a credential.
    Anonymous,
    /// The rule does not need this permission.
    Permission(String),
    /// The rule does not ask the script that decides about permissions.
    Script,
    /// The rule admits an application that the other rule does not admit.
    Applications,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("admits requests without a credential"),
            Self::Permission(name) => write!(f, "does not need the permission {name:?}"),
            Self::Script => f.write_str("does not let a script decide about permissions"),
            Self::Applications => f.write_str("admits other applications"),
        }
    }
}

impl fmt::Display for OpenedGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { guard, opener, host, path, methods, difference } = self;
        let methods = methods.iter().map(|method| match method.as_str() {
            OTHER_METHOD => "other methods",
            method => method,
        });
        let methods = methods.collect::<Vec<_>>().join(", ");
        let host = host.as_deref().unwrap_or_default();
        write!(
            f,
            "The resource {guard} guards {host}{path} ({methods}). The resource {opener} would \
             decide about it, and {difference}."
        )
    }
}

impl Rule {
    /// The first reason why this rule is not as strict as another rule. `None` means that every
    /// request that this rule allows, the other rule allows too.
    pub fn difference_to(&self, stricter: &Self) -> Option<Difference> {
        if self.access.anonymous && !stricter.access.anonymous {
            return Some(Difference::Anonymous);
        }
        let source = |rule: &Self| rule.resource.permission;
        match (source(self), source(stricter)) {
            (PermissionSource::Records, PermissionSource::Script) => {
                return Some(Difference::Script);
            }
            // The script may allow a request that lacks a permission.
            (PermissionSource::Script, PermissionSource::Records) => {
                if let Some(first) = stricter.permissions.first() {
                    return Some(Difference::Permission(first.clone()));
                }
            }
            _ => {
                let is_missing = |name: &&String| !self.permissions.contains(name);
                if let Some(missing) = stricter.permissions.iter().find(is_missing) {
                    return Some(Difference::Permission(missing.clone()));
                }
            }
        }
        let (own, other) = (&self.access, &stricter.access);
        let has_fewer = other.all_applications
            || !own.all_applications
                && own.applications.iter().all(|id| other.allows_application(id));
        (!has_fewer).then_some(Difference::Applications)
    }

    /// Whether the rule requires anything of a request.
    fn is_guard(&self) -> bool {
        !self.access.anonymous
            || !self.permissions.is_empty()
            || self.resource.permission == PermissionSource::Script
    }
}

/// The guards that a change of the resources opens. Both lists contain all resources.
pub fn opened_guards(before: &[Resource], after: &[Resource]) -> Vec<OpenedGuard> {
    find_opened_guards(before, after, &|| false).unwrap_or_default()
}

/// The guards that a change of the resources opens. Both lists contain all resources. Calls
/// `is_cancelled` for each pair of patterns that overlap. `None` means that it returned `true`.
pub(crate) fn find_opened_guards(
    before: &[Resource],
    after: &[Resource],
    is_cancelled: &dyn Fn() -> bool,
) -> Option<Vec<OpenedGuard>> {
    let changed: Vec<&Resource> = changed(before, after).chain(changed(after, before)).collect();
    if changed.is_empty() {
        return Some(Vec::new());
    }
    let all: Vec<&Resource> = before.iter().chain(after).collect();
    let others: Vec<(&Resource, String)> = patterns(&all).collect();
    let depth = 1 + others.iter().map(|(_, path)| path.matches('/').count()).max().unwrap_or(0);
    let index = index(&others);
    let known_forms: Vec<OnceCell<Vec<Vec<Segment>>>> = vec![OnceCell::new(); others.len()];
    let mut comparison = Comparison::new(before, after);
    let mut tried = HashSet::new();
    for (resource, path) in patterns(&changed) {
        let own_forms = forms(&path, depth);
        for number in index.overlapping(resource.host.as_deref(), &path) {
            if is_cancelled() {
                return None;
            }
            let (other, other_path) = &others[number];
            let other_forms = known_forms[number].get_or_init(|| forms(other_path, depth));
            let host = resource.host.as_ref().or(other.host.as_ref());
            let methods = methods(&[resource, *other]);
            for path in common_paths(&own_forms, other_forms) {
                for method in &methods {
                    if tried.insert((host, path.clone(), *method)) {
                        comparison.try_request(host.map(String::as_str), &path, method);
                    }
                }
            }
        }
    }
    Some(comparison.found.into_values().collect())
}

/// The resources of the first list that the second list does not contain in this form.
fn changed<'a>(
    resources: &'a [Resource],
    others: &'a [Resource],
) -> impl Iterator<Item = &'a Resource> {
    let others: HashMap<&str, &Resource> =
        others.iter().map(|other| (other.id.as_str(), other)).collect();
    resources.iter().filter(move |one| others.get(one.id.as_str()).is_none_or(|other| other != one))
}

fn index(patterns: &[(&Resource, String)]) -> PatternIndex {
    let mut index = PatternIndex::default();
    for (number, (resource, path)) in patterns.iter().enumerate() {
        index.insert(resource.host.as_deref(), path, number);
    }
    index
}

/// The patterns of resources that have routes.
fn patterns<'a>(resources: &[&'a Resource]) -> impl Iterator<Item = (&'a Resource, String)> {
    resources
        .iter()
        .copied()
        .flat_map(|resource| resource.routes().into_iter().map(move |route| (resource, route.path)))
}

/// The methods to compare: all that the rules name, and one that they do not name.
fn methods<'a>(resources: &[&'a Resource]) -> BTreeSet<&'a str> {
    let named = resources.iter().flat_map(|resource| resource.rules.methods());
    let named = named.filter(|method| *method != ANY_METHOD);
    named.chain(METHODS.iter().copied()).chain(["HEAD", OTHER_METHOD]).collect()
}

/// The routes before and after a change.
struct Comparison<'a> {
    routes: [Routes; 2],
    /// The patterns after the change, and their index.
    after: Vec<(&'a Resource, String)>,
    index: PatternIndex,
    /// By guard, opener and host.
    found: BTreeMap<(String, String, Option<String>), OpenedGuard>,
}

impl<'a> Comparison<'a> {
    fn new(before: &'a [Resource], after: &'a [Resource]) -> Self {
        let routes = [before, after].map(|resources| Routes::new(resources.iter().cloned()).0);
        let after: Vec<(&Resource, String)> = patterns(&after.iter().collect::<Vec<_>>()).collect();
        let index = index(&after);
        Self { routes, after, index, found: BTreeMap::new() }
    }

    /// The routes after the change that can match a path, without those of one resource.
    fn routes_without(&self, id: &str, host: Option<&str>, path: &str) -> Routes {
        let numbers = self.index.matching(host, path).into_iter();
        let resources: BTreeMap<&str, &Resource> = numbers
            .map(|number| self.after[number].0)
            .filter(|resource| resource.id != id)
            .map(|resource| (resource.id.as_str(), resource))
            .collect();
        Routes::new(resources.into_values().cloned()).0
    }

    fn try_request(&mut self, host: Option<&str>, path: &str, method: &str) {
        let Some(opener) = find(&self.routes[1], host, path, method) else { return };
        let opened_in = |routes: &Routes| {
            let guard = find(routes, host, path, method).filter(|guard| guard.is_guard())?;
            Some((guard.resource.id.clone(), opener.difference_to(guard)?))
        };
        let Some((mut guard, mut difference)) = opened_in(&self.routes[0]) else { return };
        let id = opener.resource.id.clone();
        if guard == id {
            // The resource changed its own rule. This opens a guard only if another resource would
            // guard the path without this one.
            match opened_in(&self.routes_without(&id, host, path)) {
                Some(opened) => (guard, difference) = opened,
                None => return,
            }
        }
        self.add(guard, id, host, path, method, difference);
    }

    fn add(
        &mut self,
        guard: String,
        opener: String,
        host: Option<&str>,
        path: &str,
        method: &str,
        difference: Difference,
    ) {
        let host = host.map(str::to_owned);
        let opened = self
            .found
            .entry((guard.clone(), opener.clone(), host.clone()))
            .or_insert_with(|| OpenedGuard {
                guard,
                opener,
                host,
                path: path.to_owned(),
                methods: BTreeSet::new(),
                difference,
            });
        if opened.path == path {
            opened.methods.insert(method.to_owned());
        }
    }
}

fn find<'r>(routes: &'r Routes, host: Option<&str>, path: &str, method: &str) -> Option<&'r Rule> {
    routes.find(host.unwrap_or_default(), path)?.rule(method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Handler, Rules};

    fn resource(id: &str, path: &str, method: &str, authentication: &str) -> Resource {
        let set = |item: &str| [item.to_owned()].into();
        Resource {
            id: id.into(),
            handler: Handler::Decide,
            path: Some(path.into()),
            rules: Rules::Resource {
                methods: set(method),
                formats: set("any"),
                authentication: set(authentication),
                permissions: BTreeMap::new(),
            },
            ..Resource::entity_user()
        }
    }

    fn at(host: &str, resource: Resource) -> Resource {
        Resource { host: Some(host.into()), ..resource }
    }

    fn with_permission(mut resource: Resource, method: &str, name: &str) -> Resource {
        if let Rules::Resource { permissions, .. } = &mut resource.rules {
            permissions.insert(method.into(), [name.to_owned()].into());
        }
        resource
    }

    /// `guard opener host path difference` of each opened guard.
    fn opened(before: &[Resource], after: &[Resource]) -> Vec<String> {
        let line = |opened: OpenedGuard| {
            let OpenedGuard { guard, opener, host, path, .. } = opened;
            format!("{guard} {opener} {}{path}", host.unwrap_or_default())
        };
        opened_guards(before, after).into_iter().map(line).collect()
    }

    /// The opened guards after a resource is added to one other.
    fn added(guard: &Resource, opener: Resource) -> Vec<String> {
        opened(std::slice::from_ref(guard), &[guard.clone(), opener])
    }

    #[test]
    fn more_open_rule_for_a_guarded_path_is_found() {
        let guard = resource("guard", "/a/{*rest}", "any", "*");
        let open = |path: &str| resource("open", path, "GET", "anonymous");
        for (path, place) in [
            ("/a/public/{*rest}", "/a/public"),
            ("/a/b/{id}", "/a/b/…"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a/b", "/a/b"),
            ("/a/img-{id}.png", "/a/img-….png"),
        ] {
            assert_eq!(added(&guard, open(path)), [format!("guard open {place}")], "{path}");
        }
        for path in ["/b/{*rest}", "/{*rest}", "/{x}", "/ab", "/"] {
            assert_eq!(added(&guard, open(path)), [""; 0], "{path}");
        }
        let strict = resource("strict", "/a/b", "GET", "*");
        assert_eq!(added(&guard, strict), [""; 0]);
        let other = resource("other", "/a/b", "GET", "partners");
        assert_eq!(added(&guard, other.clone()), [""; 0]);
        assert_eq!(added(&resource("guard", "/a/{*rest}", "GET", "staff"), other).len(), 1);
        // The wider pattern does not open the path that the narrower one guards.
        let public = resource("public", "/{*rest}", "any", "anonymous");
        assert_eq!(added(&public, guard), [""; 0]);
    }

    #[test]
    fn lesser_permission_of_one_method_is_found() {
        let guard = resource("guard", "/a/{*rest}", "any", "*");
        let guard = with_permission(guard, "DELETE", "delete");
        let same = |method: &str| resource("open", "/a/b", method, "*");
        assert_eq!(added(&guard, same("GET")), [""; 0]);
        for method in ["DELETE", "any"] {
            let found = opened_guards(std::slice::from_ref(&guard), &[guard.clone(), same(method)]);
            assert_eq!(found.len(), 1, "{method}");
            assert_eq!(found[0].methods, ["DELETE".to_owned()].into(), "{method}");
            assert_eq!(found[0].difference, Difference::Permission("delete".into()));
        }
        let equal = with_permission(same("DELETE"), "DELETE", "delete");
        assert_eq!(added(&guard, equal), [""; 0]);
        let purge = with_permission(resource("guard", "/p", "PURGE", "*"), "PURGE", "purge");
        assert_eq!(added(&purge, resource("open", "/p", "any", "*")), [""; 0]);
        let any = with_permission(resource("guard", "/p", "any", "*"), "any", "use");
        assert_eq!(added(&any, resource("open", "/p", "PURGE", "*")).len(), 1);
    }

    #[test]
    fn hosts_are_considered() {
        let guard = resource("guard", "/a/{x}", "GET", "*");
        let open = resource("open", "/a/{x}", "GET", "anonymous");
        assert_eq!(added(&guard, at("api.example", open.clone())), ["guard open api.example/a/…"]);
        assert_eq!(added(&at("api.example", guard.clone()), open.clone()), [""; 0]);
        assert_eq!(added(&at("api.example", guard), at("pub.example", open)), [""; 0]);
    }

    #[test]
    fn edits_and_deletions_that_open_a_path_are_found() {
        let guard = resource("guard", "/a/{*rest}", "GET", "*");
        let public = resource("public", "/{*rest}", "GET", "anonymous");
        let both = [guard.clone(), public.clone()];
        let gone = ["guard public /a".to_owned()];
        assert_eq!(opened(&both, std::slice::from_ref(&public)), gone);
        let disabled = Resource { enabled: false, ..guard.clone() };
        assert_eq!(opened(&both, &[disabled, public.clone()]), gone);
        let moved = Resource { path: Some("/b/{*rest}".into()), ..guard.clone() };
        assert_eq!(opened(&both, &[moved, public]), gone);
        // A resource inside the guarded paths becomes more open, or is already open.
        let inside = resource("inside", "/a/b", "GET", "*");
        let open = resource("inside", "/a/b", "GET", "anonymous");
        let with = |inside: &Resource| [guard.clone(), inside.clone()];
        assert_eq!(opened(&with(&inside), &with(&open)), ["guard inside /a/b"]);
        let edited = Resource { buffer_body: true, ..open.clone() };
        assert_eq!(opened(&with(&open), &with(&edited)), [""; 0]);
        // A guard that opens its own paths opens no other guard.
        let own = resource("guard", "/a/{*rest}", "GET", "anonymous");
        assert_eq!(opened(std::slice::from_ref(&guard), std::slice::from_ref(&own)), [""; 0]);
        // A document that brings both at once opens nothing that was guarded before.
        assert_eq!(opened(&[], &with(&open)), [""; 0]);
    }

    /// The number of pairs of patterns that a change compares.
    fn work(before: &[Resource], after: &[Resource]) -> usize {
        let count = std::cell::Cell::new(0);
        let count_pair = || {
            count.set(count.get() + 1);
            false
        };
        find_opened_guards(before, after, &count_pair).unwrap();
        count.get()
    }

    fn numbered(
        count: usize,
        path: impl Fn(usize) -> String,
        authentication: &str,
    ) -> Vec<Resource> {
        (0..count).map(|n| resource(&format!("r{n}"), &path(n), "GET", authentication)).collect()
    }

    #[test]
    fn work_grows_with_the_resources_and_not_with_their_square() {
        let many = |count: usize, authentication: &str| {
            numbered(count, |n| format!("/r/{n}/{{x}}"), authentication)
        };
        assert!(work(&[], &many(2_000, "*")) <= 2 * 2_000);
        // One resource covers all others.
        let all = [resource("all", "/{*rest}", "GET", "anonymous")];
        assert!(work(&all, &[all.as_slice(), &many(500, "*")].concat()) <= 4 * 500);
        // All resources become more open.
        assert!(work(&many(500, "*"), &many(500, "anonymous")) <= 4 * 500);
        let prefixed = numbered(500, |n| format!("/r-{n}-{{x}}"), "*");
        assert!(work(&[], &prefixed) <= 4 * 500);
        let at_hosts: Vec<Resource> = numbered(500, |_| "/{*rest}".into(), "*")
            .into_iter()
            .map(|resource| at(&format!("{}.example", resource.id), resource))
            .collect();
        assert!(work(&[], &at_hosts) <= 4 * 500);
    }

    #[test]
    fn comparison_ends_when_it_is_cancelled() {
        let many = numbered(20, |n| format!("/r/{n}/{{x}}"), "*");
        let count = std::cell::Cell::new(0);
        let cancelled = || {
            count.set(count.get() + 1);
            count.get() == 3
        };
        assert_eq!(find_opened_guards(&[], &many, &cancelled), None);
        assert_eq!(count.get(), 3);
    }
}
