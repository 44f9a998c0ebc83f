//! Checks and writes the users and keys of an import.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use super::{
    Drupal,
    people::{People, Person},
    plan::Plan,
    rows::Source,
    site::Site,
};
use crate::{
    accounts::likely_digest,
    cli::{
        CliError, Session, client::paths::path, commands::upload::MAX_PROBLEMS,
        terminal::screen::Screen,
    },
    model::fold,
};

/// The maximum number of users that the report names.
const MAX_NAMED: usize = 20;

/// The counts of an import of users, and of keys, that the report contains.
const USER_COUNTS: &[&str] = &["users", "known", "updated"];
const KEY_COUNTS: &[&str] = &["keys"];

/// An import of a site.
pub(super) struct Import<'a> {
    source: &'a Source,
    site: &'a Site,
    plan: &'a Plan,
    options: &'a Drupal,
    session: &'a Session,
    counts: Map<String, Value>,
    /// The numbers of the rows that are refused.
    refused: HashSet<u64>,
    problems: Vec<Value>,
    /// The numbers of the rows whose names other users of the server have.
    existing: HashSet<u64>,
    existing_names: Vec<String>,
    moved: Vec<String>,
    /// Hashes of the names, mail addresses and keys that were read. The API checks one batch at a
    /// time, so it does not find all texts that two users have.
    seen: HashSet<[u8; 16]>,
}

impl<'a> Import<'a> {
    pub fn new(
        source: &'a Source,
        site: &'a Site,
        plan: &'a Plan,
        options: &'a Drupal,
        session: &'a Session,
    ) -> Self {
        Self {
            source,
            site,
            plan,
            options,
            session,
            counts: Map::new(),
            refused: HashSet::new(),
            problems: Vec::new(),
            existing: HashSet::new(),
            existing_names: Vec::new(),
            moved: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// The problems of the rows that are refused.
    pub fn problems(&self) -> Vec<Value> {
        self.problems.clone()
    }

    /// Asks the API to check all users and keys.
    pub async fn check(&mut self) -> Result<(), CliError> {
        let mut people = People::new(self.source, self.site)?;
        loop {
            let mut batch = people.batch()?;
            for (number, problem) in people.faults.drain(..) {
                self.refuse(number, &problem, "");
            }
            if batch.is_empty() {
                return Ok(());
            }
            self.find_digests(&batch);
            self.find_repeated(&batch);
            batch.retain(|person| !self.refused.contains(&person.number));
            // A refused row hides the other problems of its batch, so the rest is checked again.
            loop {
                let body = self.users(&batch, true);
                let checked = self.session.client.post(&path(&["users", "import"]), &body).await;
                if !self.take(checked, &mut batch, true)? {
                    break;
                }
            }
            loop {
                let body = self.keys(&batch, true);
                if body["rows"].as_array().is_none_or(Vec::is_empty) {
                    break;
                }
                let checked = self.session.client.post(&path(&["keys", "import"]), &body).await;
                if !self.take(checked, &mut batch, true)? {
                    break;
                }
            }
        }
    }

    /// Writes all users and keys that were not refused.
    pub async fn write(&mut self) -> Result<(), CliError> {
        self.counts.clear();
        self.moved.clear();
        let mut people = People::new(self.source, self.site)?;
        loop {
            let mut batch = people.batch()?;
            if batch.is_empty() {
                break;
            }
            batch.retain(|person| !self.refused.contains(&person.number));
            let body = self.users(&batch, false);
            let written = self.session.client.post(&path(&["users", "import"]), &body).await;
            self.take(written, &mut batch, false)?;
            let body = self.keys(&batch, false);
            if body["rows"].as_array().is_some_and(|rows| !rows.is_empty()) {
                let written = self.session.client.post(&path(&["keys", "import"]), &body).await;
                self.take(written, &mut batch, false)?;
            }
        }
        self.write_universal_key().await
    }

    async fn write_universal_key(&mut self) -> Result<(), CliError> {
        let Some((key, application)) = &self.plan.universal else { return Ok(()) };
        let owner = self.universal_owner().await?;
        let body = json!({
            "digest": "clear",
            "universal_of": application,
            "rows": [{ "username": owner, "key": key.expose() }],
        });
        let written = self.session.client.post(&path(&["keys", "import"]), &body).await?;
        self.add_counts(&written.body, KEY_COUNTS);
        Ok(())
    }

    /// The name of the user to whom the universal key belongs: the server's first user.
    async fn universal_owner(&self) -> Result<String, CliError> {
        let user = self.session.client.get(&path(&["users", "1"])).await?;
        Ok(user.body["name"].as_str().unwrap_or_default().to_owned())
    }

    fn users(&self, batch: &[Person], dry_run: bool) -> Value {
        let is_known =
            |role: &Value| role.as_str().is_some_and(|role| self.plan.known_roles.contains(role));
        let row = |person: &Person| {
            let mut user = person.user.clone();
            // In a dry run, the new roles do not exist yet.
            if dry_run && let Some(roles) = user["roles"].as_array_mut() {
                roles.retain(is_known);
            }
            user
        };
        json!({
            "existing": if self.options.update { "update" } else { "keep" },
            "largest_uid": self.site.largest_uid,
            "dry_run": dry_run,
            "rows": batch.iter().map(row).collect::<Vec<_>>(),
        })
    }

    /// The keys of a batch. A user of the server who only has the name of a user of the site does
    /// not get that user's key.
    fn keys(&self, batch: &[Person], dry_run: bool) -> Value {
        let is_own = |person: &&Person| !self.existing.contains(&person.number);
        let is_wanted = self.plan.universal.is_none();
        let keys = batch.iter().filter(|_| is_wanted).filter(is_own);
        json!({
            "digest": "clear",
            "create_users": dry_run,
            "dry_run": dry_run,
            "rows": keys.filter_map(|person| person.key.clone()).collect::<Vec<_>>(),
        })
    }

    /// Takes a response. Rows that it refuses leave the batch. `true` means that there are any.
    fn take(
        &mut self,
        response: Result<crate::cli::client::ApiResponse, CliError>,
        batch: &mut Vec<Person>,
        is_check: bool,
    ) -> Result<bool, CliError> {
        let body = match response {
            Ok(response) => response.body,
            Err(problem) => {
                let errors = problem.problem["errors"].as_array().cloned().unwrap_or_default();
                if !is_check || !self.refuse_rows(&errors, batch) {
                    return Err(problem);
                }
                return Ok(true);
            }
        };
        // The response about users has the count `kept`.
        let is_of_users = body.get("kept").is_some();
        self.add_counts(&body, if is_of_users { USER_COUNTS } else { KEY_COUNTS });
        let place = |number: &Value| {
            let number = number.as_u64().unwrap_or_default();
            let person = batch.iter().find(|person| person.number == number);
            (number, person.map_or_else(String::new, |person| person.place.clone()))
        };
        for number in body["existing"].as_array().into_iter().flatten() {
            let (number, place) = place(number);
            if self.existing.insert(number) {
                self.existing_names.push(place);
            }
        }
        for moved in body["moved"].as_array().into_iter().flatten() {
            let (_, place) = place(&moved["line"]);
            let (from, to) = (&moved["from"], &moved["to"]);
            let to = to.as_u64().map_or_else(|| "a new number".to_owned(), |to| to.to_string());
            self.moved.push(format!("{place}: {from} becomes {to}"));
        }
        Ok(false)
    }

    /// Refuses the rows that a response names. `false` means that it names none.
    fn refuse_rows(&mut self, errors: &[Value], batch: &mut Vec<Person>) -> bool {
        let before = batch.len();
        for error in errors {
            let location = error["location"].as_str().unwrap_or_default();
            let number = location.strip_prefix("line ").unwrap_or_default();
            let (number, field) = number.split_once('.').unwrap_or((number, ""));
            let Ok(number) = number.parse::<u64>() else { continue };
            let found = batch.iter().find(|person| person.number == number);
            let place = found.map(|person| person.place.clone()).unwrap_or_default();
            let message = error["message"].as_str().unwrap_or_default();
            let text = format!("{place}: {field}: {message}");
            self.refuse(number, &text, error["fix"].as_str().unwrap_or_default());
        }
        batch.retain(|person| !self.refused.contains(&person.number));
        batch.len() < before
    }

    fn refuse(&mut self, number: u64, problem: &str, fix: &str) {
        self.refused.insert(number);
        if self.problems.len() < MAX_PROBLEMS {
            let (place, message) = problem.split_once(": ").unwrap_or(("", problem));
            self.problems.push(json!({ "location": place, "message": message, "fix": fix }));
        }
    }

    /// Refuses keys that look like digests, because as clear text they would be new keys.
    fn find_digests(&mut self, batch: &[Person]) {
        if self.options.clear_keys || self.plan.universal.is_some() {
            return;
        }
        for person in batch {
            let key = person.key.as_ref().and_then(|key| key["key"].as_str());
            if let Some(kind) = key.and_then(likely_digest) {
                let text = format!("{}: The key looks like a {} digest.", person.place, kind.name);
                self.refuse(person.number, &text, "Add --clear-keys if these really are keys.");
            }
        }
    }

    /// Refuses users with the name, the mail address or the key of an earlier user.
    fn find_repeated(&mut self, batch: &[Person]) {
        for person in batch {
            let key = person.key.as_ref().and_then(|key| key["key"].as_str());
            let key = key.filter(|_| self.plan.universal.is_none()).map(str::to_owned);
            let folded = |field: &str| person.user[field].as_str().map(fold);
            let texts =
                [("name", folded("username")), ("mail address", folded("mail")), ("key", key)];
            for (kind, text) in texts {
                let Some(text) = text else { continue };
                let mut hash = [0; 16];
                let whole = blake3::hash(format!("{kind}\0{text}").as_bytes());
                hash.copy_from_slice(&whole.as_bytes()[..16]);
                if !self.seen.insert(hash) {
                    let text = format!("{}: An earlier user has the same {kind}.", person.place);
                    self.refuse(person.number, &text, "Change it in Drupal, and export again.");
                }
            }
        }
    }

    /// Adds the counts of these names.
    fn add_counts(&mut self, part: &Value, names: &[&str]) {
        let counts = part.as_object().into_iter().flatten();
        for (name, count) in counts.filter(|(name, _)| names.contains(&name.as_str())) {
            let Some(count) = count.as_u64() else { continue };
            let sum = self.counts.get(name).and_then(Value::as_u64).unwrap_or_default();
            self.counts.insert(name.clone(), (sum + count).into());
        }
    }

    /// Prints what was imported or, after a dry run, what would be.
    pub fn report(self) -> anyhow::Result<()> {
        let count = |name: &str| self.counts.get(name).and_then(Value::as_u64).unwrap_or_default();
        let (roles, applications) = (self.plan.new_roles.len(), self.plan.new_applications.len());
        let summary: BTreeMap<&str, Value> = BTreeMap::from([
            ("users", count("users").into()),
            ("known", count("known").into()),
            ("updated", count("updated").into()),
            ("existing", json!(self.existing_names)),
            ("moved", json!(self.moved)),
            ("refused", self.problems.clone().into()),
            ("keys", count("keys").into()),
            ("roles", roles.into()),
            ("applications", applications.into()),
            ("notes", json!(self.plan.notes)),
        ]);
        let summary: Map<String, Value> =
            summary.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let done = if self.options.dry_run { "would be imported" } else { "are imported" };
        self.session.report(&summary, |screen| {
            screen.note(&format!(
                "{} users, {} keys, {roles} roles and {applications} applications {done}.\n",
                count("users"),
                count("keys"),
            ));
            let counted = |number: u64, text: &str| {
                if number > 0 {
                    screen.note(&format!("{number} {text}.\n"));
                }
            };
            counted(count("updated"), "existing users get the fields of the dump");
            counted(count("known"), "users are as in the dump already");
            print_list(
                screen,
                "Users of the server with the same names stay as they are",
                &self.existing_names,
            );
            print_list(screen, "Users whose numbers are taken", &self.moved);
            let refused: Vec<String> = self
                .problems
                .iter()
                .map(|problem| {
                    format!(
                        "{}: {}",
                        problem["location"].as_str().unwrap_or_default(),
                        problem["message"].as_str().unwrap_or_default()
                    )
                })
                .collect();
            print_list(screen, "Refused", &refused);
            print_list(screen, "Notes", &self.plan.notes);
        })
    }
}

fn print_list(screen: &Screen, title: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    screen.note(&format!("{title} ({}):\n", items.len()));
    for item in items.iter().take(MAX_NAMED) {
        screen.note(&format!("  {item}\n"));
    }
    if items.len() > MAX_NAMED {
        screen.note("  …\n");
    }
}
