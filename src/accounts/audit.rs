//! Reading the audit trail.

use super::{AccountError, Accounts};
use crate::{
    model::{AuditEntry, Digest},
    store::{
        Table,
        audit_log::{self, Verdict},
        decode,
    },
};

/// An entry with its place in the chain.
#[derive(Debug, Clone)]
pub struct Audited {
    /// Its number.
    pub number: u64,
    /// Its hash, which depends on all entries before it.
    pub hash: Digest,
    /// What it says.
    pub entry: AuditEntry,
}

/// In which order entries are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The first first.
    Oldest,
    /// The last first.
    Newest,
}

/// A part of the trail.
#[derive(Debug, Clone)]
pub struct Excerpt {
    /// The entries.
    pub items: Vec<Audited>,
    /// Whether there are more in this direction.
    pub has_more: bool,
}

impl Accounts {
    /// At most `limit` entries in this order, behind the one with the number `after`.
    pub fn audit(
        &self,
        order: Order,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Excerpt, AccountError> {
        let (first, last) = audit_log::extent(self.store())?;
        // Numbers follow one another, so a part that is read backwards is known by where it begins.
        let before = match order {
            Order::Oldest => after.unwrap_or(0).max(first - 1),
            Order::Newest => {
                let end = after.map_or(last, |after| after.saturating_sub(1).min(last));
                let begin = end.saturating_sub(limit as u64).max(first - 1);
                return self.backwards(begin, end, first);
            }
        };
        let mut found = audit_log::entries(self.store(), before, limit.saturating_add(1))?;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let items = found.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Excerpt { items, has_more })
    }

    /// The entries behind `begin` up to `end`, the last first.
    fn backwards(&self, begin: u64, end: u64, first: u64) -> Result<Excerpt, AccountError> {
        let wanted = end.saturating_sub(begin) as usize;
        let mut items = audit_log::entries(self.store(), begin, wanted)?
            .into_iter()
            .filter(|entry| entry.number <= end)
            .map(read)
            .collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(Excerpt { has_more: begin >= first, items })
    }

    /// Goes through the whole trail, on a thread of its own: it may be long.
    pub async fn verify_audit(&self) -> Result<Verdict, AccountError> {
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

fn read(entry: audit_log::Entry) -> Result<Audited, AccountError> {
    let audit_log::Entry { number, hash, json } = entry;
    let entry = decode(Table::Audit, &number.to_be_bytes(), &json)?;
    Ok(Audited { number, hash, entry })
}
