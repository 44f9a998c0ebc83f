//! The filters of the audit trail.

use super::{
    ListParameters, ListQuery,
    values::{Direction, parse_uid},
};
use crate::{
    accounts::{Accounts, AuditFilter, AuditOrder},
    api::response,
    model::KeyId,
    pipeline::Denial,
};

/// The parameters of the list of audit entries.
pub(in crate::api) const AUDIT: ListParameters = ListParameters {
    filters: &["order", "user", "key", "action", "object", "since", "until"],
    sorts: &[],
};

/// Reads the order and the filters.
pub(in crate::api) async fn filter(
    query: &mut ListQuery,
    accounts: &Accounts,
) -> Result<(AuditOrder, AuditFilter), Denial> {
    let now = accounts.clock().now();
    let order = match query.text("order") {
        None | Some("newest") => AuditOrder::Newest,
        Some("oldest") => AuditOrder::Oldest,
        Some(_) => {
            let fix = "Send newest to get the newest entries first, or oldest to get the oldest.";
            query.reject("order", "This is not an order.", fix);
            AuditOrder::Newest
        }
    };
    let key = query.text("key").map(KeyId::parse);
    if key == Some(None) {
        query.reject("key", "This is not the id of a key.", "An id is 8 letters and digits.");
    }
    let filter = AuditFilter {
        user: user(query, accounts).await?,
        key: key.flatten(),
        action: query.pattern("action"),
        object: query.pattern("object"),
        since: query.time("since", Direction::Past, now),
        until: query.time("until", Direction::Past, now),
    };
    query.finish()?;
    Ok((order, filter))
}

/// The user of the filter, who may be deleted.
async fn user(query: &mut ListQuery, accounts: &Accounts) -> Result<Option<u64>, Denial> {
    let Some(text) = query.text("user").map(str::to_owned) else { return Ok(None) };
    if let Some(uid) = parse_uid(&text) {
        return Ok(Some(uid));
    }
    let found = accounts.present_or_former_user(&text).await.map_err(response::denial)?;
    if found.is_none() {
        let message = format!(
            "There is no user {}, and the audit trail knows no deleted user of this name.",
            text.escape_debug()
        );
        query.reject("user", message, "Send the number or the name of a user.");
    }
    Ok(found)
}
