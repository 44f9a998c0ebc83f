//! `/api/v1/audit`: listing and verifying the audit trail.

use ::http::StatusCode;
use serde_json::{Value, json};

use super::{
    ApiRequest,
    list::{self, ListQuery},
    response,
};
use crate::{
    accounts::{NumberedEntry, Position, UserNames},
    handlers::PayloadResponse,
    model::Timestamp,
    pipeline::Denial,
    store::{audit_log::AuditVerdict, table},
};

/// The fields of records that are times, which the trail has as seconds since 1970.
const TIMES: [&str; 7] = ["created", "changed", "access", "login", "expires", "revoked", "until"];

pub(super) async fn list(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let mut query = ListQuery::parse(request.head, &list::audit::AUDIT);
    // Without filters, a cursor is the number of an entry, and is valid in both orders.
    let is_plain = query.is_plain_except("order");
    let (order, filter) = list::audit::filter(&mut query, &request.accounts).await?;
    let after = if is_plain {
        query.cursor(|cursor| cursor.parse().ok())?
    } else {
        let position = query.position()?;
        position.and_then(|position| match position {
            Position::Row(row) => table::parse_number(&row),
            Position::Sorted(..) => None,
        })
    };
    let found = request.accounts.search_audit(filter, order, after, query.limit).await;
    let found = found.map_err(response::denial)?;
    let items = found.items.iter().map(|entry| view(entry, &found.names)).collect();
    let next = if is_plain {
        found.next.map(|number| number.to_string())
    } else {
        query.next(found.next.map(|number| Position::Row(table::audit(number).into())).as_ref())
    };
    Ok(list::page(items, next))
}

/// Verifies the hash chain of the audit trail. The status is 200 whenever the check completes. The
/// field `state` in the body says whether the chain is intact or tampered.
pub(super) async fn verify(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let verdict = request.accounts.verify_audit().await.map_err(response::denial)?;
    let body = match verdict {
        AuditVerdict::Intact { first, end } => json!({
            "state": "intact",
            "entries": end.number + 1 - first,
            "removed": first - 1,
            "keeps": request.accounts.audit_limit(),
            "first": (first <= end.number).then_some(first),
            "last": (first <= end.number).then_some(end.number),
            "hash": end.hash,
            "generation": (end.number > 0).then_some(end.generation),
        }),
        AuditVerdict::Tampered { number, problem } => {
            json!({ "state": "tampered", "number": number, "problem": problem })
        }
    };
    Ok(response::json(StatusCode::OK, &body))
}

fn view(numbered: &NumberedEntry, names: &UserNames) -> Value {
    let entry = &numbered.entry;
    let mut view = json!({
        "number": numbered.number,
        "time": entry.time.to_string(),
        "actor": entry.actor,
        "action": entry.act.action,
        "object": entry.act.object,
        "before": readable(entry.act.before.as_ref()),
        "after": readable(entry.act.after.as_ref()),
        "hash": numbered.hash,
    });
    if let Some((uid, name)) = names.subject(numbered.number) {
        view["user"] = json!({ "uid": uid, "name": name });
    }
    if let Some(operator) = &entry.operator {
        view["operator"] = json!(operator);
    }
    if let Some(generation) = numbered.generation {
        view["generation"] = json!(generation);
    }
    view
}

/// One side of a change, with its times as texts.
fn readable(side: Option<&Value>) -> Value {
    let mut side = side.cloned().unwrap_or_default();
    format_times(&mut side);
    side
}

/// Replaces the seconds since 1970 in the fields of records that are times.
fn format_times(fields: &mut Value) {
    for (name, value) in fields.as_object_mut().into_iter().flatten() {
        match value.as_i64() {
            // The times of a user are 0 for never.
            Some(0) if ["access", "login"].contains(&name.as_str()) => *value = Value::Null,
            Some(seconds) if TIMES.contains(&name.as_str()) => {
                *value = Timestamp(seconds).to_string().into();
            }
            _ => format_times(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_records_are_texts() {
        let side = json!({
            "revoked": 123_456_789, "login": 0, "uid": 7, "rotated": { "to": "a", "until": 0 },
            "expires": "never",
        });
        let expected = json!({
            "revoked": "1973-11-29T21:33:09+00:00", "login": null, "uid": 7,
            "rotated": { "to": "a", "until": "1970-01-01T00:00:00+00:00" }, "expires": "never",
        });
        assert_eq!(readable(Some(&side)), expected);
        assert_eq!(readable(None), Value::Null);
    }
}
