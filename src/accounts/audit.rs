//! Reading and verifying the audit trail.

use super::{AccountError, Accounts};
use crate::{
    model::{AuditEntry, Digest},
    store::{
        Table,
        audit_log::{self, AuditVerdict},
        decode, table,
    },
};

/// An entry with its position in the chain.
#[derive(Debug, Clone)]
pub struct NumberedEntry {
    /// The number of the entry.
    pub number: u64,
    /// The hash of the entry, which depends on all entries before it.
    pub hash: Digest,
    /// The entry.
    pub entry: AuditEntry,
}

/// The order of a page of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOrder {
    /// The oldest entry comes first.
    Oldest,
    /// The newest entry comes first.
    Newest,
}

/// A page of the audit trail.
#[derive(Debug, Clone)]
pub struct AuditPage {
    /// The entries.
    pub items: Vec<NumberedEntry>,
    /// Whether more entries follow in this order.
    pub has_more: bool,
}

impl Accounts {
    /// At most `limit` entries that follow the entry with the number `after` in this order.
    pub fn audit(
        &self,
        order: AuditOrder,
        after: Option<u64>,
        limit: usize,
    ) -> Result<AuditPage, AccountError> {
        let (first, last) = audit_log::first_and_last(self.store())?;
        // The numbers have no gaps, so the first number of a backward page can be computed.
        let before = match order {
            AuditOrder::Oldest => after.unwrap_or(0).max(first - 1),
            AuditOrder::Newest => {
                let end = after.map_or(last, |after| after.saturating_sub(1).min(last));
                let begin = end.saturating_sub(limit as u64).max(first - 1);
                return self.newest_first(begin, end, first);
            }
        };
        let mut found = audit_log::entries(self.store(), before, limit.saturating_add(1))?;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let items = found.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(AuditPage { items, has_more })
    }

    /// The entries after `begin` up to and including `end`, the newest first.
    fn newest_first(&self, begin: u64, end: u64, first: u64) -> Result<AuditPage, AccountError> {
        let count = end.saturating_sub(begin) as usize;
        let mut items = audit_log::entries(self.store(), begin, count)?
            .into_iter()
            .filter(|entry| entry.number <= end)
            .map(read)
            .collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(AuditPage { has_more: begin >= first, items })
    }

    /// Verifies the whole trail. It may be long, so this runs on a thread of its own.
    pub async fn verify_audit(&self) -> Result<AuditVerdict, AccountError> {
        let accounts = self.clone();
        let verifying = tokio::task::spawn_blocking(move || {
            audit_log::verify(accounts.store(), &accounts.0.pepper.audit_key())
        });
        let verdict = verifying.await.map_err(|_| {
            AccountError::refused("The audit trail could not be read to its end.", "Try again.")
        })?;
        Ok(verdict?)
    }
}

fn read(entry: audit_log::ChainEntry) -> Result<NumberedEntry, AccountError> {
    let audit_log::ChainEntry { number, hash, json } = entry;
    let entry = decode(Table::Audit, &table::audit(number), &json)?;
    Ok(NumberedEntry { number, hash, entry })
}
