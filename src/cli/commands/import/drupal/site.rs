//! Collects everything about a Drupal site except its users: roles, keys, and the settings of the
//! module that Keyward replaces.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::model::{ANONYMOUS, AUTHENTICATED, Secret};

use super::{php::Php, row::Row, rows::Source};
use crate::cli::CliError;

/// The configuration object of the module *REST & JSON API Authentication*.
const MODULE: &str = "rest_api_authentication.settings";
/// The beginning of the names of configuration objects of roles.
const ROLE: &str = "user.role.";
/// The maximum number of roles and of applications.
const MAX_RECORDS: usize = 1000;

/// A site, without its users.
#[derive(Debug, Default)]
pub(super) struct Site {
    pub roles: BTreeMap<String, DrupalRole>,
    pub applications: Vec<DrupalApplication>,
    /// The key that authenticates any user.
    pub universal_key: Option<Secret>,
    pub largest_uid: u64,
    /// Whether users have keys of their own.
    pub has_keys: bool,
    roles_of: HashMap<u64, Vec<Arc<str>>>,
    uuids: HashMap<u64, String>,
    keys_of: HashMap<u64, Secret>,
    attributes_of: HashMap<u64, BTreeMap<String, String>>,
    /// The records that cannot be read.
    pub faults: Vec<String>,
}

/// A role of the site.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct DrupalRole {
    pub label: String,
    pub weight: i64,
    pub is_admin: bool,
    pub permissions: Vec<String>,
}

/// An application of the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DrupalApplication {
    pub id: String,
    pub name: String,
    pub is_default: bool,
    pub method: Method,
    /// The header field of the credential.
    pub header: String,
}

/// The authentication method of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// A name and a password.
    Password,
    /// A name and an API key.
    Key,
    /// OAuth or JWT, which Keyward does not know.
    Other,
}

/// The places of the database that are read beside Drupal's own tables.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The table and the column of the keys, beside those that are known.
    pub keys: Option<(String, String)>,
    /// The fields of users, each with its attribute.
    pub fields: Vec<(String, String)>,
}

impl Site {
    /// Reads the site.
    pub fn read(source: &Source, places: &Places) -> Result<Self, CliError> {
        let mut site = Self::default();
        let field_tables: Vec<String> =
            places.fields.iter().map(|(field, _)| format!("user__{field}")).collect();
        let mut tables = vec!["users", "user__roles", "config", "users_field_data", "key_auth"];
        tables.extend(places.keys.iter().map(|(table, _)| table.as_str()));
        tables.extend(field_tables.iter().map(String::as_str));
        let mut rows = source.rows(&tables)?;
        while let Some(row) = rows.next().map_err(|problem| source.failed(&problem))? {
            if let Err(problem) = site.add(&row, places) {
                site.faults.push(format!("{}, line {}: {problem}", row.table, row.line));
            }
        }
        Ok(site)
    }

    /// The ids of the roles of a user.
    pub fn roles_of(&self, uid: u64) -> &[Arc<str>] {
        self.roles_of.get(&uid).map_or(&[], Vec::as_slice)
    }

    pub fn uuid_of(&self, uid: u64) -> Option<&str> {
        self.uuids.get(&uid).map(String::as_str)
    }

    /// The key of a user from another table than that of the users.
    pub fn key_of(&self, uid: u64) -> Option<&Secret> {
        self.keys_of.get(&uid)
    }

    /// The attributes of a user, from fields of the site.
    pub fn attributes_of(&self, uid: u64) -> Option<&BTreeMap<String, String>> {
        self.attributes_of.get(&uid)
    }

    fn add(&mut self, row: &Row, places: &Places) -> Result<(), String> {
        match &*row.table {
            "users" => {
                let uuid = row.text("uuid")?;
                if let (Some(uid), Some(uuid)) = (uid(row, "uid")?, uuid) {
                    self.uuids.insert(uid, uuid.to_owned());
                }
            }
            "users_field_data" => {
                self.largest_uid = self.largest_uid.max(uid(row, "uid")?.unwrap_or_default());
                self.has_keys |= row.text("api_key")?.is_some();
            }
            "user__roles" => self.add_role_of_user(row)?,
            "config" => self.add_config(row)?,
            _ => {}
        }
        let is_key_table = places.keys.as_ref().is_some_and(|(table, _)| **table == *row.table);
        if is_key_table || *row.table == *"key_auth" {
            let column = places.keys.as_ref().filter(|_| is_key_table).map(|(_, column)| column);
            let key = match column {
                Some(column) => row.text(column)?,
                None => row.text("api_key")?.or(row.text("key")?),
            };
            if let (Some(uid), Some(key)) = (owner(row)?, key) {
                self.keys_of.insert(uid, Secret::new(key));
                self.has_keys = true;
            }
        }
        for (field, attribute) in &places.fields {
            if row.table.strip_prefix("user__") == Some(field)
                && let (Some(uid), Some(value)) =
                    (owner(row)?, row.text(&format!("{field}_value"))?)
            {
                let attributes = self.attributes_of.entry(uid).or_default();
                attributes.entry(attribute.clone()).or_insert_with(|| value.to_owned());
            }
        }
        Ok(())
    }

    fn add_role_of_user(&mut self, row: &Row) -> Result<(), String> {
        if row.flag("deleted")? == Some(true) {
            return Ok(());
        }
        let (Some(uid), Some(role)) = (owner(row)?, row.text("roles_target_id")?) else {
            return Ok(());
        };
        if [ANONYMOUS, AUTHENTICATED].contains(&role) {
            return Ok(());
        }
        // A role whose configuration is not in the dump has no permissions.
        if !self.roles.contains_key(role) && self.roles.len() < MAX_RECORDS {
            let unknown = DrupalRole { label: role.to_owned(), ..DrupalRole::default() };
            self.roles.insert(role.to_owned(), unknown);
        }
        let roles = self.roles_of.entry(uid).or_default();
        if !roles.iter().any(|known| **known == *role) {
            roles.push(role.into());
        }
        Ok(())
    }

    fn add_config(&mut self, row: &Row) -> Result<(), String> {
        let name = row.text("name")?.unwrap_or_default().to_owned();
        if row.text("collection")?.is_some() || !(name == MODULE || name.starts_with(ROLE)) {
            return Ok(());
        }
        let data = row.bytes("data")?.unwrap_or_default();
        let data = match data.strip_prefix(b"\\x") {
            // PostgreSQL writes bytes in hexadecimal digits.
            Some(digits) => hex::decode(digits).map_err(|_| "The data cannot be read.")?,
            None => data.to_vec(),
        };
        let unreadable = || format!("The configuration {name} cannot be read.");
        let value = Php::parse(&data).ok_or_else(unreadable)?;
        match name.strip_prefix(ROLE) {
            Some(id) if self.roles.len() < MAX_RECORDS => {
                self.roles.insert(id.to_owned(), role(id, &value));
            }
            Some(_) => {}
            None => self.add_settings(&value),
        }
        Ok(())
    }

    fn add_settings(&mut self, settings: &Php) {
        let text = |value: &Php, name: &str| value.get(name).and_then(Php::text);
        self.universal_key =
            text(settings, "api_token").filter(|key| !key.is_empty()).map(Secret::new);
        let default = text(settings, "default_application_id");
        let custom_header = text(settings, "custom_header").filter(|name| !name.is_empty());
        let applications = settings.get("applications").map_or(&[][..], Php::entries);
        for (id, application) in applications.iter().take(MAX_RECORDS) {
            let Some(id) = id.text() else { continue };
            let own = |name: &str| text(application, name).or_else(|| text(settings, name));
            let method = match own("authentication_method").as_deref() {
                Some("0") | None => Method::Password,
                Some("1") => Method::Key,
                Some(_) => Method::Other,
            };
            let is_key_header =
                method == Method::Key && own("rest_api_auth_type").as_deref() == Some("1");
            let header = match (&custom_header, method) {
                _ if is_key_header => "API-KEY",
                (Some(header), Method::Password) => header,
                _ => "Authorization",
            };
            let names = ["application_name", "app_name", "name", "label"];
            let name = names.iter().find_map(|name| text(application, name));
            self.applications.push(DrupalApplication {
                name: name.filter(|name| !name.is_empty()).unwrap_or_else(|| id.clone()),
                is_default: default.as_deref() == Some(&id)
                    || application.get("is_default").is_some_and(Php::is_true),
                method,
                header: header.to_owned(),
                id,
            });
        }
    }
}

fn role(id: &str, value: &Php) -> DrupalRole {
    let permissions = value.get("permissions").map_or(&[][..], Php::entries);
    DrupalRole {
        label: value.get("label").and_then(Php::text).unwrap_or_else(|| id.to_owned()),
        weight: match value.get("weight") {
            Some(Php::Int(weight)) => *weight,
            _ => 0,
        },
        is_admin: value.get("is_admin").is_some_and(Php::is_true),
        permissions: permissions.iter().filter_map(|(_, name)| name.text()).collect(),
    }
}

/// The uid of the user to whom a row of another table belongs.
fn owner(row: &Row) -> Result<Option<u64>, String> {
    for column in ["entity_id", "uid", "user_id"] {
        if let Some(uid) = uid(row, column)? {
            return Ok(Some(uid));
        }
    }
    Ok(None)
}

/// A number of a user.
pub(super) fn uid(row: &Row, column: &str) -> Result<Option<u64>, String> {
    let Some(number) = row.number(column)? else { return Ok(None) };
    u64::try_from(number).map(Some).map_err(|_| format!("The value of {column} is negative."))
}
