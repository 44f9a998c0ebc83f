//! `/api/v1/audit`: listing and verifying the audit trail.

use ::http::StatusCode;
use serde_json::{Value, json};

use super::{
    ApiRequest,
    list::{self, ExtraParameter, ListQuery},
    response,
};
use crate::{
    accounts::NumberedEntry, handlers::PayloadResponse, pipeline::Denial,
    store::audit_log::AuditVerdict,
};

pub(super) async fn list(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let query = ListQuery::parse(request.head, ExtraParameter::Order)?;
    let after = query.cursor(|cursor| cursor.parse().ok())?;
    let page = request.accounts.audit(query.order, after, query.limit).map_err(response::denial)?;
    let last = page.items.last().map(|entry| entry.number.to_string());
    let items = page.items.iter().map(view).collect();
    Ok(list::page(items, last.filter(|_| page.has_more)))
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

fn view(numbered: &NumberedEntry) -> Value {
    let entry = &numbered.entry;
    let mut view = json!({
        "number": numbered.number,
        "time": entry.time.to_string(),
        "actor": entry.actor,
        "action": entry.act.action,
        "object": entry.act.object,
        "before": entry.act.before,
        "after": entry.act.after,
        "hash": numbered.hash,
    });
    if let Some(operator) = &entry.operator {
        view["operator"] = json!(operator);
    }
    if let Some(generation) = numbered.generation {
        view["generation"] = json!(generation);
    }
    view
}
