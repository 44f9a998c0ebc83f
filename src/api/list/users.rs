//! The filters and orders of the list of users.

use super::{ListParameters, ListQuery, SortField, values::Direction};
use crate::{
    accounts::{Accounts, Filter, Rows, Search, Sort, SortKey, TextPattern},
    api::response,
    model::{AUTHENTICATED, Role, Timestamp, User, fold},
    pipeline::Denial,
    store::Table,
};

/// The parameters of the list of users.
pub(in crate::api) const USERS: ListParameters = ListParameters {
    filters: &["name", "mail", "role", "active", "created_before", "created_after"],
    sorts: &["uid", "name", "mail", "created", "changed", "access", "login"],
};

/// Reads a search for users.
pub(in crate::api) fn search(
    query: &mut ListQuery,
    accounts: &Accounts,
) -> Result<Search<User>, Denial> {
    let now = accounts.clock().now();
    let (mut name, mail) = (query.pattern("name"), query.pattern("mail"));
    let role = role(query, accounts)?;
    let active = query.flag("active");
    let before = query.time("created_before", Direction::Past, now);
    let after = query.time("created_after", Direction::Past, now);
    query.finish()?;
    let is_by_name = query.sort == Some(SortField { name: "name", descending: false });
    let rows = match (query.text("name"), &name, query.text("mail"), &mail) {
        (Some(text), Some(TextPattern::Whole(_)), _, _) => user_with_name(text, accounts),
        (_, Some(TextPattern::Beginning(beginning)), _, _) => Rows::Names(beginning.clone()),
        _ if is_by_name => Rows::Names(String::new()),
        (_, _, _, Some(TextPattern::Whole(text) | TextPattern::Beginning(text)))
            if !text.is_empty() =>
        {
            Rows::Mails(text.clone())
        }
        _ => Rows::Table(Table::Users),
    };
    // The directory has compared a whole name already.
    name = name.filter(|name| matches!(name, TextPattern::Beginning(_)));
    // The rows of names are in this order already.
    let sort = query.sort.filter(|_| !(is_by_name && matches!(rows, Rows::Names(_))));
    let matches: Filter<User> = Box::new(move |user| {
        let has_role = |role: &String| role == AUTHENTICATED || user.roles.contains(role);
        let mail_matches =
            |mail: &TextPattern| user.mail.as_deref().is_some_and(|address| mail.matches(address));
        Ok(name.as_ref().is_none_or(|name| name.matches(&user.name))
            && mail.as_ref().is_none_or(mail_matches)
            && role.as_ref().is_none_or(has_role)
            && active.is_none_or(|active| user.status == active)
            && before.is_none_or(|limit| user.created < limit)
            && after.is_none_or(|limit| user.created >= limit))
    });
    let (after, limit) = (query.position()?, query.limit);
    Ok(Search { rows, matches, sort: sort.and_then(order), after, limit })
}

/// The row of the user with this name. The operator has no record.
fn user_with_name(name: &str, accounts: &Accounts) -> Rows {
    accounts.directory().user_by_name(name).map_or(Rows::None, |user| Rows::User(user.uid))
}

fn role(query: &mut ListQuery, accounts: &Accounts) -> Result<Option<String>, Denial> {
    let Some(id) = query.text("role").map(str::to_owned) else { return Ok(None) };
    if accounts.get::<Role>(&id).map_err(response::denial)?.is_none() {
        let message = format!("There is no role {}.", id.escape_debug());
        query.reject("role", message, "Send the id of a role.");
    }
    Ok(Some(id))
}

/// The order of the list. `None` means the order of the rows.
fn order(field: SortField) -> Option<Sort<User>> {
    let SortField { name, descending } = field;
    let of_time = |time: Timestamp| Ok(SortKey::Number(time.0));
    Some(Sort {
        descending,
        key: match name {
            "uid" => Box::new(|user| Ok(SortKey::Number(user.uid.cast_signed()))),
            "name" => Box::new(|user| Ok(SortKey::Text(fold(&user.name)))),
            "mail" => Box::new(|user| {
                Ok(SortKey::Text(user.mail.as_deref().map(fold).unwrap_or_default()))
            }),
            "created" => Box::new(move |user| of_time(user.created)),
            "changed" => Box::new(move |user| of_time(user.changed)),
            "access" => Box::new(move |user| of_time(user.access)),
            _ => Box::new(move |user| of_time(user.login)),
        },
    })
}
