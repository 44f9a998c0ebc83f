//! `keyward audit`: lists, exports and verifies the audit trail.

use clap::Subcommand;
use serde_json::Value;

use super::filter::audit::AuditFilter;
use crate::cli::{
    CliError, Exit, Output, Session,
    client::paths::{path, with_query},
    terminal::table::{Column, cell},
};

const COLUMNS: &[Column] = &[
    Column::new("NUMBER", |entry| cell(&entry["number"])).leaves(3),
    Column::time("TIME", |entry| cell(&entry["time"])),
    Column::new("ACTOR", actor),
    Column::new("ACTION", |entry| cell(&entry["action"])),
    Column::new("OBJECT", object),
    Column::new("BEFORE", |entry| cell(&entry["before"])).leaves(1),
    Column::new("AFTER", |entry| cell(&entry["after"])).leaves(2),
];

/// The maximum number of entries in one request of an export.
const PAGE_SIZE: usize = 1000;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List entries, the newest first
    List(AuditFilter),
    /// Print every entry as a line of JSON, the oldest first
    Export,
    /// Check that no entry was changed, added or removed
    Verify,
}

/// Runs the command.
pub async fn run(verb: Verb, session: &Session) -> anyhow::Result<()> {
    match verb {
        Verb::List(filter) => {
            session.list(&filter.target(&path(&["audit"])), filter.limit, COLUMNS).await
        }
        Verb::Export => export(session).await,
        Verb::Verify => verify(session).await,
    }
}

async fn export(session: &Session) -> anyhow::Result<()> {
    let target = with_query(&path(&["audit"]), &[("order", "oldest")]);
    let (mut cursor, mut last) = (None, None);
    loop {
        let (items, next) = session.page(&target, PAGE_SIZE, cursor.as_deref()).await?;
        last = check_order(&items, last)?;
        let lines: String = items.iter().map(|entry| format!("{entry}\n")).collect();
        session.screen.print(&lines)?;
        if next.is_none() {
            return Ok(());
        }
        cursor = next;
    }
}

/// Checks that the numbers of a page follow `last`, that of the page before, without a gap. Returns
/// the number of the page's last entry.
fn check_order(items: &[Value], mut last: Option<u64>) -> Result<Option<u64>, CliError> {
    for item in items {
        let number = item["number"].as_u64();
        if let (Some(last), Some(number)) = (last, number)
            && number != last + 1
        {
            let text = format!(
                "entry {} is missing: after entry {last} the server sent entry {number}. \
                 If the trail is full, the entry may just have been removed: export again",
                last + 1
            );
            return Err(CliError::new(Exit::Failed, text));
        }
        last = number;
    }
    Ok(last)
}

async fn verify(session: &Session) -> anyhow::Result<()> {
    let found = session.client.get(&path(&["audit", "verify"])).await?.body;
    if session.output == Output::Json {
        session.show(&found)?;
    }
    if found["state"] != "intact" {
        let (number, problem) = (cell(&found["number"]), cell(&found["problem"]));
        let text = format!("the audit trail was tampered with at entry {number}. {problem}");
        return Err(CliError::new(Exit::Failed, text).into());
    }
    if session.output == Output::Table {
        let [entries, last, hash] = ["entries", "last", "hash"].map(|name| cell(&found[name]));
        let text = format!(
            "The audit trail is intact: {entries} entries, up to {last} with the hash {hash}.\n"
        );
        session.screen.say(&format!("{text}{}", coverage(&found)))?;
    }
    Ok(())
}

/// Says which entries were verified, and which are gone.
fn coverage(found: &Value) -> String {
    let [first, last, removed, keeps] =
        ["first", "last", "removed", "keeps"].map(|name| cell(&found[name]));
    if found["removed"].as_u64().unwrap_or_default() == 0 {
        return "No older entry was removed.\n".into();
    }
    format!(
        "The verified entries are {first} to {last}. The {removed} older entries were removed, \
         because the trail keeps the newest {keeps} (audit.entries).\n"
    )
}

/// Returns the name and number of a user, or the kind of another actor, with the name of the
/// operator's Unix user.
fn actor(entry: &Value) -> String {
    let actor = &entry["actor"];
    match (actor["kind"].as_str(), entry["operator"]["name"].as_str()) {
        (Some("user"), _) => format!("{} (#{})", cell(&actor["name"]), cell(&actor["uid"])),
        (_, Some(name)) => format!("{} {name}", cell(&actor["kind"])),
        _ => cell(&actor["kind"]),
    }
}

/// Returns the object, with the name of the user that it is or that it belongs to.
fn object(entry: &Value) -> String {
    let object = cell(&entry["object"]);
    let Some(name) = entry["user"]["name"].as_str() else { return object };
    let uid = cell(&entry["user"]["uid"]);
    let is_user = object.starts_with("user/");
    if is_user { format!("{object} {name}") } else { format!("{object} of {name} (#{uid})") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn removed_entries_are_reported_with_their_rule() {
        let found = json!({ "first": 7, "last": 11, "removed": 6, "keeps": 5 });
        assert_eq!(
            coverage(&found),
            "The verified entries are 7 to 11. The 6 older entries were removed, because the trail \
             keeps the newest 5 (audit.entries).\n"
        );
        let found = json!({ "first": 1, "last": 6, "removed": 0, "keeps": 100 });
        assert_eq!(coverage(&found), "No older entry was removed.\n");
    }

    #[test]
    fn gap_within_or_between_pages_is_an_error_that_names_the_entry() {
        let page = |numbers: &[u64]| -> Vec<Value> {
            numbers.iter().map(|number| json!({ "number": number })).collect()
        };
        assert_eq!(check_order(&page(&[7, 8, 9]), None).unwrap(), Some(9));
        assert_eq!(check_order(&page(&[]), Some(9)).unwrap(), Some(9));
        assert_eq!(check_order(&page(&[10]), Some(9)).unwrap(), Some(10));
        for (numbers, last, missing) in
            [(&[7, 9][..], None, 8), (&[11], Some(9), 10), (&[9], Some(9), 10), (&[8, 7], None, 9)]
        {
            let problem = check_order(&page(numbers), last).unwrap_err();
            assert!(problem.to_string().starts_with(&format!("entry {missing} is missing")));
        }
    }
}
