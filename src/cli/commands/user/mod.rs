//! `keyward user`: creates, lists, changes, blocks and deletes users.

mod attributes;
pub(in crate::cli) mod htpasswd;
mod many;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    filter::users::UserFilter,
    limit::{Budget, NoBudget, NoRate, Rate},
    user::{
        attributes::{RemoveAttributes, SetAttributes},
        htpasswd::Import,
        many::ManyUsers,
    },
};
use crate::{
    cli::{
        CliError, Exit, Session,
        client::{
            lists::{ListEdit, unchanged},
            paths::{path, with_query},
        },
        terminal::{
            prompt::{Confirmation, NewPassword},
            table::{Column, cell},
        },
    },
    model::fold,
};

const COLUMNS: &[Column] = &[
    Column::new("UID", |user| cell(&user["uid"])),
    Column::new("NAME", |user| cell(&user["name"])),
    Column::new("MAIL", |user| cell(&user["mail"])).leaves(3),
    Column::state("ACTIVE", |user| cell(&user["active"])),
    Column::new("ROLES", |user| cell(&user["roles"])).leaves(4),
    Column::new("PASSWORD", |user| cell(&user["has_password"])).leaves(1),
    Column::time("CREATED", |user| cell(&user["created"])).leaves(2),
];

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a user
    Add(Add),
    /// List users
    List(UserFilter),
    /// Show a user
    Show(Who),
    /// Change a user; fields that are not given stay unchanged
    Edit(Edit),
    /// Block a user: the user's keys and password are refused
    Block(Target),
    /// Unblock a user
    Unblock(Target),
    /// Import users and password digests from a file of Apache's htpasswd; either all users of the
    /// file are imported or none
    Import(Import),
    /// Delete a user and the user's keys permanently
    Delete {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        consent: Confirmation,
    },
}

/// A user, by name or by number.
#[derive(Debug, Clone, Args)]
#[group(id = "who", required = true, multiple = false)]
pub struct Who {
    /// The user's name, or # and the user's number: '#7'
    #[arg(id = "user", value_name = "NAME")]
    name: Option<String>,
    /// The user's number
    #[arg(long)]
    uid: Option<u64>,
}

/// One user, or all users whom conditions select.
#[derive(Debug, Args)]
pub struct Target {
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    many: ManyUsers,
}

#[derive(Debug, Args)]
pub struct Add {
    /// The name, as used in credentials
    name: String,
    /// The mail address
    #[arg(long, value_name = "ADDRESS")]
    mail: Option<String>,
    /// A role; repeatable
    #[arg(long = "role", value_name = "ID")]
    roles: Vec<String>,
    /// The time zone, such as Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    #[command(flatten)]
    attributes: SetAttributes,
    #[command(flatten)]
    rate: Rate,
    #[command(flatten)]
    budget: Budget,
    /// Create the user blocked
    #[arg(long)]
    blocked: bool,
    #[command(flatten)]
    password: NewPassword,
}

#[derive(Debug, Args)]
pub struct Edit {
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    many: ManyUsers,
    /// The new name
    #[arg(long, value_name = "NEW")]
    name: Option<String>,
    /// The new mail address
    #[arg(long, value_name = "ADDRESS", conflicts_with = "no_mail")]
    mail: Option<String>,
    /// Remove the mail address
    #[arg(long)]
    no_mail: bool,
    /// Replace all roles of the user with this one; repeatable
    #[arg(long = "role", value_name = "ID")]
    roles: Vec<String>,
    /// Add a role, and keep the others; repeatable
    #[arg(long = "add-role", value_name = "ID")]
    add_roles: Vec<String>,
    /// Remove a role, and keep the others; repeatable
    #[arg(long = "remove-role", value_name = "ID")]
    remove_roles: Vec<String>,
    /// The new time zone
    #[arg(long, value_name = "ZONE", conflicts_with = "no_timezone")]
    timezone: Option<String>,
    /// Remove the time zone
    #[arg(long)]
    no_timezone: bool,
    #[command(flatten)]
    attributes: SetAttributes,
    #[command(flatten)]
    no_attributes: RemoveAttributes,
    #[command(flatten)]
    rate: Rate,
    #[command(flatten)]
    no_rate: NoRate,
    #[command(flatten)]
    budget: Budget,
    #[command(flatten)]
    no_budget: NoBudget,
    #[command(flatten)]
    password: NewPassword,
    /// Remove the password, so that the user cannot log in with a password
    #[arg(long, conflicts_with_all = ["password_stdin", "password_prompt"])]
    no_password: bool,
}

impl Who {
    /// Returns the user that was given. `None` means that neither a name nor a number was given.
    pub fn new(name: Option<String>, uid: Option<u64>) -> Option<Self> {
        (name.is_some() || uid.is_some()).then_some(Self { name, uid })
    }
}

/// Runs the command.
pub async fn run(verb: Verb, session: &Session) -> anyhow::Result<()> {
    match verb {
        Verb::Add(add) => session.add(&path(&["users"]), &add.record()?).await,
        Verb::List(filter) => {
            session.list(&filter.target(&path(&["users"])), filter.options.limit, COLUMNS).await
        }
        Verb::Show(who) => session.get(&target(&who, session).await?).await,
        Verb::Edit(edit) => edit.run(session).await,
        Verb::Block(target) => activate(&target, false, session).await,
        Verb::Unblock(target) => activate(&target, true, session).await,
        Verb::Import(import) => import.run(session).await,
        Verb::Delete { target, consent } if target.many.is_given() => {
            target.many.delete(consent, session).await
        }
        Verb::Delete { target: Target { who, .. }, consent } => {
            let uid = uid(&who, session).await?;
            let description = match &who.name {
                Some(name) if number(name).is_none() => format!("user {name} (#{uid})"),
                _ => format!("user #{uid}"),
            };
            session.remove(&path(&["users", &uid.to_string()]), &description, consent).await
        }
    }
}

impl Add {
    fn record(self) -> Result<Map<String, Value>, CliError> {
        let mut record = Map::new();
        record.insert("name".into(), self.name.into());
        record.insert("active".into(), (!self.blocked).into());
        record.insert("roles".into(), json!(self.roles));
        let texts = [("mail", self.mail), ("timezone", self.timezone)];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name.into(), text?.into())));
        record.extend(texts);
        self.attributes.put(&mut record);
        self.rate.put(&mut record);
        self.budget.put(&mut record);
        if let Some(password) = self.password.read()? {
            record.insert("password".into(), password.expose().into());
        }
        Ok(record)
    }
}

impl Edit {
    async fn run(self, session: &Session) -> anyhow::Result<()> {
        if self.many.is_given() {
            return self.many.edit(self.roles_only()?, session).await;
        }
        let target = target(&self.who, session).await?;
        let password = self.password.read()?;
        let roles = ListEdit {
            option: "--role",
            set: &self.roles,
            add: &self.add_roles,
            remove: &self.remove_roles,
            unset: None,
            spelling: unchanged,
        };
        let change = |user: &mut Map<String, Value>, notes: &mut Vec<String>| {
            let texts = [("name", &self.name), ("mail", &self.mail), ("timezone", &self.timezone)];
            for (name, text) in
                texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?)))
            {
                user.insert(name.into(), text.into());
            }
            if self.no_mail {
                user.insert("mail".into(), Value::Null);
            }
            self.rate.put(user);
            self.no_rate.put(user);
            self.budget.put(user);
            self.no_budget.put(user);
            if self.no_timezone {
                user.insert("timezone".into(), Value::Null);
            }
            self.attributes.put(user);
            self.no_attributes.put(user, notes);
            if let Some(password) = &password {
                user.insert("password".into(), password.expose().into());
            }
            if self.no_password {
                user.insert("password".into(), Value::Null);
            }
            roles.put(user, "roles", notes)
        };
        session.edit(&target, change).await
    }

    /// The change of many users, which get and lose roles only.
    fn roles_only(&self) -> Result<Map<String, Value>, CliError> {
        let mut others = Map::new();
        self.rate.put(&mut others);
        self.no_rate.put(&mut others);
        self.budget.put(&mut others);
        self.no_budget.put(&mut others);
        let given = [
            ("--name", self.name.is_some()),
            ("--mail", self.mail.is_some() || self.no_mail),
            ("--timezone", self.timezone.is_some()),
            ("a password", self.password.is_given() || self.no_password),
            ("a limit", !others.is_empty()),
        ];
        if let Some((option, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
            return Err(ManyUsers::refuse(option));
        }
        let roles = [("add_roles", &self.add_roles), ("remove_roles", &self.remove_roles)];
        let roles = roles.into_iter().filter(|(_, roles)| !roles.is_empty());
        let change: Map<String, Value> =
            roles.map(|(name, roles)| (name.to_owned(), json!(roles))).collect();
        if change.is_empty() {
            let text = "with --where, give --add-role or --remove-role";
            return Err(CliError::new(Exit::Usage, text));
        }
        Ok(change)
    }
}

async fn activate(
    Target { who, many }: &Target,
    active: bool,
    session: &Session,
) -> anyhow::Result<()> {
    if many.is_given() {
        let change = [("active".to_owned(), active.into())].into_iter().collect();
        return many.edit(change, session).await;
    }
    let change = |user: &mut Map<String, Value>| {
        user.insert("active".into(), active.into());
    };
    session.update(&target(who, session).await?, change).await
}

async fn target(who: &Who, session: &Session) -> Result<String, CliError> {
    Ok(path(&["users", &uid(who, session).await?.to_string()]))
}

/// Returns the number of a user.
pub async fn uid(who: &Who, session: &Session) -> Result<u64, CliError> {
    match (&who.name, who.uid) {
        (_, Some(uid)) => Ok(uid),
        (Some(name), None) => match number(name) {
            Some(uid) => Ok(uid),
            None => look_up(name, session).await,
        },
        (None, None) => Err(CliError::new(Exit::Usage, "give the user's name or --uid")),
    }
}

/// Parses `#7` as 7. A user's name cannot contain a `#`.
fn number(name: &str) -> Option<u64> {
    name.strip_prefix('#')?.parse().ok()
}

async fn look_up(name: &str, session: &Session) -> Result<u64, CliError> {
    // A * at the end of a filter has a meaning, and no name contains one.
    if name.contains('*') {
        return Err(CliError::new(Exit::NotFound, format!("there is no user {name}")));
    }
    let list = with_query(&path(&["users"]), &[("name", name)]);
    let mut cursor = None;
    loop {
        let (items, next) = session.page(&list, 10, cursor.as_deref()).await?;
        // The server's filter is not trusted: comparing the name here ensures that no other user is
        // selected.
        let has_name =
            |user: &&Value| user["name"].as_str().is_some_and(|found| fold(found) == fold(name));
        if let Some(uid) = items.iter().find(has_name).and_then(|user| user["uid"].as_u64()) {
            return Ok(uid);
        }
        if next.is_none() {
            return Err(CliError::new(Exit::NotFound, format!("there is no user {name}")));
        }
        cursor = next;
    }
}
