//! The guards of a resource that a change of this resource removes.
//!
//! A change that opens the path of another resource is refused unless the client says that it
//! knows ([`Guards`](crate::accounts::Guards)).

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{MethodRules, PermissionSource, Resource, sort_methods};

const ANONYMOUS: &str = "anonymous";

/// Sentences about the methods that require less after the change.
pub(super) fn lost(before: &Resource, after: &Resource) -> Vec<String> {
    let mut found = Vec::new();
    let sources = (before.permission, after.permission);
    if sources == (PermissionSource::Script, PermissionSource::Records) {
        found.push("A script does not decide about permissions any more.".to_owned());
    }
    let mut by_loss = BTreeMap::<String, Vec<&str>>::new();
    for method in methods([before, after]) {
        let (Some(old), Some(new)) = (before.rules.of(method), after.rules.of(method)) else {
            continue;
        };
        let needs_records = sources == (PermissionSource::Records, PermissionSource::Records);
        let losses = [
            needs_records.then(|| lost_permissions(&old, &new)).flatten(),
            lost_authentication(&old, &new),
        ];
        for loss in losses.into_iter().flatten() {
            by_loss.entry(loss).or_default().push(method);
        }
    }
    found.extend(by_loss.into_iter().map(|(loss, mut methods)| {
        sort_methods(&mut methods);
        format!("{}: {loss}", methods.join(", "))
    }));
    found
}

fn lost_permissions(old: &MethodRules, new: &MethodRules) -> Option<String> {
    let lost: Vec<String> =
        old.permissions.difference(&new.permissions).map(|name| format!("{name:?}")).collect();
    if lost.is_empty() {
        return None;
    }
    let lost = lost.join(", ");
    Some(if new.permissions.is_empty() {
        format!("no permission is required any more. Before, {lost} was required.")
    } else if new.permissions.is_subset(&old.permissions) {
        format!("{lost} is not required any more.")
    } else {
        // Another permission has replaced it: the method is still guarded.
        return None;
    })
}

fn lost_authentication(old: &MethodRules, new: &MethodRules) -> Option<String> {
    let gets = |name: &str| new.authentication.contains(name) && !old.authentication.contains(name);
    if gets(ANONYMOUS) {
        return Some("requests without a credential are admitted now.".to_owned());
    }
    gets("*").then(|| "credentials of every application are admitted now.".to_owned())
}

/// A sentence about new methods without a permission, if other methods require one.
pub(super) fn unguarded_new_methods(before: Option<&Resource>, after: &Resource) -> Option<String> {
    let before = before?;
    if after.permission == PermissionSource::Script {
        return None;
    }
    let is_open = |method: &str| {
        let rules = after.rules.of(method);
        rules.is_some_and(|rules| rules.permissions.is_empty())
    };
    let own = after.rules.methods();
    if own.iter().all(|method| is_open(method)) {
        return None;
    }
    let is_new = |method: &&str| before.rules.of(method).is_none() && is_open(method);
    let new: Vec<&str> = own.into_iter().filter(is_new).collect();
    (!new.is_empty()).then(|| {
        format!(
            "{}: no permission is required, although other methods require one.",
            new.join(", ")
        )
    })
}

fn methods(resources: [&Resource; 2]) -> BTreeSet<&str> {
    resources.into_iter().flat_map(|resource| resource.rules.methods()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Rules;

    type Permissions<'a> = &'a [(&'a str, &'a str)];

    fn resource(methods: &[&str], authentication: &[&str], permissions: Permissions) -> Resource {
        let set = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let mut by_method = BTreeMap::<String, BTreeSet<String>>::new();
        for (method, name) in permissions {
            by_method.entry((*method).into()).or_default().insert((*name).into());
        }
        let rules = Rules::Resource {
            methods: set(methods),
            formats: set(&["any"]),
            authentication: set(authentication),
            permissions: by_method,
        };
        Resource { rules, ..Resource::entity_user() }
    }

    #[test]
    fn lost_guards_are_named_and_changed_guards_are_not() {
        let both = ["GET", "DELETE"];
        let before = resource(&both, &["*"], &[("GET", "see"), ("DELETE", "cancel")]);
        let after = |authentication: &[&str], permissions: Permissions| {
            lost(&before, &resource(&both, authentication, permissions))
        };
        assert!(after(&["*"], &[("GET", "see"), ("DELETE", "void")]).is_empty());
        assert_eq!(
            after(&["*"], &[("DELETE", "void")]),
            ["GET: no permission is required any more. Before, \"see\" was required."]
        );
        assert_eq!(
            after(&["anonymous"], &[("GET", "see"), ("DELETE", "cancel")]),
            ["GET, DELETE: requests without a credential are admitted now."]
        );
        let two = resource(&both, &["default"], &[("GET", "see"), ("GET", "list")]);
        assert_eq!(
            lost(&two, &resource(&both, &["*"], &[("GET", "see")])),
            [
                "GET: \"list\" is not required any more.",
                "GET, DELETE: credentials of every application are admitted now."
            ]
        );
        let scripted = Resource { permission: PermissionSource::Script, ..before.clone() };
        assert_eq!(lost(&scripted, &before).len(), 1);
        // The script decides now, and the permissions are not asked for.
        assert!(lost(&before, &scripted).is_empty());
    }

    #[test]
    fn permissions_of_any_method_are_compared_method_by_method() {
        let before = resource(&["GET"], &["*"], &[("GET", "see")]);
        let after = resource(&["any"], &["*"], &[]);
        assert_eq!(lost(&before, &after).len(), 1);
        assert!(lost(&before, &resource(&["any"], &["*"], &[("any", "see")])).is_empty());
    }

    #[test]
    fn new_method_without_a_permission_is_named_if_others_have_one() {
        let before = resource(&["GET"], &["*"], &[("GET", "see")]);
        let after = |permissions: Permissions| {
            unguarded_new_methods(Some(&before), &resource(&["GET", "PUT"], &["*"], permissions))
        };
        assert_eq!(
            after(&[("GET", "see")]).as_deref(),
            Some("PUT: no permission is required, although other methods require one.")
        );
        assert_eq!(after(&[("GET", "see"), ("PUT", "p")]), None);
        assert_eq!(after(&[]), None);
    }
}
