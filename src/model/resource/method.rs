//! The methods of requests and rules.

use std::collections::BTreeSet;

use super::{Handler, MethodRules, Resource, Rules};
use crate::model::Violation;

/// The methods that come first in `Allow`, in this order.
pub const METHODS: &[&str] = &["GET", "POST", "PATCH", "PUT", "DELETE"];

/// The name in records that stands for every method.
pub const ANY_METHOD: &str = "any";

/// The methods that clients may write in another case, because the systems that Keyward replaces
/// read them so (RFC 9110, section 9.1; RFC 5789).
const KNOWN: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

/// The methods that no resource accepts: a response to `TRACE` may repeat a credential, and
/// `CONNECT` asks for a tunnel.
const REFUSED: [&str; 2] = ["TRACE", "CONNECT"];

/// The maximum length of a method in a record.
const MAX_LENGTH: usize = 64;

/// The upper-case form of a known method in any case. `None` means that the method is not known,
/// and that its case counts.
pub fn known_method(text: &str) -> Option<&'static str> {
    KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(text))
}

/// Whether no resource accepts the method.
pub(crate) fn is_refused_method(method: &str) -> bool {
    REFUSED.contains(&method)
}

/// The spelling of a method in a record.
pub fn method_of_record(text: String) -> String {
    match known_method(&text) {
        Some(known) => known.to_owned(),
        None if text.eq_ignore_ascii_case(ANY_METHOD) => ANY_METHOD.to_owned(),
        None => text,
    }
}

/// Sorts methods in the order of `Allow`. [`ANY_METHOD`] comes last.
pub(crate) fn sort_methods(methods: &mut [&str]) {
    let place = |method: &str| METHODS.iter().position(|known| *known == method);
    methods.sort_by_key(|method| {
        (*method == ANY_METHOD, place(method).unwrap_or(METHODS.len()), method.to_owned())
    });
}

impl Rules {
    /// The methods that have rules of their own, in the order of `Allow`. [`ANY_METHOD`] stands for
    /// all methods that are not listed.
    pub fn methods(&self) -> Vec<&str> {
        let mut names: BTreeSet<&str> = match self {
            Self::Resource { methods, .. } => methods.iter().map(String::as_str).collect(),
            Self::Method { methods } => methods.keys().map(String::as_str).collect(),
        };
        // With `any`, a permission for one method makes a rule of its own.
        if let Self::Resource { permissions, .. } = self
            && names.contains(ANY_METHOD)
        {
            names.extend(permissions.keys().map(String::as_str));
        }
        let mut names: Vec<&str> = names.into_iter().collect();
        sort_methods(&mut names);
        names
    }

    /// The rules of one method. `None` means that the resource does not accept the method. If the
    /// resource accepts any method, the permissions for `any` are required in addition to those of
    /// the method.
    pub fn of(&self, method: &str) -> Option<MethodRules> {
        match self {
            Self::Resource { methods, formats, authentication, permissions } => {
                let accepts_any = methods.contains(ANY_METHOD);
                if !accepts_any && !methods.contains(method) {
                    return None;
                }
                let of_any = permissions.get(ANY_METHOD).filter(|_| accepts_any);
                let own = permissions.get(method);
                Some(MethodRules {
                    formats: formats.clone(),
                    authentication: authentication.clone(),
                    permissions: of_any.into_iter().chain(own).flatten().cloned().collect(),
                })
            }
            Self::Method { methods } => {
                methods.get(method).or_else(|| methods.get(ANY_METHOD)).cloned()
            }
        }
    }

    /// The rules of all methods that have rules of their own.
    pub fn each(&self) -> impl Iterator<Item = MethodRules> {
        self.methods().into_iter().filter_map(|method| self.of(method))
    }
}

impl Resource {
    pub(super) fn check_methods(&self, found: &mut Vec<Violation>) {
        let mut names: BTreeSet<&str> = self.rules.methods().into_iter().collect();
        if let Rules::Resource { permissions, .. } = &self.rules {
            let listed = names.clone();
            for method in permissions.keys().map(String::as_str) {
                if !listed.contains(method) {
                    found.push(Violation::new(
                        format!("permissions.{method}"),
                        format!("The resource does not have the method {method:?}."),
                        "Name one of the resource's methods, or add the method.",
                    ));
                } else {
                    names.insert(method);
                }
            }
        }
        found.extend(names.into_iter().filter_map(|method| check_method(method, &self.handler)));
    }
}

fn check_method(method: &str, handler: &Handler) -> Option<Violation> {
    if let Some(paths) = handler.fixed_paths() {
        let own: Vec<&str> = paths.iter().flat_map(|(_, methods)| *methods).copied().collect();
        return (!own.contains(&method)).then(|| {
            Violation::new(
                "methods",
                format!("{method:?} is not a method of the handler {}.", handler.name()),
                format!("Use {}.", own.join(", ")),
            )
        });
    }
    // RFC 9110, section 5.6.2.
    let is_token_byte = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let is_token = (1..=MAX_LENGTH).contains(&method.len()) && method.bytes().all(is_token_byte);
    let (message, fix) = if !is_token {
        (format!("{method:?} is not a method."), "Use a method such as GET, or any.".to_owned())
    } else if let Some(known) = known_method(method).filter(|known| *known != method) {
        (format!("The method {method:?} is in the wrong case."), format!("Write {known}."))
    } else if is_refused_method(method) {
        let methods = REFUSED.join(" and ");
        (format!("Keyward refuses {methods} requests."), format!("Leave {method} out."))
    } else {
        return None;
    };
    Some(Violation::new("methods", message, fix))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn rules(methods: &[&str], permissions: &[(&str, &str)]) -> Rules {
        let set = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let permissions: BTreeMap<_, _> =
            permissions.iter().map(|(method, name)| ((*method).to_owned(), set(&[name]))).collect();
        let (formats, authentication) = (set(&["any"]), set(&["*"]));
        Rules::Resource { methods: set(methods), formats, authentication, permissions }
    }

    fn required(rules: &Rules, method: &str) -> Option<Vec<String>> {
        Some(rules.of(method)?.permissions.into_iter().collect())
    }

    #[test]
    fn any_method_needs_the_permissions_of_any_and_its_own() {
        let open = rules(&["any"], &[("any", "use"), ("DELETE", "delete")]);
        assert_eq!(open.methods(), ["DELETE", "any"]);
        assert_eq!(required(&open, "PURGE"), Some(vec!["use".into()]));
        assert_eq!(required(&open, "DELETE"), Some(vec!["delete".into(), "use".into()]));
        let listed = rules(&["GET", "PURGE"], &[("PURGE", "purge"), ("any", "use")]);
        assert_eq!(listed.methods(), ["GET", "PURGE"]);
        assert_eq!(required(&listed, "PURGE"), Some(vec!["purge".into()]));
        assert_eq!(required(&listed, "DELETE"), None);
    }

    #[test]
    fn methods_of_a_record_are_checked() {
        let problems = |methods: &[&str], permissions: &[(&str, &str)], handler: Handler| {
            let path = handler.fixed_paths().is_none().then(|| "/x".to_owned());
            let rules = rules(methods, permissions);
            let resource = Resource { handler, path, rules, ..Resource::entity_user() };
            let mut found = Vec::new();
            resource.check_methods(&mut found);
            found.into_iter().map(|problem| problem.message).collect::<Vec<_>>()
        };
        let good = ["OPTIONS", "PROPFIND", "QUERY", "M-SEARCH", "any", "HEAD", "propfind"];
        assert!(problems(&good, &[("any", "p")], Handler::Decide).is_empty());
        assert!(problems(&["any"], &[("PUT", "p")], Handler::Decide).is_empty());
        for handler in [Handler::Decide, Handler::Proxy, Handler::Respond, Handler::EntityUser] {
            for method in ["PUT", "DELETE", "HEAD", "any", "GTE"] {
                assert_eq!(problems(&["GET"], &[(method, "p")], handler.clone()).len(), 1);
            }
        }
        for bad in ["", "A B", "A,B", "É", "get", "Patch", "TRACE", "CONNECT"] {
            assert_eq!(problems(&[bad], &[], Handler::Proxy).len(), 1, "{bad}");
        }
        assert_eq!(problems(&["GET"], &[("GTE", "p")], Handler::Respond).len(), 1);
        assert_eq!(problems(&["PURGE"], &[("PUGRE", "p")], Handler::Respond).len(), 1);
        for other in ["any", "OPTIONS", "PUT"] {
            assert_eq!(problems(&[other], &[], Handler::EntityUser).len(), 1, "{other}");
        }
    }

    #[test]
    fn known_methods_of_a_record_become_upper_case() {
        for (text, method) in [
            ("patch", "PATCH"),
            ("Get", "GET"),
            ("ANY", "any"),
            ("propfind", "propfind"),
            ("trace", "TRACE"),
        ] {
            assert_eq!(method_of_record(text.into()), method);
        }
    }
}
