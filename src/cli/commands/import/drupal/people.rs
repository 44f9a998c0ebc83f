//! The users of a Drupal site, as rows for the API, in batches.

use serde_json::{Value, json};

use super::{
    row::Row,
    rows::{Rows, Source},
    site::{Site, uid},
};
use crate::{
    cli::CliError,
    model::{ADMINISTRATOR, Timestamp},
};

/// The number of users in one request.
const BATCH: usize = 500;

/// A user of the site.
pub(super) struct Person {
    /// The number of the row in the table of users. The API names it in its messages.
    pub number: u64,
    /// The line of the dump, and the name, for messages.
    pub place: String,
    /// The row for the import of users.
    pub user: Value,
    /// The row for the import of keys.
    pub key: Option<Value>,
}

/// Reads the users of a site in batches.
pub(super) struct People<'a> {
    source: &'a Source,
    site: &'a Site,
    rows: Rows,
    number: u64,
    /// The rows that cannot be read: the number and the message.
    pub faults: Vec<(u64, String)>,
    is_end: bool,
}

impl<'a> People<'a> {
    pub fn new(source: &'a Source, site: &'a Site) -> Result<Self, CliError> {
        let rows = source.rows(&["users_field_data"])?;
        Ok(Self { source, site, rows, number: 0, faults: Vec::new(), is_end: false })
    }

    /// Reads the next users. An empty batch means the end.
    pub fn batch(&mut self) -> Result<Vec<Person>, CliError> {
        let mut batch = Vec::new();
        while batch.len() < BATCH && !self.is_end {
            let row = self.rows.next().map_err(|problem| self.source.failed(&problem))?;
            let Some(row) = row else {
                self.is_end = true;
                break;
            };
            self.number += 1;
            match self.person(&row) {
                Ok(person) => batch.extend(person),
                Err(problem) => {
                    let place = format!("line {}: {problem}", row.line);
                    self.faults.push((self.number, place));
                }
            }
        }
        Ok(batch)
    }

    /// The user of a row. `None` means the anonymous user, or a translation.
    fn person(&self, row: &Row) -> Result<Option<Person>, String> {
        let uid = uid(row, "uid")?.ok_or("The uid is missing.")?;
        if uid == 0 || row.flag("default_langcode")? == Some(false) {
            return Ok(None);
        }
        let name = row.text("name")?.ok_or("The name is missing.")?;
        let mut roles: Vec<&str> = self.site.roles_of(uid).iter().map(|role| &**role).collect();
        // The first user of a Drupal site has all permissions.
        if uid == 1 && !roles.contains(&ADMINISTRATOR) {
            roles.push(ADMINISTRATOR);
        }
        let mut user = json!({
            "line": self.number,
            "uid": uid,
            "username": name,
            "active": row.flag("status")?.unwrap_or(false),
            "roles": roles,
        });
        let texts = [
            ("mail", "mail"),
            ("init", "init"),
            ("langcode", "langcode"),
            ("preferred_langcode", "preferred_langcode"),
            ("preferred_admin_langcode", "preferred_admin_langcode"),
            ("timezone", "timezone"),
            ("pass", "password_digest"),
        ];
        for (column, field) in texts {
            if let Some(text) = row.text(column)? {
                user[field] = text.into();
            }
        }
        for column in ["created", "access", "login"] {
            if let Some(time) = row.number(column)?.filter(|time| *time != 0) {
                user[column] = Timestamp(time).to_string().into();
            }
        }
        if let Some(uuid) = self.site.uuid_of(uid) {
            user["uuid"] = uuid.into();
        }
        if let Some(attributes) = self.site.attributes_of(uid) {
            user["attributes"] = json!(attributes);
        }
        let key = match row.text("api_key")? {
            Some(key) => Some(key),
            None => self.site.key_of(uid).map(|key| key.expose()),
        };
        let key = key.map(
            |key| json!({ "line": self.number, "username": name, "key": key, "label": "Drupal" }),
        );
        let place = format!("line {}, user {name}", row.line);
        Ok(Some(Person { number: self.number, place, user, key }))
    }
}
