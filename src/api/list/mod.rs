//! Paginated lists: the query of a list, and the response with one page.
//!
//! The cursor of a list without filters is the id of the last record of the previous page. With
//! filters or an order, [`cursor`] makes it.

pub(super) mod audit;
mod cursor;
pub(super) mod keys;
pub(super) mod policy;
pub(super) mod users;
mod values;

use std::collections::BTreeMap;

use ::http::{StatusCode, request::Parts};
use serde_json::{Value, json};

use super::response;
use crate::{
    accounts::Position,
    handlers::PayloadResponse,
    model::{Violation, suggest},
    pipeline::{Denial, Phase},
};

/// The default maximum number of records in a page.
const DEFAULT_LIMIT: usize = 100;
/// The largest limit that a client may request.
const MAX_LIMIT: usize = 1000;

/// The parameters that a list accepts in addition to `limit` and `after`.
pub(super) struct ListParameters {
    /// The filters.
    pub filters: &'static [&'static str],
    /// The fields by which the list can be sorted. An empty list means that it cannot be sorted.
    pub sorts: &'static [&'static str],
}

/// The field by which a list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SortField {
    pub name: &'static str,
    pub descending: bool,
}

/// The query of a list.
#[derive(Debug)]
pub(super) struct ListQuery {
    /// The maximum number of records in the page.
    pub limit: usize,
    /// The order. `None` means the order of the ids.
    pub sort: Option<SortField>,
    after: Option<String>,
    filters: BTreeMap<&'static str, String>,
    /// The path of the list, to which a cursor belongs.
    path: String,
    violations: Vec<Violation>,
}

impl ListQuery {
    /// Parses the query. [`ListQuery::finish`] returns the violations.
    pub fn parse(head: &Parts, known: &ListParameters) -> Self {
        let mut query = Self {
            limit: DEFAULT_LIMIT,
            sort: None,
            after: None,
            filters: BTreeMap::new(),
            path: head.uri.path().to_owned(),
            violations: Vec::new(),
        };
        let mut seen = Vec::new();
        let text = head.uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if seen.contains(&name) {
                query.reject(&name, "This parameter is there twice.", "Send it once.");
                continue;
            }
            query.read(&name, &value, known);
            seen.push(name);
        }
        query
    }

    fn read(&mut self, name: &str, value: &str, known: &ListParameters) {
        if let Some(filter) = known.filters.iter().find(|filter| **filter == name) {
            self.filters.insert(filter, value.to_owned());
            return;
        }
        match name {
            "limit" => match value.parse() {
                Ok(limit @ 1..=MAX_LIMIT) => self.limit = limit,
                _ => self.reject(
                    "limit",
                    "The limit of a list is a number from 1 to 1000.",
                    "Use a smaller limit and follow `next`.",
                ),
            },
            "after" => self.after = Some(value.to_owned()),
            "sort" if !known.sorts.is_empty() => {
                let (field, descending) =
                    value.strip_prefix('-').map_or((value, false), |field| (field, true));
                match known.sorts.iter().find(|known| **known == field) {
                    Some(name) => self.sort = Some(SortField { name, descending }),
                    None => self.reject(
                        "sort",
                        "The list cannot be sorted by this.",
                        format!(
                            "Use {}, or a - and one of them for the opposite order.",
                            alternatives(known.sorts.iter().copied())
                        ),
                    ),
                }
            }
            name => {
                let sort = (!known.sorts.is_empty()).then_some("sort");
                let names = ["limit", "after"].into_iter().chain(sort);
                let names = names.chain(known.filters.iter().copied());
                let hint = match suggest(name, names.clone()) {
                    Some(similar) => format!("Did you mean {similar}? "),
                    None => String::new(),
                };
                let fix = format!("{hint}Use {}.", alternatives(names));
                self.reject(name, "There is no such parameter.", fix);
            }
        }
    }

    /// Adds a violation of a parameter.
    pub fn reject(&mut self, name: &str, message: impl Into<String>, fix: impl Into<String>) {
        let name: String = name.chars().take(64).collect();
        self.violations.push(Violation::new(name, message, fix));
    }

    /// Returns the violations, if there are any.
    pub fn finish(&mut self) -> Result<(), Denial> {
        match std::mem::take(&mut self.violations) {
            violations if violations.is_empty() => Ok(()),
            violations => Err(invalid_query(violations)),
        }
    }

    /// Whether the query has neither filters nor an order, except those in `ignored`.
    pub fn is_plain_except(&self, ignored: &str) -> bool {
        self.sort.is_none() && self.filters.keys().all(|name| *name == ignored)
    }

    /// Whether the query has neither filters nor an order.
    pub fn is_plain(&self) -> bool {
        self.is_plain_except("")
    }

    /// Parses the cursor of a list without filters. `parse` parses an id of the list's records.
    /// `None` means the first page.
    pub fn cursor<T>(&self, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Denial> {
        let Some(after) = &self.after else { return Ok(None) };
        if cursor::belongs_to_filters(after) {
            return Err(invalid_query(vec![cursor::of_other_filters()]));
        }
        parse(after).map(Some).ok_or_else(|| invalid_query(vec![cursor::malformed()]))
    }

    /// Parses the cursor of a list with filters or an order. `None` means the first page.
    pub fn position(&self) -> Result<Option<Position>, Denial> {
        let Some(after) = &self.after else { return Ok(None) };
        let position = cursor::parse(after, &self.fingerprint());
        position.map(Some).map_err(|violation| invalid_query(vec![violation]))
    }

    /// The cursor of the page after a position.
    pub fn next(&self, position: Option<&Position>) -> Option<String> {
        position.map(|position| cursor::format(position, &self.fingerprint()))
    }

    /// A short text that differs for other filters and another order.
    fn fingerprint(&self) -> String {
        let sort = self.sort.map(|sort| (sort.name, sort.descending));
        cursor::fingerprint(&json!([self.path, self.filters, sort]))
    }
}

/// Joins words, as in `a, b or c`.
fn alternatives<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.collect();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

pub(super) fn invalid_query(violations: Vec<Violation>) -> Denial {
    let message = "The query is invalid.";
    Denial::message(Phase::Handler, StatusCode::BAD_REQUEST, "INVALID_QUERY", message)
        .with_violations(violations)
}

/// The response with one page. `next` is the cursor of the next page. `None` means that this is the
/// last page.
pub(super) fn page(items: Vec<Value>, next: Option<String>) -> PayloadResponse {
    response::json(StatusCode::OK, &json!({ "items": items, "next": next }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::SortKey;

    const KNOWN: ListParameters =
        ListParameters { filters: &["state", "label"], sorts: &["id", "created"] };

    fn query(text: &str) -> ListQuery {
        let request = ::http::Request::get(format!("/x?{text}")).body(()).unwrap();
        ListQuery::parse(&request.into_parts().0, &KNOWN)
    }

    fn violations(text: &str) -> Vec<Violation> {
        query(text).finish().err().map(|denial| denial.violations.to_vec()).unwrap_or_default()
    }

    #[test]
    fn all_invalid_parameters_are_reported_in_one_denial() {
        let parsed = query("limit=7&after=a%20b");
        assert_eq!((parsed.limit, parsed.after.as_deref()), (7, Some("a b")));
        assert_eq!(query("").limit, DEFAULT_LIMIT);
        for bad in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "limit=",
            "limit=-1",
            "page=2",
            "sort=name",
            "sort=",
            "state=a&state=b",
            "limit=1&limit=1",
        ] {
            assert_eq!(violations(bad).len(), 1, "{bad}");
        }
        assert_eq!(violations("limit=0&a=b").len(), 2);
        let unknown = &violations("lable=x")[0];
        let fix = "Did you mean label? Use limit, after, sort, state or label.";
        assert_eq!((unknown.location.as_str(), unknown.fix.as_str()), ("lable", fix));
    }

    #[test]
    fn cursor_belongs_to_its_filters_and_its_order() {
        for position in [
            Position::Row(vec![0, 1, 255]),
            Position::Sorted(SortKey::Text("é".into()), vec![7]),
            Position::Sorted(SortKey::Number(-3), Vec::new()),
        ] {
            let first = query("state=active&sort=-created");
            let next = first.next(Some(&position)).unwrap();
            let after = |filters: &str| query(&format!("{filters}&after={next}")).position();
            assert_eq!(after("sort=-created&state=active").unwrap(), Some(position));
            for other in ["state=active", "state=revoked&sort=-created", "sort=created", "label=a"]
            {
                assert_eq!(after(other).unwrap_err().status, StatusCode::BAD_REQUEST, "{other}");
            }
            let plain = query(&format!("after={next}"));
            assert!(plain.is_plain() && plain.cursor(|text| Some(text.to_owned())).is_err());
        }
        for forged in ["7", "", ".", "x.y", "%C3%A9"] {
            let cursor = query(&format!("label=a&after={forged}")).position();
            assert!(cursor.is_err(), "{forged}");
        }
    }
}
