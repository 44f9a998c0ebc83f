//! `/api/v1/audit`: who did what.

use ::http::StatusCode;
use serde_json::{Value, json};

use super::{
    Call,
    list::{self, Also, Asked},
    response,
};
use crate::{
    accounts::NumberedEntry, handlers::PayloadResponse, pipeline::Denial, store::audit_log::AuditVerdict,
};

pub(super) fn list(call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let asked = Asked::of(call.request, Also::Order)?;
    let after = asked.cursor(|cursor| cursor.parse().ok())?;
    let part = call.accounts.audit(asked.order, after, asked.limit).map_err(response::denial)?;
    let last = part.items.last().map(|entry| entry.number.to_string());
    let items = part.items.iter().map(view).collect();
    Ok(list::part(items, last.filter(|_| part.has_more)))
}

/// Whether the trail is as it was written. It was looked at either way, so the answer is no refusal.
pub(super) async fn verify(call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let verdict = call.accounts.verify_audit().await.map_err(response::denial)?;
    let body = match verdict {
        AuditVerdict::Intact { first, end } => json!({
            "state": "intact",
            "entries": end.number + 1 - first,
            "first": (first <= end.number).then_some(first),
            "last": (first <= end.number).then_some(end.number),
            "hash": end.hash,
        }),
        AuditVerdict::Tampered { number, problem } => {
            json!({ "state": "tampered", "number": number, "problem": problem })
        }
    };
    Ok(response::json(StatusCode::OK, &body))
}

fn view(audited: &NumberedEntry) -> Value {
    let entry = &audited.entry;
    json!({
        "number": audited.number,
        "time": entry.time.to_string(),
        "actor": entry.actor,
        "action": entry.act.action,
        "object": entry.act.object,
        "before": entry.act.before,
        "after": entry.act.after,
        "hash": audited.hash,
    })
}
