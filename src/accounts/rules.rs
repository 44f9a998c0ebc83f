//! Rules about records that depend on other records.

use super::{AccountError, Accounts};
use crate::{
    directory::Routes,
    model::{
        Application, Key, KeySource, Resource, Role, Timestamp, User, Violation, mail_problem,
        name_problem,
    },
};

/// The maximum length of a key's label, in bytes.
const MAX_LABEL: usize = 128;
/// The maximum number of networks of a key.
const MAX_NETWORKS: usize = 32;

pub(super) fn check_user(accounts: &Accounts, user: &User) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Some(problem) = name_problem(&user.name) {
        found.push(Violation::new(
            "name",
            problem,
            "Use 1 to 60 letters, digits, single spaces, or @ + _ . ' -",
        ));
    }
    if let Some(problem) = user.mail.as_deref().and_then(mail_problem) {
        found.push(Violation::new("mail", problem, "Give an address such as name@example.com."));
    }
    let policy = accounts.directory().policy();
    for (index, role) in user.roles.iter().enumerate() {
        if policy.roles.role(role).is_none() || Role::is_locked(role) {
            found.push(Violation::new(
                format!("roles.{index}"),
                format!("The referenced entity (user_role: {role}) does not exist."),
                "Create the role first, or remove it from the user's roles.",
            ));
        }
    }
    if let Some(zone) = &user.timezone
        && jiff::tz::TimeZone::get(zone).is_err()
    {
        found.push(Violation::new(
            "timezone",
            "The value you selected is not a valid choice.",
            "Give an IANA name such as Europe/Berlin.",
        ));
    }
    let languages = [
        ("langcode", Some(&user.langcode)),
        ("preferred_langcode", user.preferred_langcode.as_ref()),
        ("preferred_admin_langcode", user.preferred_admin_langcode.as_ref()),
    ];
    for (location, code) in languages {
        if code.is_some_and(|code| !is_language(code)) {
            found.push(Violation::new(
                location,
                "The value you selected is not a valid choice.",
                "Give a language tag such as en or pt-br.",
            ));
        }
    }
    for (name, value) in &user.attributes {
        if name.is_empty() || name.len() > 64 || value.len() > 512 || user.attributes.len() > 16 {
            found.push(Violation::new(
                format!("attributes.{name}"),
                "A user has at most 16 attributes, with names of 1 to 64 and values of up to 512 bytes.",
                "Keep larger data in another system.",
            ));
        }
    }
    found
}

/// Checks that the uid and the UUID of a user stay, because other records refer to them.
pub(super) fn check_identity(before: &User, after: &User) -> Vec<Violation> {
    let unchanged = [("uid", before.uid == after.uid), ("uuid", before.uuid == after.uuid)];
    let changed = unchanged.iter().filter(|(_, is_same)| !is_same);
    changed
        .map(|(location, _)| {
            Violation::new(
                *location,
                format!("The {location} of a user cannot be changed."),
                "Leave this field out, or create a new user.",
            )
        })
        .collect()
}

/// Whether a text has the length and the characters of a language tag (BCP 47).
fn is_language(code: &str) -> bool {
    (2..=12).contains(&code.len())
        && code
            .split('-')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Whether a user exists and has all permissions in `scopes`. `None` stands for a key without
/// scopes, which needs no permission.
pub(super) fn has_scopes(accounts: &Accounts, uid: u64, scopes: Option<&[String]>) -> bool {
    let directory = accounts.directory();
    let policy = directory.policy();
    let Some(owner) = directory.user(uid) else { return false };
    let roles = owner.roles(&policy.roles);
    scopes.is_none_or(|scopes| scopes.iter().all(|scope| policy.roles.allows(roles, scope)))
}

pub(super) fn check_key(accounts: &Accounts, key: &Key, now: Timestamp) -> Vec<Violation> {
    let mut found = Vec::new();
    if key.label.len() > MAX_LABEL || key.label.chars().any(char::is_control) {
        found.push(Violation::new(
            "label",
            format!("A label is at most {MAX_LABEL} bytes of text on one line."),
            "Say in a few words who uses the key.",
        ));
    }
    if key.expires.is_some_and(|time| time <= now) {
        found.push(Violation::new(
            "expires",
            "The expiry is not in the future.",
            "Give a time in the future (RFC 3339).",
        ));
    }
    let policy = accounts.directory().policy();
    if let Some(id) = &key.application
        && policy.applications.get(id).is_none()
    {
        found.push(Violation::new(
            "application",
            format!("There is no application {id:?}."),
            "Name an existing application, or leave this field out to allow every application.",
        ));
    }
    if key.universal {
        let id = key.application.as_deref();
        let application = id.and_then(|id| policy.applications.get(id));
        if application
            .is_none_or(|application| application.record.key_source != KeySource::Universal)
        {
            found.push(Violation::new(
                "universal",
                "A universal key needs an application whose key_source is universal.",
                "Name such an application, or create a key that is not universal.",
            ));
        }
    }
    if key.networks.len() > MAX_NETWORKS {
        found.push(Violation::new(
            "networks",
            format!("A key lists at most {MAX_NETWORKS} networks."),
            "Combine several networks into a larger network.",
        ));
    }
    found
}

/// Checks that the scopes of a new key are permissions that its user has. If the user loses a
/// permission later, the key loses that permission too.
pub(super) fn check_scopes(accounts: &Accounts, key: &Key) -> Vec<Violation> {
    let directory = accounts.directory();
    let policy = directory.policy();
    let owner = directory.user(key.user);
    let user_has = |scope: &str| {
        let roles = owner.as_ref().map(|owner| owner.roles(&policy.roles));
        roles.is_some_and(|roles| policy.roles.allows(roles, scope))
    };
    let mut found = Vec::new();
    // The users that a universal key will act as are not known yet, so any scope is allowed.
    let is_allowed = |scope: &str| key.universal || user_has(scope);
    for (index, scope) in key.scopes.iter().flatten().enumerate() {
        if scope.is_empty() || scope.len() > 128 {
            found.push(Violation::new(
                format!("scopes.{index}"),
                format!("{scope:?} is not a valid permission: it must have 1 to 128 bytes."),
                "Name a permission of the user, such as access user profiles.",
            ));
        } else if !is_allowed(scope) {
            found.push(Violation::new(
                format!("scopes.{index}"),
                format!("The user does not have the permission {scope:?}."),
                "Name a permission that a role of the user grants, or give the user a role first.",
            ));
        }
    }
    found
}

pub(super) fn check_resource(accounts: &Accounts, resource: &Resource) -> Vec<Violation> {
    let mut found = check_resource_alone(accounts, resource);
    if found.is_empty() {
        let policy = accounts.directory().policy();
        let others = policy.routes.resources().filter(|other| other.id != resource.id);
        let all = others.map(|other| (**other).clone()).chain([resource.clone()]);
        found.extend(Routes::new(all).1);
    }
    found
}

/// Checks a resource by all rules that do not depend on other resources.
pub(super) fn check_resource_alone(accounts: &Accounts, resource: &Resource) -> Vec<Violation> {
    let mut found = resource.check();
    let policy = accounts.directory().policy();
    for id in resource.rules.each().flat_map(|rules| rules.authentication) {
        let is_known = id == "*" || id == "anonymous" || policy.applications.get(&id).is_some();
        let message = format!("There is no application {id:?}.");
        if !is_known && !found.iter().any(|violation| violation.message == message) {
            found.push(Violation::new(
                "authentication",
                message,
                "Name application ids, * for every application, or anonymous.",
            ));
        }
    }
    for (index, id) in resource.applications.iter().enumerate() {
        if policy.applications.get(id).is_none() {
            found.push(Violation::new(
                format!("applications.{index}"),
                format!("There is no application {id:?}."),
                "Name application ids.",
            ));
        }
    }
    if let Some(name) = resource.handler.script()
        && !accounts.scripts().is_none()
        && accounts.scripts().current().handler(name).is_none()
    {
        found.push(Violation::new(
            "handler",
            format!("There is no script handlers/{name}.rhai."),
            "Write the script first.",
        ));
    }
    found
}

pub(super) fn check_application(accounts: &Accounts, application: &Application) -> Vec<Violation> {
    let mut found = application.check();
    // Only a server loads scripts. Elsewhere this check is skipped, and the next start of the
    // server checks the script's name.
    if let Some(name) = application.auth_type.script()
        && !accounts.scripts().is_none()
        && accounts.scripts().current().auth(name).is_none()
    {
        found.push(Violation::new(
            "type",
            format!("{name:?} is not an authentication type: there is no script auth/{name}.rhai."),
            "Use api_key, basic or bearer, or write the script first.",
        ));
    }
    if application.key_source == KeySource::Universal {
        tracing::warn!(
            application = application.id,
            administrators = application.universal_administrators,
            "a universal key of this application can act as any of its users"
        );
    }
    if application.is_default && !application.enabled {
        // A disabled default is allowed, but every request without AUTH-METHOD becomes anonymous.
        tracing::warn!(
            application = application.id,
            "the default application is off: requests without AUTH-METHOD are anonymous"
        );
    }
    found
}

/// Returns an error if there are violations.
pub(super) fn ensure_valid(violations: Vec<Violation>) -> Result<(), AccountError> {
    if violations.is_empty() { Ok(()) } else { Err(AccountError::Invalid(violations)) }
}
