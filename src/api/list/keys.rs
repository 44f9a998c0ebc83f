//! The filters and orders of lists of keys.

use super::{ListParameters, ListQuery, SortField, values::Direction};
use crate::{
    accounts::{Accounts, Filter, Rows, Search, Sort, SortKey, TextPattern},
    model::{Application, Key, Timestamp},
    pipeline::Denial,
    store::Table,
};

/// The parameters of the list of all keys.
pub(in crate::api) const ALL_KEYS: ListParameters = ListParameters {
    filters: &[
        "state",
        "user",
        "label",
        "application",
        "unused_since",
        "last_used_before",
        "expires_before",
        "created_before",
        "created_after",
    ],
    sorts: SORTS,
};

/// The parameters of the list of one user's keys.
pub(in crate::api) const KEYS_OF_USER: ListParameters = ListParameters {
    filters: &[
        "state",
        "label",
        "application",
        "unused_since",
        "last_used_before",
        "expires_before",
        "created_before",
        "created_after",
    ],
    sorts: SORTS,
};

const SORTS: &[&str] = &["id", "user", "label", "created", "expires", "last_used"];

/// The state of a key.
pub(in crate::api) fn state(key: &Key, now: Timestamp) -> &'static str {
    let is_over = |end: Option<Timestamp>| end.is_some_and(|end| end <= now);
    let until = key.rotated.as_ref().map(|rotation| rotation.until);
    if key.revoked.is_some() {
        "revoked"
    } else if is_over(until) && until == key.ends() {
        "rotated"
    } else if is_over(key.ends()) {
        "expired"
    } else {
        "active"
    }
}

/// The filters of a list of keys.
struct KeyFilter {
    now: Timestamp,
    state: Option<&'static str>,
    label: Option<TextPattern>,
    application: Option<String>,
    unused_since: Option<Timestamp>,
    last_used_before: Option<Timestamp>,
    expires_before: Option<Timestamp>,
    created_before: Option<Timestamp>,
    created_after: Option<Timestamp>,
}

/// Reads a search for keys of one user, or of all users.
pub(in crate::api) fn search(
    query: &mut ListQuery,
    uid: Option<u64>,
    accounts: &Accounts,
) -> Result<Search<Key>, Denial> {
    let now = accounts.clock().now();
    let filter = KeyFilter {
        now,
        state: query.choice("state", &["active", "expired", "rotated", "revoked"]),
        label: query.pattern("label"),
        application: application(query, accounts)?,
        unused_since: query.time("unused_since", Direction::Past, now),
        last_used_before: query.time("last_used_before", Direction::Past, now),
        expires_before: query.time("expires_before", Direction::Future, now),
        created_before: query.time("created_before", Direction::Past, now),
        created_after: query.time("created_after", Direction::Past, now),
    };
    let uid = uid.or(query.user("user", accounts));
    query.finish()?;
    let rows = uid.map_or(Rows::Table(Table::Keys), Rows::KeysOf);
    let sort = query.sort.and_then(|field| sort(field, accounts));
    Ok(Search {
        rows,
        matches: filter.matching(accounts.clone()),
        sort,
        after: query.position()?,
        limit: query.limit,
    })
}

fn application(query: &mut ListQuery, accounts: &Accounts) -> Result<Option<String>, Denial> {
    let Some(id) = query.text("application").map(str::to_owned) else { return Ok(None) };
    let found = accounts.get::<Application>(&id).map_err(crate::api::response::denial)?;
    if found.is_none() {
        let message = format!("There is no application {}.", id.escape_debug());
        query.reject("application", message, "Send the id of an application.");
    }
    Ok(Some(id))
}

impl KeyFilter {
    fn matching(self, accounts: Accounts) -> Filter<Key> {
        Box::new(move |key| {
            let is_before =
                |time: Timestamp, limit: Option<Timestamp>| limit.is_none_or(|limit| time < limit);
            let fits = self.state.is_none_or(|word| state(key, self.now) == word)
                && self.label.as_ref().is_none_or(|label| label.matches(&key.label))
                && (self.application.is_none() || key.application == self.application)
                && is_before(key.created, self.created_before)
                && self.created_after.is_none_or(|limit| key.created >= limit)
                && (self.expires_before.is_none()
                    || key.ends().is_some_and(|end| is_before(end, self.expires_before)));
            if !fits || self.unused_since.is_none() && self.last_used_before.is_none() {
                return Ok(fits);
            }
            let last = accounts.usage_of(key.id)?.map(|usage| usage.last);
            // A key that is younger than the time was not unused since that time.
            let is_unused = self
                .unused_since
                .is_none_or(|since| key.created < since && last.is_none_or(|last| last < since));
            let is_old = self.last_used_before.is_none()
                || last.is_some_and(|last| is_before(last, self.last_used_before));
            Ok(is_unused && is_old)
        })
    }
}

/// The order of a list of keys. `None` means the order of the rows.
fn sort(field: SortField, accounts: &Accounts) -> Option<Sort<Key>> {
    let SortField { name, descending } = field;
    let accounts = accounts.clone();
    let of_time =
        |time: Option<Timestamp>, none: i64| SortKey::Number(time.map_or(none, |time| time.0));
    Some(Sort {
        descending,
        key: match name {
            "id" if !descending => return None,
            "id" => Box::new(|key| Ok(SortKey::Text(key.id.to_string()))),
            "user" => Box::new(move |key| {
                let user = accounts.directory().user(key.user);
                Ok(SortKey::Text(
                    user.map(|user| crate::model::fold(&user.name)).unwrap_or_default(),
                ))
            }),
            "label" => Box::new(|key| Ok(SortKey::Text(crate::model::fold(&key.label)))),
            "created" => Box::new(move |key| Ok(of_time(Some(key.created), 0))),
            // A key that never ends comes after all that end.
            "expires" => Box::new(move |key| Ok(of_time(key.ends(), i64::MAX))),
            // A key that was never used comes before all that were used.
            _ => Box::new(move |key| {
                let usage = accounts.usage_of(key.id)?;
                Ok(of_time(usage.map(|usage| usage.last), i64::MIN))
            }),
        },
    })
}
