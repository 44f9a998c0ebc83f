//! Lists: a part at a time, with a cursor that names the last record of the part before.

use ::http::{StatusCode, request::Parts};
use serde_json::{Value, json};

use super::response;
use crate::{
    accounts::AuditOrder,
    handlers::PayloadResponse,
    model::Violation,
    pipeline::{Denial, Phase},
};

const LIMIT: usize = 100;
const MOST: usize = 1000;

/// What the query of a list asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// How many records.
    pub limit: usize,
    /// Behind which one.
    pub after: Option<String>,
    /// With which name, where the list can be narrowed so.
    pub name: Option<String>,
    /// In which order, where there are two.
    pub order: AuditOrder,
}

/// What a list can be asked for besides how much and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Also {
    Nothing,
    /// `name`: one record.
    Name,
    /// `order`: `newest` or `oldest` first.
    Order,
}

impl Asked {
    /// Reads the query.
    pub fn of(request: &Parts, also: Also) -> Result<Self, Denial> {
        let mut asked = Self { limit: LIMIT, after: None, name: None, order: AuditOrder::Newest };
        let mut violations = Vec::new();
        let query = request.uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "limit" => match value.parse() {
                    Ok(limit @ 1..=MOST) => asked.limit = limit,
                    _ => violations.push(Violation::new(
                        "limit",
                        "The limit of a list is a number from 1 to 1000.",
                        "Use a smaller one and follow `next`.",
                    )),
                },
                "after" => asked.after = Some(value.into_owned()),
                "name" if also == Also::Name => asked.name = Some(value.into_owned()),
                "order" if also == Also::Order => match &*value {
                    "newest" => asked.order = AuditOrder::Newest,
                    "oldest" => asked.order = AuditOrder::Oldest,
                    _ => violations.push(Violation::new(
                        "order",
                        "There is no such order.",
                        "Use newest or oldest: which comes first.",
                    )),
                },
                _ => violations.push(Violation::new(
                    name.chars().take(64).collect::<String>(),
                    "There is no such parameter.",
                    match also {
                        Also::Nothing => "Use limit or after.",
                        Also::Name => "Use limit, after or name.",
                        Also::Order => "Use limit, after or order.",
                    },
                )),
            }
        }
        if violations.is_empty() { Ok(asked) } else { Err(unfit(violations)) }
    }

    /// The cursor as what the records of the list are ordered by.
    pub fn cursor<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Denial> {
        let Some(after) = &self.after else { return Ok(None) };
        read(after).map(Some).ok_or_else(|| {
            unfit(vec![Violation::new(
                "after",
                "This is not a cursor of this list.",
                "Use the `next` of the part before, as it came.",
            )])
        })
    }
}

fn unfit(violations: Vec<Violation>) -> Denial {
    let said = "The query is not in order.";
    Denial::message(Phase::Handler, StatusCode::BAD_REQUEST, "INVALID_QUERY", said)
        .with_violations(violations)
}

/// A part of a list; `next` is where the one behind it begins, or null.
pub(super) fn part(items: Vec<Value>, next: Option<String>) -> PayloadResponse {
    response::json(StatusCode::OK, &json!({ "items": items, "next": next }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Result<Asked, usize> {
        let request = ::http::Request::get(format!("/x?{query}")).body(()).unwrap();
        Asked::of(&request.into_parts().0, Also::Nothing).map_err(|denial| denial.violations.len())
    }

    #[test]
    fn a_query_is_read_whole_or_refused() {
        let asked = of("limit=7&after=a%20b").unwrap();
        assert_eq!((asked.limit, asked.after.as_deref()), (7, Some("a b")));
        assert_eq!(of("").unwrap().limit, LIMIT);
        for bad in ["limit=0", "limit=1001", "limit=x", "limit=", "limit=-1", "page=2", "name=x"] {
            assert_eq!(of(bad), Err(1), "{bad}");
        }
        assert_eq!(of("limit=0&a=b"), Err(2));
    }
}
