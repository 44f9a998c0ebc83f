//! Paginated lists. The cursor of a page is the id of the last record of the previous page.

use ::http::{StatusCode, request::Parts};
use serde_json::{Value, json};

use super::response;
use crate::{
    accounts::AuditOrder,
    handlers::PayloadResponse,
    model::Violation,
    pipeline::{Denial, Phase},
};

/// The default maximum number of records in a page.
const DEFAULT_LIMIT: usize = 100;
/// The largest limit that a client may request.
const MAX_LIMIT: usize = 1000;

/// The query parameters of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListQuery {
    /// The maximum number of records in the page.
    pub limit: usize,
    /// The id of the last record of the previous page. `None` means the first page.
    pub after: Option<String>,
    /// The name of the only record that is listed. `None` means that all records are listed.
    pub name: Option<String>,
    /// The order of the entries. Only the list of audit entries uses this field.
    pub order: AuditOrder,
}

/// The query parameter that a list accepts in addition to `limit` and `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExtraParameter {
    None,
    /// `name` selects one record.
    Name,
    /// `order` selects the entries that come first. Its values are `newest` and `oldest`.
    Order,
}

impl ListQuery {
    /// Parses the query.
    pub fn parse(head: &Parts, extra: ExtraParameter) -> Result<Self, Denial> {
        let order = AuditOrder::Newest;
        let mut query = Self { limit: DEFAULT_LIMIT, after: None, name: None, order };
        let mut violations = Vec::new();
        let text = head.uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "limit" => match value.parse() {
                    Ok(limit @ 1..=MAX_LIMIT) => query.limit = limit,
                    _ => violations.push(Violation::new(
                        "limit",
                        "The limit of a list is a number from 1 to 1000.",
                        "Use a smaller limit and follow `next`.",
                    )),
                },
                "after" => query.after = Some(value.into_owned()),
                "name" if extra == ExtraParameter::Name => query.name = Some(value.into_owned()),
                "order" if extra == ExtraParameter::Order => match &*value {
                    "newest" => query.order = AuditOrder::Newest,
                    "oldest" => query.order = AuditOrder::Oldest,
                    _ => violations.push(Violation::new(
                        "order",
                        "This is not an order.",
                        "Send newest to get the newest entries first, or oldest to get the oldest.",
                    )),
                },
                _ => violations.push(Violation::new(
                    name.chars().take(64).collect::<String>(),
                    "There is no such parameter.",
                    match extra {
                        ExtraParameter::None => "Use limit or after.",
                        ExtraParameter::Name => "Use limit, after or name.",
                        ExtraParameter::Order => "Use limit, after or order.",
                    },
                )),
            }
        }
        if violations.is_empty() { Ok(query) } else { Err(invalid_query(violations)) }
    }

    /// Parses the cursor. `parse` parses an id of the list's records. `None` means the first page.
    pub fn cursor<T>(&self, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Denial> {
        let Some(after) = &self.after else { return Ok(None) };
        parse(after).map(Some).ok_or_else(|| {
            invalid_query(vec![Violation::new(
                "after",
                "This is not a cursor of this list.",
                "Send the value of `next` in the previous page, unchanged.",
            )])
        })
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

    fn parse(query: &str) -> Result<ListQuery, usize> {
        let request = ::http::Request::get(format!("/x?{query}")).body(()).unwrap();
        ListQuery::parse(&request.into_parts().0, ExtraParameter::None)
            .map_err(|denial| denial.violations.len())
    }

    #[test]
    fn all_invalid_parameters_are_reported_in_one_denial() {
        let query = parse("limit=7&after=a%20b").unwrap();
        assert_eq!((query.limit, query.after.as_deref()), (7, Some("a b")));
        assert_eq!(parse("").unwrap().limit, DEFAULT_LIMIT);
        for bad in ["limit=0", "limit=1001", "limit=x", "limit=", "limit=-1", "page=2", "name=x"] {
            assert_eq!(parse(bad), Err(1), "{bad}");
        }
        assert_eq!(parse("limit=0&a=b"), Err(2));
    }
}
