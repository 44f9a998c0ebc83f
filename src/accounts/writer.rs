//! Accounts in somebody's hands. Whatever changes records needs to know whose hands they are, so no change can be made that the audit trail
//! does not tell of: it is written in the same commit.

use std::ops::Deref;

use super::Accounts;
use crate::{
    model::{Act, Actor, AuditEntry},
    scripting::Webhook,
    store::{Batch, CommitError, Sequence, audit_log::AuditAppend, encode},
};

/// Accounts that somebody may change. A cheap handle.
#[derive(Clone)]
pub struct Writer {
    accounts: Accounts,
    actor: Actor,
}

impl Accounts {
    /// The accounts in the hands of `actor`, with whom every change is signed.
    pub fn acting(&self, actor: Actor) -> Writer {
        Writer { accounts: self.clone(), actor }
    }
}

impl Deref for Writer {
    type Target = Accounts;

    fn deref(&self) -> &Accounts {
        &self.accounts
    }
}

impl Writer {
    /// Who acts.
    pub(super) fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Writes a batch, what the audit trail says of it, and the webhooks that tell of it: all or nothing.
    pub(super) async fn commit_telling(
        &self,
        mut batch: Batch,
        act: Act,
        webhooks: Vec<Webhook>,
    ) -> Result<Sequence, CommitError> {
        let post = self.post(webhooks, &mut batch);
        let sequence = self.commit(batch, act).await?;
        post.set_free();
        Ok(sequence)
    }

    /// Writes a batch and what the audit trail says of it: both or neither.
    pub(super) async fn commit(&self, mut batch: Batch, act: Act) -> Result<Sequence, CommitError> {
        let entry = AuditEntry { time: self.0.clock.now(), actor: self.actor.clone(), act };
        let key = self.0.pepper.audit_key();
        batch.trace =
            Some(AuditAppend { entries: vec![encode(&entry)], key, keep: self.0.audit_entries });
        self.store().commit(batch).await
    }
}
