//! The policy: the records that every authorization decision reads, in compiled form. Roles become
//! bit sets, applications get their header name and challenge, resources become routes.
//!
//! A [`Policy`] never changes. A commit that changes one of these records compiles a new policy and
//! replaces the current policy.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderName, HeaderValue};

use super::Routes;
use crate::{
    limits::Bounds,
    model::{ANONYMOUS, AUTHENTICATED, Application, AuthType, Permissions, Role, SHIPPED},
};

/// The compiled roles, applications and resources.
#[derive(Clone, Default)]
pub struct Policy {
    /// Roles.
    pub roles: Arc<RoleTable>,
    /// Applications.
    pub applications: Arc<Applications>,
    /// Resources.
    pub routes: Arc<Routes>,
}

/// The roles, and every combination of them that a user has.
#[derive(Default)]
pub struct RoleTable {
    /// The bit of each permission.
    bits: HashMap<String, u32>,
    roles: HashMap<String, Role>,
    /// The combinations of roles that users have, by number.
    sets: Vec<RoleSet>,
    anonymous: RoleSet,
    empty: RoleSet,
    operator: RoleSet,
}

/// A combination of roles with its permissions.
#[derive(Clone, Default)]
pub struct RoleSet {
    /// The ids of the roles, sorted, without `authenticated`.
    pub ids: Arc<[String]>,
    /// The ids separated by commas, as a header field's value. `None` means that there are no
    /// roles.
    pub field: Option<HeaderValue>,
    /// Whether one of the roles has every permission.
    pub is_admin: bool,
    permissions: Permissions,
}

impl RoleTable {
    /// The number of the operator's combination, which has every permission.
    pub(in crate::directory) const OPERATOR: u32 = u32::MAX;

    /// Compiles `roles` for the combinations in `sets`. A combination's number is its index.
    pub(in crate::directory) fn new(roles: HashMap<String, Role>, sets: &[Arc<[String]>]) -> Self {
        let mut bits = HashMap::new();
        let named = roles.values().flat_map(|role| &role.permissions);
        for permission in SHIPPED.iter().map(|p| (*p).to_owned()).chain(named.cloned()) {
            let next = bits.len() as u32;
            bits.entry(permission).or_insert(next);
        }
        let compile = |ids: &Arc<[String]>, implied: &str| {
            let field = HeaderValue::try_from(ids.join(",")).ok().filter(|field| !field.is_empty());
            let mut set = RoleSet { ids: ids.clone(), field, ..RoleSet::default() };
            let all_ids = ids.iter().map(String::as_str).chain([implied]);
            for role in all_ids.filter_map(|id| roles.get(id)) {
                set.is_admin |= role.is_admin;
                for permission in &role.permissions {
                    set.permissions.insert(bits[permission]);
                }
            }
            set
        };
        let anonymous = compile(&Arc::default(), ANONYMOUS);
        let sets = sets.iter().map(|ids| compile(ids, AUTHENTICATED)).collect();
        Self {
            bits,
            roles,
            sets,
            anonymous,
            empty: RoleSet::default(),
            operator: RoleSet { is_admin: true, ..RoleSet::default() },
        }
    }

    /// The role with this id.
    pub fn role(&self, id: &str) -> Option<&Role> {
        self.roles.get(id)
    }

    /// All roles, in undefined order.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values()
    }

    /// Whether one of these roles is an administrator role.
    pub fn has_administrators(&self, ids: &[String]) -> bool {
        ids.iter().any(|id| self.role(id).is_some_and(|role| role.is_admin))
    }

    /// The combination with this number, or an empty one if the combination is newer than this
    /// table. So a request is denied if it began before a commit and reads a user whom the commit
    /// gave a new combination.
    pub(in crate::directory) fn role_set(&self, number: u32) -> &RoleSet {
        match number {
            Self::OPERATOR => &self.operator,
            _ => self.sets.get(number as usize).unwrap_or(&self.empty),
        }
    }

    /// The roles of an anonymous request.
    pub fn anonymous(&self) -> &RoleSet {
        &self.anonymous
    }

    /// Whether `set` includes `permission`.
    pub fn allows(&self, set: &RoleSet, permission: &str) -> bool {
        set.is_admin || self.bits.get(permission).is_some_and(|bit| set.permissions.contains(*bit))
    }
}

/// The applications.
pub struct Applications {
    by_id: HashMap<String, Arc<CompiledApplication>>,
    default: Option<Arc<CompiledApplication>>,
    operator: CompiledApplication,
    credential_fields: HeaderValue,
}

impl Default for Applications {
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

/// An application with the values that are derived from its record.
#[derive(Debug)]
pub struct CompiledApplication {
    /// The record.
    pub record: Application,
    /// The name of the header field that carries the credential.
    pub header: HeaderName,
    /// The application's id, as a header field's value.
    pub field: HeaderValue,
    /// The value of `WWW-Authenticate` in a 401 response (RFC 9110, section 11.6.1).
    pub challenge: HeaderValue,
    /// The challenge in the response to a request whose credential was rejected: with the error of
    /// RFC 6750, if the scheme is `Bearer`.
    pub rejection: HeaderValue,
    /// The limits that all clients of the application share. `None` means no limits.
    pub bounds: Option<Arc<Bounds>>,
}

impl Applications {
    pub(in crate::directory) fn new(all: impl Iterator<Item = CompiledApplication>) -> Self {
        let by_id: HashMap<_, _> =
            all.map(|application| (application.record.id.clone(), Arc::new(application))).collect();
        let default = by_id.values().find(|application| application.record.is_default).cloned();
        let credential_fields = credential_fields(default.as_deref(), by_id.values());
        let operator = CompiledApplication::new(Application::operator(), None);
        Self { by_id, default, operator, credential_fields }
    }

    /// The request fields that can carry a credential of any application, as the value of `Vary`.
    pub fn credential_fields(&self) -> &HeaderValue {
        &self.credential_fields
    }

    /// The application that `AUTH-METHOD` names.
    pub fn get(&self, id: &str) -> Option<&Arc<CompiledApplication>> {
        self.by_id.get(id)
    }

    /// The application of requests without `AUTH-METHOD`. `None` means that no application is the
    /// default.
    pub fn default(&self) -> Option<&Arc<CompiledApplication>> {
        self.default.as_ref()
    }

    /// The operator's application, which [`Applications::get`] does not find.
    pub fn operator(&self) -> &CompiledApplication {
        &self.operator
    }

    /// All applications, in undefined order.
    pub fn all(&self) -> impl Iterator<Item = &Application> {
        self.by_id.values().map(|application| &application.record)
    }
}

/// `AUTH-METHOD` and the header fields of the applications, the default application's first.
fn credential_fields<'a>(
    default: Option<&'a CompiledApplication>,
    all: impl Iterator<Item = &'a Arc<CompiledApplication>>,
) -> HeaderValue {
    let default = default.map(|application| &application.record.header);
    let mut others: Vec<&String> = all.map(|application| &application.record.header).collect();
    others.sort();
    let mut names = vec!["AUTH-METHOD"];
    for name in default.into_iter().chain(others) {
        if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            names.push(name);
        }
    }
    HeaderValue::try_from(names.join(", ")).unwrap_or(HeaderValue::from_static("*"))
}

impl CompiledApplication {
    /// Compiles a record that passed [`Application::check`].
    pub fn new(record: Application, bounds: Option<Arc<Bounds>>) -> Self {
        let header = HeaderName::from_bytes(record.header.to_ascii_lowercase().as_bytes())
            .unwrap_or(HeaderName::from_static("api-key"));
        let realm = quoted(&record.realm);
        let challenge = match (&record.auth_type, record.reads_authorization()) {
            (AuthType::Script(name), _) => {
                format!("{name} realm=\"{realm}\", header=\"{}\"", record.header)
            }
            (AuthType::Bearer, true) => format!("Bearer realm=\"{realm}\""),
            (_, true) => format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
            (_, false) => format!("ApiKey realm=\"{realm}\", header=\"{}\"", record.header),
        };
        let challenge = HeaderValue::from_str(&challenge)
            .unwrap_or(HeaderValue::from_static("ApiKey realm=\"Keyward\""));
        let rejection = match challenge.to_str() {
            Ok(text) if text.starts_with("Bearer ") => {
                HeaderValue::try_from(format!("{text}, error=\"invalid_token\"")).ok()
            }
            _ => None,
        };
        let rejection = rejection.unwrap_or_else(|| challenge.clone());
        let field = HeaderValue::from_str(&record.id).unwrap_or(HeaderValue::from_static(""));
        Self { record, header, field, challenge, rejection, bounds }
    }

    /// The realm, escaped for a quoted string (RFC 9110, section 5.6.4).
    pub fn quoted_realm(&self) -> String {
        quoted(&self.record.realm)
    }
}

/// A text, escaped for a quoted string.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(id: &str, is_admin: bool, permissions: &[&str]) -> (String, Role) {
        let role = Role {
            id: id.into(),
            label: id.into(),
            weight: 0,
            is_admin,
            permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
        };
        (id.to_owned(), role)
    }

    #[test]
    fn role_set_includes_its_roles_and_the_implied_role() {
        let roles = HashMap::from([
            role("authenticated", false, &["read"]),
            role("anonymous", false, &["look"]),
            role("editor", false, &["write"]),
            role("boss", true, &[]),
        ]);
        let sets: Vec<Arc<[String]>> = vec![
            Arc::default(),
            Arc::from(["editor".to_owned(), "gone".to_owned()]),
            Arc::from(["boss".to_owned()]),
        ];
        let table = RoleTable::new(roles, &sets);
        let allowed =
            |set: &RoleSet| ["look", "read", "write", "unknown"].map(|p| table.allows(set, p));
        assert_eq!(allowed(table.anonymous()), [true, false, false, false]);
        assert_eq!(allowed(table.role_set(0)), [false, true, false, false]);
        assert_eq!(allowed(table.role_set(1)), [false, true, true, false]);
        assert_eq!(allowed(table.role_set(2)), [true, true, true, true]);
    }

    #[test]
    fn quotes_in_a_realm_are_escaped() {
        let mut record = Application::api_key("a", "A");
        record.realm = r#"x", charset="y\"#.into();
        let application = CompiledApplication::new(record, None);
        assert_eq!(
            application.challenge.to_str().unwrap(),
            r#"ApiKey realm="x\", charset=\"y\\", header="API-KEY""#
        );
    }
}
