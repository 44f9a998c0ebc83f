//! `keyward app`: creates, lists, changes and deletes applications, the ways to authenticate.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::{
    filter::policy::AppFilter,
    limit::{NoRate, Rate},
};
use crate::cli::{
    Session,
    client::paths::path,
    terminal::{
        prompt::Confirmation,
        table::{Column, cell},
    },
};

const COLUMNS: &[Column] = &[
    Column::new("ID", |app| cell(&app["id"])),
    Column::new("NAME", |app| cell(&app["name"])).leaves(3),
    Column::state("ENABLED", |app| cell(&app["enabled"])),
    Column::new("DEFAULT", |app| cell(&app["is_default"])).leaves(4),
    Column::new("TYPE", |app| cell(&app["type"])),
    Column::new("HEADER", |app| cell(&app["header"])).leaves(2),
    Column::new("DETAIL", |app| cell(&app["detail"])).leaves(1),
];

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create an application
    Add(Add),
    /// List applications
    List(AppFilter),
    /// Show an application
    Show {
        /// The application's id
        id: String,
    },
    /// Change an application; fields that are not given stay unchanged
    Edit {
        /// The application's id
        id: String,
        #[command(flatten)]
        fields: Fields,
        /// Use the application for requests that do not name an application
        #[arg(long)]
        default: bool,
    },
    /// Enable an application
    Enable {
        /// The application's id
        id: String,
    },
    /// Disable an application: requests that name the application are anonymous
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
    /// The id, which clients send in AUTH-METHOD; allowed characters: a-z 0-9 _ . -
    id: String,
    #[command(flatten)]
    fields: Fields,
    /// Use the application for requests that do not name an application
    #[arg(long)]
    default: bool,
    /// Create the application disabled
    #[arg(long)]
    disabled: bool,
}

#[derive(Debug, Args)]
pub struct Fields {
    /// The name for people [default for a new application: the id]
    #[arg(long)]
    name: Option<String>,
    /// The authentication type: api_key is base64(user:key), basic is base64(user:password), bearer
    /// is the key alone; or the name of a script in scripts/auth
    #[arg(long = "type", value_name = "TYPE")]
    auth_type: Option<String>,
    /// The request header field with the credential [default: Authorization for basic and bearer,
    /// the field that a script declares, or API-KEY]
    #[arg(long, value_name = "NAME")]
    header: Option<String>,
    /// The detail in responses to denied requests: the exact reason, or a uniform error
    #[arg(long, value_name = "DETAIL", value_parser = ["exact", "uniform"])]
    detail: Option<String>,
    /// The realm in WWW-Authenticate challenges
    #[arg(long)]
    realm: Option<String>,
    /// The prefix of the application's keys
    #[arg(long, value_name = "PREFIX")]
    key_prefix: Option<String>,
    /// The kind of keys: per_user, or universal (one key authenticates any user that the client
    /// names)
    #[arg(long, value_name = "SOURCE", value_parser = ["per_user", "universal"])]
    key_source: Option<String>,
    /// Whether the application's universal keys can also authenticate administrators [default: no]
    #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"])]
    universal_administrators: Option<String>,
    #[command(flatten)]
    rate: Rate,
    #[command(flatten)]
    no_rate: NoRate,
}

/// Runs the command.
pub async fn run(verb: Verb, session: &Session) -> anyhow::Result<()> {
    let target = |id: &str| path(&["applications", id]);
    match verb {
        Verb::Add(add) => {
            add.fields.warn(session);
            session.add(&path(&["applications"]), &add.record()).await
        }
        Verb::List(filter) => {
            let target = filter.target(&path(&["applications"]));
            session.list(&target, filter.options.limit, COLUMNS).await
        }
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

/// Enables or disables a record.
pub fn enable(record: &mut Map<String, Value>, enabled: bool) {
    record.insert("enabled".into(), enabled.into());
}

impl Add {
    fn record(self) -> Map<String, Value> {
        let mut record = Map::new();
        record.insert("id".into(), self.id.clone().into());
        record.insert("name".into(), self.id.into());
        enable(&mut record, !self.disabled);
        // Passwords are always sent in this header field, and bearer keys usually.
        if matches!(self.fields.auth_type.as_deref(), Some("basic" | "bearer")) {
            record.insert("header".into(), "Authorization".into());
        }
        self.fields.put(self.default, &mut record);
        record
    }
}

impl Fields {
    /// Prints a warning if the application gets universal keys.
    fn warn(&self, session: &Session) {
        if self.key_source.as_deref() == Some("universal") {
            session.screen.note(
                "Warning: anyone who has a universal key of this application can act as any user of the application. Restrict such keys to networks and scopes.\n",
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
