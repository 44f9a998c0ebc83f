//! Finds requests that a change of resources opens: a resource guards them before the change, and a
//! rule that is not as strict decides about them after the change.
//!
//! A pattern stands for many paths. To compare the routes before and after a change, the comparison
//! tries one path of each form in which two patterns overlap.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{Routes, Rule};
use crate::model::{ANY_METHOD, METHODS, PermissionSource, Resource};

/// A segment that no pattern contains as text, because patterns are ASCII.
const OTHER: &str = "…";
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
pub fn opened_guards<'a>(before: &'a [Resource], after: &'a [Resource]) -> Vec<OpenedGuard> {
    let unchanged = |one: &Resource, others: &[Resource]| others.contains(one);
    let changed: Vec<&Resource> = before
        .iter()
        .filter(|resource| !unchanged(resource, after))
        .chain(after.iter().filter(|resource| !unchanged(resource, before)))
        .collect();
    if changed.is_empty() {
        return Vec::new();
    }
    let all: Vec<&Resource> = before.iter().chain(after).collect();
    let depth = 1 + patterns(&all).map(|(_, path)| path.matches('/').count()).max().unwrap_or(0);
    let with_forms = |resources: &[&'a Resource]| -> Vec<(&'a Resource, Vec<Vec<Segment>>)> {
        patterns(resources).map(|(resource, path)| (resource, forms(&path, depth))).collect()
    };
    let others = with_forms(&all);
    let mut comparison = Comparison::new(before, after);
    let mut tried = BTreeSet::new();
    for (resource, own_forms) in with_forms(&changed) {
        for (other, other_forms) in &others {
            let host = match (&resource.host, &other.host) {
                (Some(one), Some(other)) if one != other => continue,
                (one, other) => one.as_ref().or(other.as_ref()),
            };
            for path in common_paths(&own_forms, other_forms) {
                for method in methods(&[resource, *other]) {
                    if tried.insert((host, path.clone(), method)) {
                        comparison.try_request(host.map(String::as_str), &path, method);
                    }
                }
            }
        }
    }
    comparison.found.into_values().collect()
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
    after: &'a [Resource],
    routes: [Routes; 2],
    /// The routes after the change without one resource, by the id of that resource.
    without: BTreeMap<String, Routes>,
    /// By guard, opener and host.
    found: BTreeMap<(String, String, Option<String>), OpenedGuard>,
}

impl<'a> Comparison<'a> {
    fn new(before: &'a [Resource], after: &'a [Resource]) -> Self {
        let routes = [before, after].map(|resources| Routes::new(resources.iter().cloned()).0);
        Self { after, routes, without: BTreeMap::new(), found: BTreeMap::new() }
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
            let others = self.after.iter().filter(|resource| resource.id != id).cloned();
            let without = self.without.entry(id.clone()).or_insert_with(|| Routes::new(others).0);
            match opened_in(without) {
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

/// A segment of a pattern.
#[derive(Debug, Clone, PartialEq)]
enum Segment {
    Text(String),
    /// A parameter between a prefix and a suffix.
    Parameter(String, String),
}

/// The forms of the paths that a pattern matches. A rest is up to `depth` segments long.
fn forms(pattern: &str, depth: usize) -> Vec<Vec<Segment>> {
    // `{{` and `}}` are braces as text.
    let is_rest = |text: &str| text.replace("{{", "").contains("{*");
    let texts: Vec<&str> = pattern.split('/').skip(1).collect();
    let (last, folder) = texts.split_last().unwrap_or((&"", &[]));
    let folder: Vec<Segment> = folder.iter().map(|text| segment(text)).collect();
    let with = |rest: &[Segment]| [folder.as_slice(), rest].concat();
    if !is_rest(last) {
        return vec![with(&[segment(last)])];
    }
    let first = last.find("{*").map_or("", |start| &last[..start]).to_owned();
    let (empty, any) =
        (Segment::Text(String::new()), Segment::Parameter(String::new(), String::new()));
    let mut forms = Vec::new();
    if first.is_empty() {
        forms.push(with(std::slice::from_ref(&empty)));
        forms.extend((!folder.is_empty()).then(|| folder.clone()));
    }
    let mut rest = vec![Segment::Parameter(first, String::new())];
    for _ in 0..depth {
        forms.push(with(&rest));
        forms.push(with(&[rest.as_slice(), std::slice::from_ref(&empty)].concat()));
        rest.push(any.clone());
    }
    forms
}

fn segment(text: &str) -> Segment {
    let plain = |text: &str| text.replace("{{", "{").replace("}}", "}");
    let masked = text.replace("{{", "  ");
    let Some(start) = masked.find('{') else { return Segment::Text(plain(text)) };
    let end = masked[start..].find('}').map_or(text.len(), |length| start + length + 1);
    Segment::Parameter(plain(&text[..start]), plain(&text[end..]))
}

/// One path of each form that both patterns match.
fn common_paths(one: &[Vec<Segment>], other: &[Vec<Segment>]) -> BTreeSet<String> {
    let pairs = one.iter().flat_map(|one| other.iter().map(move |other| (one, other)));
    pairs.filter_map(|(one, other)| common_path(one, other)).collect()
}

fn common_path(one: &[Segment], other: &[Segment]) -> Option<String> {
    if one.len() != other.len() {
        return None;
    }
    let mut path = String::new();
    for (one, other) in one.iter().zip(other) {
        path.push('/');
        path.push_str(&common_text(one, other)?);
    }
    Some(path)
}

/// A text that both segments match.
fn common_text(one: &Segment, other: &Segment) -> Option<String> {
    match (one, other) {
        (Segment::Text(one), Segment::Text(other)) => (one == other).then(|| one.clone()),
        (Segment::Text(text), Segment::Parameter(prefix, suffix))
        | (Segment::Parameter(prefix, suffix), Segment::Text(text)) => {
            let inner = text.strip_prefix(prefix.as_str())?.strip_suffix(suffix.as_str())?;
            (!inner.is_empty()).then(|| text.clone())
        }
        (Segment::Parameter(prefix, suffix), Segment::Parameter(other_prefix, other_suffix)) => {
            joint(prefix, other_prefix, suffix, other_suffix)
        }
    }
}

/// A text with both prefixes and both suffixes.
fn joint(prefix: &str, other_prefix: &str, suffix: &str, other_suffix: &str) -> Option<String> {
    let longer = |one: &'_ str, other: &'_ str| -> String {
        if one.len() < other.len() { other.to_owned() } else { one.to_owned() }
    };
    let (start, end) = (longer(prefix, other_prefix), longer(suffix, other_suffix));
    let is_joint = [prefix, other_prefix].iter().all(|one| start.starts_with(one))
        && [suffix, other_suffix].iter().all(|one| end.ends_with(one));
    is_joint.then(|| format!("{start}{OTHER}{end}"))
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
}
