//! `keyward resource`: creates, lists, changes and deletes resources.

mod applications;
mod body;
mod cors;
mod elements;
mod forwarded;
mod paths;
mod proxy;

use std::{fs, io, path::PathBuf};

use clap::{Args, Subcommand};
use forwarded::ForwardedOption;
use serde_json::{Map, Value, json};

use self::{
    applications::Applications,
    body::BodyOptions,
    cors::CorsOptions,
    elements::{
        Elements, drop_permissions_of_removed_methods, put_permissions, refuse_shared_rules,
    },
    paths::{OpensGuarded, PathFields},
    proxy::ProxyOptions,
};
use super::{
    app::enable,
    filter::policy::ResourceFilter,
    limit::{NoRate, Rate},
};
use crate::cli::{
    CliError, Exit, Output, Session,
    client::paths::path,
    terminal::{
        prompt::Confirmation,
        table::{Column, cell, cell_or},
    },
};

const COLUMNS: &[Column] = &[
    Column::new("ID", |resource| cell(&resource["id"])),
    Column::state("ENABLED", |resource| cell(&resource["enabled"])),
    Column::new("HANDLER", |resource| cell(&resource["handler"])).leaves(4),
    Column::new("HOST", |resource| cell_or(&resource["host"], "all")).leaves(2),
    Column::new("PATH", |resource| cell(&resource["path"])),
    Column::new("METHODS", methods).leaves(5),
    Column::new("FORMATS", |resource| shared_rule(resource, "formats")).leaves(1),
    Column::new("AUTHENTICATION", |resource| shared_rule(resource, "authentication")).leaves(3),
];

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a resource
    Add(Box<Add>),
    /// List resources
    List(Box<ResourceFilter>),
    /// Show a resource
    Show {
        /// The resource's id
        id: String,
    },
    /// Change a resource; fields that are not given stay unchanged. An option of a list replaces
    /// the list, --add-… and --remove-… change one element, and --permission replaces the
    /// permissions of the method that it names
    Edit(Box<Edit>),
    /// Enable a resource
    Enable {
        /// The resource's id
        id: String,
        #[command(flatten)]
        guards: OpensGuarded,
    },
    /// Disable a resource
    Disable {
        /// The resource's id
        id: String,
        #[command(flatten)]
        guards: OpensGuarded,
    },
    /// Delete a resource
    Delete {
        /// The resource's id
        id: String,
        #[command(flatten)]
        consent: Confirmation,
        #[command(flatten)]
        guards: OpensGuarded,
    },
}

#[derive(Debug, Args)]
pub struct Add {
    /// The id; allowed characters: a-z 0-9 _ . - [default: the id in the file]
    #[arg(required_unless_present = "file")]
    id: Option<String>,
    #[command(flatten)]
    source: Source,
    /// Create the resource disabled
    #[arg(long)]
    disabled: bool,
}

#[derive(Debug, Args)]
pub struct Edit {
    /// The resource's id
    id: String,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    elements: Elements,
}

/// The source of a record: a file with the whole record, or options with single fields.
#[derive(Debug, Args)]
pub struct Source {
    /// The file with the whole record as JSON, which can have rules per method; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["Fields", "Applications", "PathFields", "ProxyOptions", "ForwardedOption", "BodyOptions", "Rate", "NoRate", "CorsOptions"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    applications: Applications,
    #[command(flatten)]
    proxy: ProxyOptions,
    #[command(flatten)]
    forwarded: ForwardedOption,
    #[command(flatten)]
    body: BodyOptions,
    #[command(flatten)]
    paths: PathFields,
    #[command(flatten)]
    rate: Rate,
    #[command(flatten)]
    no_rate: NoRate,
    #[command(flatten)]
    cors: CorsOptions,
    #[command(flatten)]
    guards: OpensGuarded,
}

#[derive(Debug, Args)]
pub struct Fields {
    /// The handler: respond, proxy, decide, entity:user or script:NAME
    #[arg(long)]
    handler: Option<String>,
    /// The path, such as /orders/{id} or /files/{*rest}
    #[arg(long)]
    path: Option<String>,
    /// The host [default: any]
    #[arg(long)]
    host: Option<String>,
    /// A method such as GET or PROPFIND, or any for every method; repeatable
    #[arg(long = "method", value_name = "METHOD")]
    methods: Vec<String>,
    /// A format (json, xml, text, html, form, any); repeatable
    #[arg(long = "format", value_name = "FORMAT")]
    formats: Vec<String>,
    /// An application's id, * for all applications, or anonymous; repeatable
    #[arg(long = "authentication", value_name = "ID")]
    authentication: Vec<String>,
    /// A permission that the method requires; repeatable. The permissions of other methods stay
    /// unchanged
    #[arg(long = "permission", value_name = "METHOD=PERMISSION", value_parser = permission)]
    permissions: Vec<(String, String)>,
    /// For the handler proxy: an upstream, such as http://127.0.0.1:9000; repeatable
    #[arg(long = "upstream", value_name = "URL")]
    upstreams: Vec<String>,
    /// For the handler proxy: the file of the trusted authorities of an https upstream, in PEM
    /// [default: the public authorities]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// For the handler proxy: the protocol of the upstream, http1 or http2
    #[arg(long)]
    protocol: Option<String>,
    /// For the handler proxy: the prefix that is removed from the path
    #[arg(long, value_name = "PATH")]
    strip_prefix: Option<String>,
    /// For the handler respond: the status of the response
    #[arg(long)]
    status: Option<u16>,
    /// For the handler respond: the body of the response
    #[arg(long, value_name = "TEXT", conflicts_with = "body_file")]
    body: Option<String>,
    /// For the handler respond: the file with the body of the response
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// For the handler respond: the media type of the response
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
}

/// The fields whose options can name a file.
struct Texts {
    body: Option<String>,
    ca: Option<String>,
}

/// Runs the command.
pub async fn run(verb: Verb, session: &Session) -> anyhow::Result<()> {
    let target = |id: &str| path(&["resources", id]);
    match verb {
        Verb::Add(add) => {
            let target = add.source.guards.target(&path(&["resources"]));
            session.add(&target, &add.record()?).await
        }
        Verb::List(filter) => {
            let target = filter.target(&path(&["resources"]));
            session.list(&target, filter.options.limit, COLUMNS).await
        }
        Verb::Show { id } => {
            let mut found = session.client.get(&target(&id)).await?.body;
            let has_no_permission = found["permissions"].as_object().is_some_and(Map::is_empty);
            if session.output == Output::Table && has_no_permission {
                found["permissions"] = "none".into();
            }
            session.show(&found)
        }
        Verb::Edit(edit) => {
            let target = edit.source.guards.target(&target(&edit.id));
            edit.run(&target, session).await
        }
        Verb::Enable { id, guards } => {
            session.update(&guards.target(&target(&id)), |found| enable(found, true)).await
        }
        Verb::Disable { id, guards } => {
            session.update(&guards.target(&target(&id)), |found| enable(found, false)).await
        }
        Verb::Delete { id, consent, guards } => {
            let target = guards.target(&target(&id));
            session.remove(&target, &format!("resource {id}"), consent).await
        }
    }
}

impl Add {
    fn record(self) -> Result<Map<String, Value>, CliError> {
        let mut record = match &self.source.file {
            Some(file) => read_record(file)?,
            None if self.source.fields.handler.is_none() => {
                let text = "choose a handler, such as --handler respond, or give the whole record with --file";
                return Err(CliError::new(Exit::Usage, text));
            }
            None => Map::from_iter([
                ("enabled".into(), true.into()),
                ("granularity".into(), "resource".into()),
            ]),
        };
        if let Some(id) = &self.id {
            set_id(&mut record, id)?;
        }
        if self.disabled {
            enable(&mut record, false);
        }
        let texts = self.source.fields.texts()?;
        self.source.put(&texts, &mut record)?;
        Ok(record)
    }
}

impl Edit {
    async fn run(&self, target: &str, session: &Session) -> anyhow::Result<()> {
        if let Some(file) = &self.source.file {
            let mut record = read_record(file)?;
            set_id(&mut record, &self.id)?;
            // The file is the whole record: a field that is missing in the file is removed.
            return session.update(target, |found| found.clone_from(&record)).await;
        }
        let texts = self.source.fields.texts()?;
        let change = |found: &mut Map<String, Value>, notes: &mut Vec<String>| {
            let methods = found.get("methods").cloned().unwrap_or_default();
            refuse_shared_rules(found, self.source.fields.has_shared_rules())?;
            self.source.put(&texts, found)?;
            self.elements.put(found, notes)?;
            drop_permissions_of_removed_methods(found, &methods, notes);
            Ok(())
        };
        session.edit(target, change).await
    }
}

impl Source {
    fn put(&self, texts: &Texts, record: &mut Map<String, Value>) -> Result<(), CliError> {
        self.fields.put(texts, record);
        put_permissions(record, &self.fields.permissions)?;
        self.applications.put(record);
        self.forwarded.put(record);
        let mut proxy = Map::new();
        self.proxy.put(&mut proxy);
        add_to(record, "proxy", proxy);
        self.body.put(record);
        self.paths.put(record);
        self.rate.put(record);
        self.no_rate.put(record);
        self.cors.put(record);
        Ok(())
    }
}

impl Fields {
    fn texts(&self) -> Result<Texts, CliError> {
        let body = match &self.body_file {
            Some(file) => Some(read_text(file)?),
            None => self.body.clone(),
        };
        let ca = self.ca_file.as_deref().map(read_text).transpose()?;
        Ok(Texts { body, ca })
    }

    fn put(&self, texts: &Texts, record: &mut Map<String, Value>) {
        for (name, text) in [("handler", &self.handler), ("path", &self.path), ("host", &self.host)]
        {
            record.extend(text.clone().map(|text| (name.into(), text.into())));
        }
        for (name, words) in [
            ("methods", &self.methods),
            ("formats", &self.formats),
            ("authentication", &self.authentication),
        ] {
            if !words.is_empty() {
                record.insert(name.into(), json!(words));
            }
        }
        let mut response = Map::new();
        response.extend(self.status.map(|status| ("status".into(), status.into())));
        response.extend(self.content_type.clone().map(|text| ("content_type".into(), text.into())));
        response.extend(texts.body.clone().map(|text| ("body".into(), text.into())));
        add_to(record, "respond", response);
        let mut proxy = Map::new();
        if !self.upstreams.is_empty() {
            proxy.insert("upstreams".into(), json!(self.upstreams));
        }
        proxy.extend(self.protocol.clone().map(|text| ("protocol".into(), text.into())));
        proxy.extend(self.strip_prefix.clone().map(|text| ("strip_prefix".into(), text.into())));
        proxy.extend(texts.ca.clone().map(|text| ("ca".into(), text.into())));
        add_to(record, "proxy", proxy);
    }

    /// Whether the options give rules that all methods share.
    fn has_shared_rules(&self) -> bool {
        let lists = [&self.methods, &self.formats, &self.authentication];
        lists.into_iter().any(|list| !list.is_empty())
    }
}

/// Adds settings to the existing settings of a handler.
fn add_to(record: &mut Map<String, Value>, handler: &str, settings: Map<String, Value>) {
    if settings.is_empty() {
        return;
    }
    match record.get_mut(handler).and_then(Value::as_object_mut) {
        Some(found) => found.extend(settings),
        None => drop(record.insert(handler.into(), Value::Object(settings))),
    }
}

fn permission(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((method, permission)) if !method.is_empty() && !permission.is_empty() => {
            Ok((method.into(), permission.into()))
        }
        _ => Err("use METHOD=PERMISSION, such as GET='read orders'".into()),
    }
}

/// Sets the record's id. A record that has another id is refused.
fn set_id(record: &mut Map<String, Value>, id: &str) -> Result<(), CliError> {
    match record.insert("id".into(), id.into()) {
        Some(other) if other != id => {
            let text = format!("the record in the file has the id {other}, not {id}");
            Err(CliError::new(Exit::Usage, text))
        }
        _ => Ok(()),
    }
}

fn read_record(file: &std::path::Path) -> Result<Map<String, Value>, CliError> {
    serde_json::from_str(&read_text(file)?).map_err(|problem| {
        let text =
            format!("{} does not contain exactly one JSON object: {problem}", file.display());
        CliError::new(Exit::Usage, text)
    })
}

fn read_text(file: &std::path::Path) -> Result<String, CliError> {
    let text = match file.to_str() {
        Some("-") => io::read_to_string(io::stdin().lock()),
        _ => fs::read_to_string(file),
    };
    text.map_err(|problem| {
        CliError::new(Exit::Usage, format!("{} cannot be read: {problem}", file.display()))
    })
}

/// Returns the names of the methods, which have common rules or separate rules.
fn methods(resource: &Value) -> String {
    match &resource["methods"] {
        Value::Object(rules) => rules.keys().cloned().collect::<Vec<_>>().join(", "),
        methods => cell(methods),
    }
}

/// Returns the rule that all methods share. Separate rules per method are too long for a list.
fn shared_rule(resource: &Value, rule: &str) -> String {
    match &resource["methods"] {
        Value::Object(_) => "by method".into(),
        _ => cell(&resource[rule]),
    }
}
