//! Plans the roles and applications of an import, and writes them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    Drupal,
    site::{DrupalApplication, DrupalRole, Method, Site},
};
use crate::{
    cli::{CliError, Session, client::paths::path},
    model::{ADMINISTRATOR, SHIPPED, Secret},
};

/// The roles and applications to write.
#[derive(Debug)]
pub(super) struct Plan {
    /// The ids of the roles that the server has already.
    pub known_roles: BTreeSet<String>,
    pub new_roles: Vec<Value>,
    /// The permissions to add to existing roles, by the ids of the roles.
    added_permissions: BTreeMap<String, Vec<String>>,
    pub new_applications: Vec<Value>,
    /// The universal key, and the id of the application that accepts it.
    pub universal: Option<(Secret, String)>,
    /// Everything that the operator should know.
    pub notes: Vec<String>,
}

impl Plan {
    /// Compares the site with the records of the server.
    pub async fn new(site: &Site, options: &Drupal, session: &Session) -> Result<Self, CliError> {
        let roles = all(session, "roles").await?;
        let applications = all(session, "applications").await?;
        let resources = all(session, "resources").await?;
        let mut plan = Self {
            known_roles: roles.iter().filter_map(|role| text(role, "id")).collect(),
            new_roles: Vec::new(),
            added_permissions: BTreeMap::new(),
            new_applications: Vec::new(),
            universal: None,
            notes: site.faults.clone(),
        };
        let mut checked: BTreeSet<String> = SHIPPED.iter().map(|name| (*name).to_owned()).collect();
        for resource in &resources {
            collect_permissions(&resource["permissions"], &mut checked);
        }
        let mut left_out = BTreeSet::new();
        for (id, role) in &site.roles {
            let is_wanted = |name: &&String| options.all_permissions || checked.contains(*name);
            let permissions: Vec<String> =
                role.permissions.iter().filter(is_wanted).cloned().collect();
            left_out.extend(role.permissions.iter().filter(|name| !is_wanted(name)).cloned());
            match roles.iter().find(|known| text(known, "id").as_ref() == Some(id)) {
                Some(known) => plan.add_to_role(id, known, permissions, options),
                None => plan.new_roles.push(new_role(id, role, permissions)),
            }
        }
        if !left_out.is_empty() {
            let names: Vec<&str> = left_out.iter().take(5).map(String::as_str).collect();
            plan.notes.push(format!(
                "{} permissions that neither Keyward nor a resource checks are left out ({}{}); \
                 --all-permissions imports them.",
                left_out.len(),
                names.join(", "),
                if left_out.len() > names.len() { ", …" } else { "" },
            ));
        }
        if !plan.known_roles.contains(ADMINISTRATOR) && !site.roles.contains_key(ADMINISTRATOR) {
            plan.new_roles.push(json!({
                "id": ADMINISTRATOR, "label": "Administrator", "is_admin": true,
            }));
        }
        plan.add_applications(site, options, &applications);
        Ok(plan)
    }

    /// Plans the permissions that an existing role gets. The locked roles get them always, because
    /// they exist on every server.
    fn add_to_role(&mut self, id: &str, known: &Value, permissions: Vec<String>, options: &Drupal) {
        let has: BTreeSet<String> = words(&known["permissions"]).into_iter().collect();
        let missing: Vec<String> =
            permissions.into_iter().filter(|name| !has.contains(name)).collect();
        if missing.is_empty() || known["is_admin"] == true {
            return;
        }
        if options.update || crate::model::Role::is_locked(id) {
            self.notes.push(format!("The role {id} gets: {}.", missing.join(", ")));
            self.added_permissions.insert(id.to_owned(), missing);
        } else {
            self.notes.push(format!(
                "The role {id} exists, and does not get: {}; --update adds them.",
                missing.join(", ")
            ));
        }
    }

    fn add_applications(&mut self, site: &Site, options: &Drupal, existing: &[Value]) {
        let is_universal = match &site.universal_key {
            Some(_) if options.universal_key => true,
            Some(_) if site.has_keys => {
                self.notes.push(
                    "The module's universal key is not imported, because users have keys of their \
                     own; --universal-key imports it instead."
                        .into(),
                );
                false
            }
            key => key.is_some(),
        };
        let mut universal = Vec::new();
        for application in &site.applications {
            let id = &application.id;
            if application.method == Method::Other {
                self.notes
                    .push(format!("The application {id} uses OAuth or JWT, and is not imported."));
                continue;
            }
            if existing.iter().any(|known| text(known, "id").as_ref() == Some(id)) {
                self.notes.push(format!("The application {id} exists, and stays as it is."));
            } else {
                self.new_applications.push(new_application(application, is_universal));
            }
            if is_universal && application.method == Method::Key {
                universal.push((id.clone(), application.is_default));
            }
        }
        let Some(key) = site.universal_key.as_ref().filter(|_| !universal.is_empty()) else {
            return;
        };
        // A text can be the key of one application only.
        let default = universal.iter().position(|(_, is_default)| *is_default).unwrap_or_default();
        let (application, _) = universal.swap_remove(default);
        for (other, _) in universal {
            self.notes.push(format!(
                "The universal key works with the application {application} only: generate another \
                 key for {other} (keyward key generate --universal --app {other})."
            ));
        }
        self.universal = Some((key.clone(), application));
    }

    /// Writes the roles and the applications.
    pub async fn write_policy(&self, session: &Session) -> Result<(), CliError> {
        for role in &self.new_roles {
            session.client.post(&path(&["roles"]), role).await?;
        }
        for (id, added) in &self.added_permissions {
            let target = path(&["roles", id]);
            let role = session.client.get(&target).await?;
            let mut permissions = words(&role.body["permissions"]);
            permissions.extend(added.iter().cloned());
            let change = json!({ "permissions": permissions });
            session.client.patch(&target, &change, role.etag).await?;
        }
        for application in &self.new_applications {
            session.client.post(&path(&["applications"]), application).await?;
        }
        Ok(())
    }
}

fn new_role(id: &str, role: &DrupalRole, permissions: Vec<String>) -> Value {
    let permissions = if role.is_admin { Vec::new() } else { permissions };
    json!({
        "id": id,
        "label": role.label,
        "weight": role.weight,
        "is_admin": role.is_admin,
        "permissions": permissions,
    })
}

fn new_application(application: &DrupalApplication, is_universal: bool) -> Value {
    let DrupalApplication { id, name, is_default, method, header } = application;
    let mut record = json!({
        "id": id,
        "name": name,
        "type": if *method == Method::Password { "basic" } else { "api_key" },
        "header": header,
        "is_default": is_default,
    });
    if is_universal && *method == Method::Key {
        record["key_source"] = "universal".into();
    }
    record
}

/// All records of a kind.
async fn all(session: &Session, kind: &str) -> Result<Vec<Value>, CliError> {
    let (mut records, mut cursor) = (Vec::new(), None);
    loop {
        let (items, next) = session.page(&path(&[kind]), 100, cursor.as_deref()).await?;
        records.extend(items);
        match next {
            Some(_) => cursor = next,
            None => return Ok(records),
        }
    }
}

fn text(record: &Value, name: &str) -> Option<String> {
    record[name].as_str().map(str::to_owned)
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Collects the texts of a value: the permissions of a resource, for all or for single methods.
fn collect_permissions(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(found.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| collect_permissions(item, found)),
        Value::Object(fields) => {
            fields.values().for_each(|value| collect_permissions(value, found))
        }
        _ => {}
    }
}
