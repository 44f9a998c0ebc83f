//! The options of `keyward resource edit` that change single elements of lists, and the permissions
//! of single methods.

use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        CliError, Exit,
        client::lists::{ListEdit, Unset, unchanged},
    },
    model::{ANY_METHOD, method_of_record},
};

/// The lists of a resource that `edit` changes by element.
#[derive(Debug, Args)]
#[group(conflicts_with = "file")]
pub struct Elements {
    /// Add a method, and keep the others; repeatable
    #[arg(long = "add-method", value_name = "METHOD")]
    add_methods: Vec<String>,
    /// Remove a method and its permissions, and keep the others; repeatable
    #[arg(long = "remove-method", value_name = "METHOD")]
    remove_methods: Vec<String>,
    /// Add a format, and keep the others; repeatable
    #[arg(long = "add-format", value_name = "FORMAT")]
    add_formats: Vec<String>,
    /// Remove a format, and keep the others; repeatable
    #[arg(long = "remove-format", value_name = "FORMAT")]
    remove_formats: Vec<String>,
    /// Add an application's id, *, or anonymous, and keep the others; repeatable
    #[arg(long = "add-authentication", value_name = "ID")]
    add_authentication: Vec<String>,
    /// Remove an application's id, *, or anonymous, and keep the others; repeatable
    #[arg(long = "remove-authentication", value_name = "ID")]
    remove_authentication: Vec<String>,
    /// Add a permission to those that a method requires; repeatable
    #[arg(long = "add-permission", value_name = "METHOD=PERMISSION", value_parser = super::permission)]
    add_permissions: Vec<(String, String)>,
    /// Remove a permission from those that a method requires; repeatable
    #[arg(long = "remove-permission", value_name = "METHOD=PERMISSION", value_parser = super::permission)]
    remove_permissions: Vec<(String, String)>,
    /// Remove all permissions that a method requires; repeatable
    #[arg(long = "no-permission", value_name = "METHOD")]
    no_permissions: Vec<String>,
    /// Add an application to those among which requests choose, as the last; repeatable
    #[arg(long = "add-application", value_name = "ID", conflicts_with = "no_applications")]
    add_applications: Vec<String>,
    /// Remove an application from those among which requests choose; repeatable
    #[arg(long = "remove-application", value_name = "ID", conflicts_with = "no_applications")]
    remove_applications: Vec<String>,
    /// For the handler proxy: add an upstream, and keep the others; repeatable
    #[arg(long = "add-upstream", value_name = "URL")]
    add_upstreams: Vec<String>,
    /// For the handler proxy: remove an upstream, and keep the others; repeatable
    #[arg(long = "remove-upstream", value_name = "URL")]
    remove_upstreams: Vec<String>,
    /// For the handler proxy: add a protocol that a connection may switch to; repeatable
    #[arg(long = "add-upgrade", value_name = "PROTOCOL")]
    add_upgrades: Vec<String>,
    /// For the handler proxy: remove a protocol that a connection may switch to; repeatable
    #[arg(long = "remove-upgrade", value_name = "PROTOCOL")]
    remove_upgrades: Vec<String>,
    /// For the handler proxy: add a header field about the client; repeatable
    #[arg(long = "add-forwarded", value_name = "FIELD")]
    add_forwarded: Vec<String>,
    /// For the handler proxy: remove a header field about the client; repeatable
    #[arg(long = "remove-forwarded", value_name = "FIELD")]
    remove_forwarded: Vec<String>,
    /// Add an origin whose pages may use the resource; repeatable
    #[arg(long = "add-cors-origin", value_name = "ORIGIN", conflicts_with = "no_cors")]
    add_cors_origins: Vec<String>,
    /// Remove an origin whose pages may use the resource; repeatable
    #[arg(long = "remove-cors-origin", value_name = "ORIGIN", conflicts_with = "no_cors")]
    remove_cors_origins: Vec<String>,
    /// Add a method that pages may use; repeatable
    #[arg(long = "add-cors-method", value_name = "METHOD", conflicts_with = "no_cors")]
    add_cors_methods: Vec<String>,
    /// Remove a method that pages may use; repeatable
    #[arg(long = "remove-cors-method", value_name = "METHOD", conflicts_with = "no_cors")]
    remove_cors_methods: Vec<String>,
    /// Add a header field that pages may set; repeatable
    #[arg(long = "add-cors-header", value_name = "NAME", conflicts_with = "no_cors")]
    add_cors_headers: Vec<String>,
    /// Remove a header field that pages may set; repeatable
    #[arg(long = "remove-cors-header", value_name = "NAME", conflicts_with = "no_cors")]
    remove_cors_headers: Vec<String>,
    /// Add a header field that pages may read; repeatable
    #[arg(long = "add-cors-expose", value_name = "NAME", conflicts_with = "no_cors")]
    add_cors_expose: Vec<String>,
    /// Remove a header field that pages may read; repeatable
    #[arg(long = "remove-cors-expose", value_name = "NAME", conflicts_with = "no_cors")]
    remove_cors_expose: Vec<String>,
}

const DEFAULT_APPLICATION: Unset = Unset {
    meaning: "the default application",
    option: Some("--no-applications"),
    is_empty_list: true,
};
const ALL_FIELDS: Unset =
    Unset { meaning: "all header fields about the client", option: None, is_empty_list: false };
const ALL_METHODS: Unset =
    Unset { meaning: "all methods of the resource", option: None, is_empty_list: false };
const USUAL_HEADERS: Unset = Unset {
    meaning: "the fields that carry credentials, and Content-Type",
    option: None,
    is_empty_list: false,
};

impl Elements {
    /// Changes the lists of a record. `notes` gets a sentence for each element that is not there.
    ///
    /// # Errors
    /// The record has no such list.
    pub fn put(
        &self,
        record: &mut Map<String, Value>,
        notes: &mut Vec<String>,
    ) -> Result<(), CliError> {
        let plain = |option, add, remove| ListEdit {
            option,
            set: &[],
            add,
            remove,
            unset: None,
            spelling: unchanged,
        };
        let methods = ListEdit {
            spelling: spelled_method,
            ..plain("--method", &self.add_methods, &self.remove_methods)
        };
        let formats = plain("--format", &self.add_formats, &self.remove_formats);
        let authentication =
            plain("--authentication", &self.add_authentication, &self.remove_authentication);
        if has_rules_by_method(record) {
            let is_given =
                formats.is_given() || authentication.is_given() || !methods.add.is_empty();
            refuse_shared_rules(record, is_given)?;
            self.remove_method_rules(record, notes);
        } else {
            methods.put(record, "methods", notes)?;
            formats.put(record, "formats", notes)?;
            authentication.put(record, "authentication", notes)?;
        }
        self.put_permissions(record, notes)?;
        let applications = ListEdit {
            unset: Some(DEFAULT_APPLICATION),
            ..plain("--application", &self.add_applications, &self.remove_applications)
        };
        applications.put(record, "applications", notes)?;
        let forwarded = ListEdit {
            unset: Some(ALL_FIELDS),
            ..plain("--forwarded", &self.add_forwarded, &self.remove_forwarded)
        };
        let proxy = [
            ("upstreams", plain("--upstream", &self.add_upstreams, &self.remove_upstreams)),
            ("upgrades", plain("--upgrade", &self.add_upgrades, &self.remove_upgrades)),
            ("forwarded", forwarded),
        ];
        put_within(record, "proxy", &proxy, notes)?;
        let cors_methods = ListEdit {
            unset: Some(ALL_METHODS),
            spelling: spelled_method,
            ..plain("--cors-method", &self.add_cors_methods, &self.remove_cors_methods)
        };
        let cors_headers = ListEdit {
            unset: Some(USUAL_HEADERS),
            ..plain("--cors-header", &self.add_cors_headers, &self.remove_cors_headers)
        };
        let cors = [
            ("origins", plain("--cors-origin", &self.add_cors_origins, &self.remove_cors_origins)),
            ("methods", cors_methods),
            ("headers", cors_headers),
            ("expose", plain("--cors-expose", &self.add_cors_expose, &self.remove_cors_expose)),
        ];
        put_within(record, "cors", &cors, notes)
    }

    fn remove_method_rules(&self, record: &mut Map<String, Value>, notes: &mut Vec<String>) {
        let Some(rules) = record.get_mut("methods").and_then(Value::as_object_mut) else { return };
        for method in self.remove_methods.iter().map(|method| spelled_method(method)) {
            if rules.shift_remove(&method).is_none() {
                notes.push(format!("methods does not contain {method}: nothing was removed."));
            }
        }
    }

    fn put_permissions(
        &self,
        record: &mut Map<String, Value>,
        notes: &mut Vec<String>,
    ) -> Result<(), CliError> {
        for method in self.no_permissions.iter().map(|method| spelled_method(method)) {
            if take_permissions(record, &method).is_none() {
                notes.push(format!("{method} requires no permission: nothing was removed."));
            }
        }
        for (method, permission) in &self.add_permissions {
            let mut names = permissions_of(record, method);
            if !names.contains(permission) {
                names.push(permission.clone());
            }
            set_permissions(record, method, names)?;
        }
        for (method, permission) in &self.remove_permissions {
            let mut names = permissions_of(record, method);
            let before = names.len();
            names.retain(|name| name != permission);
            if names.len() == before {
                let method = spelled_method(method);
                notes.push(format!("{method} does not require {permission}: nothing was removed."));
                continue;
            }
            set_permissions(record, method, names)?;
        }
        Ok(())
    }
}

/// Replaces the permissions of the methods that are named, and keeps those of the other methods.
pub fn put_permissions(
    record: &mut Map<String, Value>,
    named: &[(String, String)],
) -> Result<(), CliError> {
    let mut by_method = std::collections::BTreeMap::<String, Vec<String>>::new();
    for (method, permission) in named {
        by_method.entry(spelled_method(method)).or_default().push(permission.clone());
    }
    by_method.into_iter().try_for_each(|(method, names)| set_permissions(record, &method, names))
}

/// Removes the permissions of methods that the resource does not have any more. The record before
/// the change had `before`.
pub fn drop_permissions_of_removed_methods(
    record: &mut Map<String, Value>,
    before: &Value,
    notes: &mut Vec<String>,
) {
    let listed = |methods: &Value, method: &str| {
        let mut methods = methods.as_array().into_iter().flatten();
        methods.any(|known| {
            let known = known.as_str().map(spelled_method);
            known.is_some_and(|known| known == method || known == ANY_METHOD)
        })
    };
    let after = record.get("methods").cloned().unwrap_or_default();
    if !after.is_array() {
        return;
    }
    let Some(permissions) = record.get_mut("permissions").and_then(Value::as_object_mut) else {
        return;
    };
    let is_removed = |method: &String| listed(before, method) && !listed(&after, method);
    let removed: Vec<String> =
        permissions.keys().filter(|method| is_removed(method)).cloned().collect();
    for method in removed {
        let names = permissions.shift_remove(&method).unwrap_or_default();
        let names = words(Some(&names)).join(", ");
        notes.push(format!("{method} is removed, and with it its permission: {names}."));
    }
}

/// Whether each method has separate rules.
pub fn has_rules_by_method(record: &Map<String, Value>) -> bool {
    record.get("granularity").is_some_and(|granularity| granularity == "method")
}

/// Refuses an option for common rules if each method has separate rules.
pub fn refuse_shared_rules(record: &Map<String, Value>, is_given: bool) -> Result<(), CliError> {
    if !is_given || !has_rules_by_method(record) {
        return Ok(());
    }
    let id = record.get("id").and_then(Value::as_str).unwrap_or("ID");
    let text = format!(
        "the resource {id} has separate rules for each method, so methods, formats and \
         authentication cannot be changed with options. Write the record into a file (keyward \
         resource show {id} --output json), change the file, and give it with --file"
    );
    Err(CliError::new(Exit::Usage, text))
}

fn spelled_method(method: &str) -> String {
    method_of_record(method.to_owned())
}

/// The place of a method's permissions: the object that has them, and their name in it.
fn place<'r>(
    record: &'r mut Map<String, Value>,
    method: &str,
) -> Option<(&'r mut Map<String, Value>, String)> {
    if has_rules_by_method(record) {
        let rules = record.get_mut("methods")?.get_mut(method)?.as_object_mut()?;
        return Some((rules, "permissions".to_owned()));
    }
    let permissions = record.entry("permissions").or_insert_with(|| json!({}));
    Some((permissions.as_object_mut()?, method.to_owned()))
}

fn permissions_of(record: &mut Map<String, Value>, method: &str) -> Vec<String> {
    let found = place(record, &spelled_method(method));
    found.map_or_else(Vec::new, |(object, name)| words(object.get(&name)))
}

fn take_permissions(record: &mut Map<String, Value>, method: &str) -> Option<Value> {
    let (object, name) = place(record, method)?;
    object.shift_remove(&name)
}

fn set_permissions(
    record: &mut Map<String, Value>,
    method: &str,
    names: Vec<String>,
) -> Result<(), CliError> {
    let method = spelled_method(method);
    let Some((object, name)) = place(record, &method) else {
        let text = format!("the resource does not have the method {method}");
        return Err(CliError::new(Exit::Refused, text));
    };
    if names.is_empty() {
        object.shift_remove(&name);
    } else {
        object.insert(name, names.into());
    }
    Ok(())
}

fn words(value: Option<&Value>) -> Vec<String> {
    let words = value.and_then(Value::as_array).into_iter().flatten();
    words.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Changes lists in the settings of a handler, or in the CORS settings.
fn put_within(
    record: &mut Map<String, Value>,
    name: &str,
    edits: &[(&str, ListEdit<'_>)],
    notes: &mut Vec<String>,
) -> Result<(), CliError> {
    if !edits.iter().any(|(_, edit)| edit.is_given()) {
        return Ok(());
    }
    let settings = record.entry(name).or_insert_with(|| json!({}));
    let Some(settings) = settings.as_object_mut() else { return Ok(()) };
    edits.iter().try_for_each(|(field, edit)| edit.put(settings, field, notes))
}
