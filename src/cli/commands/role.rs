//! `keyward role`: creates, lists, changes and deletes roles.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::filter::policy::RoleFilter;
use crate::cli::{
    CliError, Output, Session,
    client::{
        lists::{ListEdit, unchanged},
        paths::path,
    },
    terminal::{
        prompt::Confirmation,
        table::{Column, cell, cell_or},
    },
};

const COLUMNS: &[Column] = &[
    Column::new("ID", |role| cell(&role["id"])),
    Column::new("LABEL", |role| cell(&role["label"])),
    Column::new("WEIGHT", |role| cell(&role["weight"])).leaves(1),
    Column::new("ADMIN", |role| cell(&role["is_admin"])),
    Column::new("PERMISSIONS", permissions),
];

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a role
    Add(Add),
    /// List roles
    List(RoleFilter),
    /// Show a role
    Show {
        /// The role's id
        id: String,
    },
    /// Change a role; fields that are not given stay unchanged
    Edit(Edit),
    /// Delete a role
    Delete {
        /// The role's id
        id: String,
        #[command(flatten)]
        consent: Confirmation,
    },
}

#[derive(Debug, Args)]
pub struct Add {
    /// The id; allowed characters: a-z 0-9 _ . -
    id: String,
    /// The name for people
    #[arg(long)]
    label: String,
    /// A permission; repeatable
    #[arg(long = "permission", value_name = "PERMISSION")]
    permissions: Vec<String>,
    /// Grant all permissions
    #[arg(long)]
    admin: bool,
    /// The position in lists
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    weight: Option<i64>,
}

#[derive(Debug, Args)]
pub struct Edit {
    /// The role's id
    id: String,
    /// The new label
    #[arg(long)]
    label: Option<String>,
    /// Replace all permissions of the role with this one; repeatable
    #[arg(long = "permission", value_name = "PERMISSION")]
    permissions: Vec<String>,
    /// Add a permission, and keep the others; repeatable
    #[arg(long = "add-permission", visible_alias = "grant", value_name = "PERMISSION")]
    add_permissions: Vec<String>,
    /// Remove a permission, and keep the others; repeatable
    #[arg(long = "remove-permission", visible_alias = "revoke", value_name = "PERMISSION")]
    remove_permissions: Vec<String>,
    /// Remove all permissions of the role
    #[arg(long, conflicts_with_all = ["permissions", "add_permissions", "remove_permissions"])]
    no_permissions: bool,
    /// The new position in lists
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    weight: Option<i64>,
}

/// Runs the command.
pub async fn run(verb: Verb, session: &Session) -> anyhow::Result<()> {
    let target = |id: &str| path(&["roles", id]);
    match verb {
        Verb::Add(add) => session.add(&path(&["roles"]), &add.record()).await,
        Verb::List(filter) => {
            session.list(&filter.target(&path(&["roles"])), filter.options.limit, COLUMNS).await
        }
        Verb::Show { id } => {
            let found = session.client.get(&target(&id)).await?.body;
            match session.output {
                Output::Json => session.show(&found),
                Output::Table => session.show(&readable(&found)),
            }
        }
        Verb::Edit(edit) => {
            let change =
                |role: &mut Map<String, Value>, notes: &mut Vec<String>| edit.change(role, notes);
            session.edit(&target(&edit.id), change).await
        }
        Verb::Delete { id, consent } => {
            session.remove(&target(&id), &format!("role {id}"), consent).await
        }
    }
}

/// Returns the permissions. The role of an administrator has all.
fn permissions(role: &Value) -> String {
    if role["is_admin"] == true { "all".into() } else { cell_or(&role["permissions"], "none") }
}

/// The record of a role for people: `-` could mean no permission as well as all.
fn readable(role: &Value) -> Value {
    let mut role = role.clone();
    if role["is_admin"] == true {
        role["permissions"] = "all".into();
    } else if role["permissions"].as_array().is_some_and(Vec::is_empty) {
        role["permissions"] = "none".into();
    }
    role
}

impl Add {
    fn record(self) -> Map<String, Value> {
        let mut record = Map::new();
        record.insert("id".into(), self.id.into());
        record.insert("label".into(), self.label.into());
        record.insert("permissions".into(), json!(self.permissions));
        record.insert("is_admin".into(), self.admin.into());
        record.extend(self.weight.map(|weight| ("weight".into(), weight.into())));
        record
    }
}

impl Edit {
    fn change(
        &self,
        role: &mut Map<String, Value>,
        notes: &mut Vec<String>,
    ) -> Result<(), CliError> {
        role.extend(self.label.clone().map(|label| ("label".into(), label.into())));
        role.extend(self.weight.map(|weight| ("weight".into(), weight.into())));
        if self.no_permissions {
            role.insert("permissions".into(), json!([]));
        }
        let permissions = ListEdit {
            option: "--permission",
            set: &self.permissions,
            add: &self.add_permissions,
            remove: &self.remove_permissions,
            unset: None,
            spelling: unchanged,
        };
        permissions.put(role, "permissions", notes)
    }
}
