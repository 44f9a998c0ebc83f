//! Revokes many keys.

use super::{KeySelection, MOST_CHANGED, MOST_READ, PartOfMany};
use crate::{
    accounts::{
        AccountError, Page, Writer,
        keys::replace_key,
        writer::{Attempt, PendingCommit},
    },
    model::{Act, Key, KeyId, Mode},
    store::Batch,
};

/// A request for one part of a revocation of many keys.
#[derive(Debug, Clone)]
pub struct RevokeMany {
    /// The keys.
    pub selection: KeySelection,
    /// Whether the change is written.
    pub mode: Mode,
    /// The key after which the part begins. `None` means that the part begins with the first key.
    pub after: Option<KeyId>,
}

impl Writer {
    /// Revokes the selected keys among the next keys. Keys that the actor may not change are left
    /// out and counted. Keys that are revoked already stay unchanged.
    ///
    /// # Errors
    /// The store cannot write. Then nothing of this part is changed.
    pub async fn revoke_many_keys(&self, many: &RevokeMany) -> Result<PartOfMany, AccountError> {
        let attempt = || async move {
            let page = self.page_of_many(many)?;
            let (mut part, mut batch) = (PartOfMany::default(), Batch::new());
            let (mut acts, mut webhooks) = (Vec::new(), Vec::new());
            let (mut last, mut is_full) = (None, false);
            for before in page.items {
                last = Some(before.record.id.number());
                if !many.selection.selects(&before.record) {
                    continue;
                }
                part.matched += 1;
                if before.record.revoked.is_some() {
                    part.unchanged += 1;
                    continue;
                }
                if let Err(problem) = self.require_authority_over(before.record.user) {
                    part.leave_out(problem)?;
                    continue;
                }
                part.count_changed(before.record.id, &self.user_name(before.record.user));
                if many.mode == Mode::Live {
                    let mut key = before.record.clone();
                    key.revoked = Some(self.clock().now());
                    let change = replace_key(&before, &key);
                    batch.expects.extend(change.expects);
                    batch.writes.extend(change.writes);
                    webhooks.extend(self.notify_revoked(&key).await);
                    acts.push(Act::change("key", "revoke", key.id, &before.record, &key));
                }
                is_full = part.changed >= MOST_CHANGED;
                if is_full {
                    break;
                }
            }
            part.next = last.filter(|_| is_full || page.has_more);
            let Some(last_act) = acts.pop() else { return Ok(Attempt::Unchanged(part)) };
            let pending = PendingCommit::new(batch, last_act, move |_| part);
            Ok(pending.with_entries(acts).with_webhooks(webhooks).into())
        };
        self.update_async(attempt).await
    }

    fn page_of_many(&self, many: &RevokeMany) -> Result<Page<Key>, AccountError> {
        match many.selection.only_user() {
            Some(uid) => self.keys_of(uid, many.after, MOST_READ),
            None => self.keys(many.after, MOST_READ),
        }
    }
}
