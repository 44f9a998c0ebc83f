//! Paginated lists. The cursor of a page names the last record of the page before.

use ::http::{StatusCode, request::Parts};
use serde_json::{Value, json};

use super::response;
use crate::{
    accounts::AuditOrder,
    handlers::PayloadResponse,
    model::Violation,
    pipeline::{Denial, Phase},
};

/// The default number of records of a page.
const LIMIT: usize = 100;
/// The most records of a page.
const MOST: usize = 1000;

/// The query parameters of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListQuery {
    /// The most records of the page.
    pub limit: usize,
    /// The last record of the page before.
    pub after: Option<String>,
    /// The name of the record, for lists that can be searched by name.
    pub name: Option<String>,
    /// The order, for lists that can be read in both directions.
    pub order: AuditOrder,
}

/// The parameter that a list accepts besides `limit` and `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExtraParameter {
    None,
    /// `name` selects one record.
    Name,
    /// `order` is `newest` or `oldest`: the entries that come first.
    Order,
}

impl ListQuery {
    /// Parses the query.
    pub fn parse(head: &Parts, extra: ExtraParameter) -> Result<Self, Denial> {
        let mut query = Self { limit: LIMIT, after: None, name: None, order: AuditOrder::Newest };
        let mut violations = Vec::new();
        let text = head.uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "limit" => match value.parse() {
                    Ok(limit @ 1..=MOST) => query.limit = limit,
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
                        "There is no such order.",
                        "Use newest or oldest: the entries that come first.",
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

    /// Parses the cursor, with the function that parses the ids of the list.
    pub fn cursor<T>(&self, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Denial> {
        let Some(after) = &self.after else { return Ok(None) };
        parse(after).map(Some).ok_or_else(|| {
            invalid_query(vec![Violation::new(
                "after",
                "This is not a cursor of this list.",
                "Use the `next` of the page before, unchanged.",
            )])
        })
    }
}

pub(super) fn invalid_query(violations: Vec<Violation>) -> Denial {
    let message = "The query is invalid.";
    Denial::message(Phase::Handler, StatusCode::BAD_REQUEST, "INVALID_QUERY", message)
        .with_violations(violations)
}

/// The response with one page. `next` is the cursor of the next page; `None` means the last page.
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
    fn invalid_parameters_are_rejected_together() {
        let query = parse("limit=7&after=a%20b").unwrap();
        assert_eq!((query.limit, query.after.as_deref()), (7, Some("a b")));
        assert_eq!(parse("").unwrap().limit, LIMIT);
        for bad in ["limit=0", "limit=1001", "limit=x", "limit=", "limit=-1", "page=2", "name=x"] {
            assert_eq!(parse(bad), Err(1), "{bad}");
        }
        assert_eq!(parse("limit=0&a=b"), Err(2));
    }
}
