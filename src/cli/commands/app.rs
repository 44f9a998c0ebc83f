//! `keyward app`: applications, which are the ways to authenticate.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::limit::{NoRate, Rate};
use crate::cli::{
    Session,
    client::paths::path,
    terminal::{
        prompt::Confirmation,
        table::{Column, cell},
    },
};

const COLUMNS: &[Column] = &[
    ("ID", |app| cell(&app["id"])),
    ("NAME", |app| cell(&app["name"])),
    ("ENABLED", |app| cell(&app["enabled"])),
    ("DEFAULT", |app| cell(&app["is_default"])),
    ("TYPE", |app| cell(&app["type"])),
    ("HEADER", |app| cell(&app["header"])),
    ("DETAIL", |app| cell(&app["detail"])),
];

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make an application
    Add(Add),
    /// List applications
    List,
    /// Show an application
    Show {
        /// The application's id
        id: String,
    },
    /// Change an application; what is not named stays
    Edit {
        /// The application's id
        id: String,
        #[command(flatten)]
        fields: Fields,
        /// Serve requests that name no application
        #[arg(long)]
        default: bool,
    },
    /// Let clients use it
    Enable {
        /// The application's id
        id: String,
    },
    /// Turn it off: requests that name it are anonymous
    Disable {
        /// The application's id
        id: String,
    },
    /// Delete an application
    Delete {
        /// The application's id
        id: String,
        #[command(flatten)]
        consent: Confirmation,
    },
}

#[derive(Debug, Args)]
pub struct Add {
    /// The id, which AUTH-METHOD names: a-z 0-9 _ . -
    id: String,
    #[command(flatten)]
    fields: Fields,
    /// Serve requests that name no application
    #[arg(long)]
    default: bool,
    /// Make it turned off
    #[arg(long)]
    disabled: bool,
}

#[derive(Debug, Args)]
pub struct Fields {
    /// What people read [default of a new one: its id]
    #[arg(long)]
    name: Option<String>,
    /// What a credential is: api_key is base64(user:key), basic is base64(user:password), bearer is the key alone; else a script of scripts/auth
    #[arg(long = "type", value_name = "TYPE")]
    auth_type: Option<String>,
    /// The request header that carries the credential
    #[arg(long, value_name = "NAME")]
    header: Option<String>,
    /// How much a refused client is told
    #[arg(long, value_name = "DETAIL", value_parser = ["exact", "uniform"])]
    detail: Option<String>,
    /// The realm that challenges name
    #[arg(long)]
    realm: Option<String>,
    /// What its keys begin with
    #[arg(long, value_name = "PREFIX")]
    key_prefix: Option<String>,
    /// Whose keys it takes: per_user, or universal: one key, which acts as any user that its client names
    #[arg(long, value_name = "SOURCE", value_parser = ["per_user", "universal"])]
    key_source: Option<String>,
    /// Whether its universal keys act as administrators too [default: no]
    #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"])]
    universal_administrators: Option<String>,
    #[command(flatten)]
    rate: Rate,
    #[command(flatten)]
    no_rate: NoRate,
}

/// Does what was asked.
pub async fn run(verb: Verb, session: &Session) -> anyhow::Result<()> {
    let target = |id: &str| path(&["applications", id]);
    match verb {
        Verb::Add(add) => {
            add.fields.warn(session);
            session.add(&path(&["applications"]), &add.record()).await
        }
        Verb::List => session.list(&path(&["applications"]), None, COLUMNS).await,
        Verb::Show { id } => session.get(&target(&id)).await,
        Verb::Edit { id, fields, default } => {
            fields.warn(session);
            session.update(&target(&id), |app| fields.put(default, app)).await
        }
        Verb::Enable { id } => session.update(&target(&id), |app| enable(app, true)).await,
        Verb::Disable { id } => session.update(&target(&id), |app| enable(app, false)).await,
        Verb::Delete { id, consent } => {
            session.remove(&target(&id), &format!("application {id}"), consent).await
        }
    }
}

/// Turns a record on or off.
pub fn enable(record: &mut Map<String, Value>, enabled: bool) {
    record.insert("enabled".into(), enabled.into());
}

impl Add {
    fn record(self) -> Map<String, Value> {
        let mut record = Map::new();
        record.insert("id".into(), self.id.clone().into());
        record.insert("name".into(), self.id.into());
        enable(&mut record, !self.disabled);
        // A password comes in this header and in no other, and a bearer's key by custom.
        if matches!(self.fields.auth_type.as_deref(), Some("basic" | "bearer")) {
            record.insert("header".into(), "Authorization".into());
        }
        self.fields.put(self.default, &mut record);
        record
    }
}

impl Fields {
    /// Universal keys are a choice that has to be known.
    fn warn(&self, session: &Session) {
        if self.key_source.as_deref() == Some("universal") {
            session.screen.note(
                "Warning: whoever has a universal key of this application can act as any of its users. Bind such keys to networks and scopes.\n",
            );
        }
    }

    fn put(&self, default: bool, app: &mut Map<String, Value>) {
        let texts = [
            ("name", &self.name),
            ("type", &self.auth_type),
            ("header", &self.header),
            ("detail", &self.detail),
            ("realm", &self.realm),
            ("key_prefix", &self.key_prefix),
            ("key_source", &self.key_source),
        ];
        for (name, text) in texts {
            app.extend(text.clone().map(|text| (name.into(), text.into())));
        }
        self.rate.put(app);
        self.no_rate.put(app);
        if let Some(word) = &self.universal_administrators {
            app.insert("universal_administrators".into(), (word == "yes").into());
        }
        if default {
            app.insert("is_default".into(), true.into());
        }
    }
}
