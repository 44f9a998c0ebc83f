//! Roles, applications and resources: the kinds of records with an id that a person chose.

use serde::{Serialize, de::DeserializeOwned};

use super::{
    AccountError, Accounts, Page, Versioned, Writer,
    rules::{check_application, check_resource, ensure_valid},
    writer::{Attempt, PendingCommit},
};
use crate::{
    model::{Act, Application, KeySource, Resource, Role, Violation},
    store::{Batch, Expected, Sequence, Table, encode},
};

/// A record with an id that a person chose.
pub trait PolicyRecord: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync {
    /// The name of this kind of record in messages, such as `role`.
    const WHAT: &'static str;
    /// The table of these records.
    const TABLE: Table;

    /// The record's id.
    fn id(&self) -> &str;

    /// The violations of the record.
    fn violations(&self, accounts: &Accounts) -> Vec<Violation>;

    /// The reason why the record cannot be deleted. `None` means that the record can be deleted.
    fn deletion_blocker(id: &str, accounts: &Accounts) -> Option<AccountError>;

    /// Whether only an administrator may make this change. `before` is `None` for a new record,
    /// `after` is `None` for a deletion.
    fn needs_admin(before: Option<&Self>, after: Option<&Self>) -> bool {
        let _ = (before, after);
        false
    }

    /// Checks a change against other records, and adds expectations about these records to the
    /// batch. `after` is `None` for a deletion.
    fn check_change(
        before: &Self,
        after: Option<&Self>,
        accounts: &Accounts,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        let _ = (before, after, accounts, batch);
        Ok(())
    }

    /// Adds the changes of other records that writing this record makes necessary.
    fn write_dependents(&self, accounts: &Accounts, batch: &mut Batch) -> Result<(), AccountError> {
        let _ = (accounts, batch);
        Ok(())
    }
}

impl PolicyRecord for Role {
    const WHAT: &'static str = "role";
    const TABLE: Table = Table::Roles;

    fn id(&self) -> &str {
        &self.id
    }

    fn violations(&self, _: &Accounts) -> Vec<Violation> {
        self.check()
    }

    fn deletion_blocker(id: &str, accounts: &Accounts) -> Option<AccountError> {
        if Self::is_locked(id) {
            return Some(AccountError::refused(
                format!("The role {id} is built in and cannot be deleted."),
                "Remove the role's permissions instead.",
            ));
        }
        accounts.directory().has_user_with_role(id).then(|| {
            AccountError::refused(
                format!("The role {id} is held by users."),
                "Remove the role from these users first.",
            )
        })
    }

    fn needs_admin(before: Option<&Self>, after: Option<&Self>) -> bool {
        before.is_some_and(|role| role.is_admin) || after.is_some_and(|role| role.is_admin)
    }

    fn check_change(
        before: &Self,
        after: Option<&Self>,
        accounts: &Accounts,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        accounts.require_remaining_admin_role(before, after, batch)
    }
}

impl PolicyRecord for Application {
    const WHAT: &'static str = "application";
    const TABLE: Table = Table::Applications;

    fn id(&self) -> &str {
        &self.id
    }

    fn violations(&self, accounts: &Accounts) -> Vec<Violation> {
        check_application(accounts, self)
    }

    fn deletion_blocker(id: &str, accounts: &Accounts) -> Option<AccountError> {
        let policy = accounts.directory().policy();
        let names_application = |resource: &Resource| {
            resource.rules.each().any(|rules| rules.authentication.contains(id))
        };
        let mut resources = policy.routes.resources();
        if let Some(resource) = resources.find(|resource| names_application(resource)) {
            return Some(AccountError::refused(
                format!("The application {id} is named by the resource {}.", resource.id),
                "Remove the application from the resource first.",
            ));
        }
        // If a new application gets the same id later, the bound keys would work again.
        let count = accounts.directory().keys_bound_to(id);
        (count > 0).then(|| {
            AccountError::refused(
                format!(
                    "Keys that are not revoked are bound to the application {id}: {count} keys."
                ),
                "Revoke these keys first, or disable the application instead.",
            )
        })
    }

    /// Only administrators may create, delete or change the universal setting of an application,
    /// because a universal key acts as any user.
    fn needs_admin(before: Option<&Self>, after: Option<&Self>) -> bool {
        let settings =
            |application: &Self| (application.key_source, application.universal_administrators);
        let is_universal = |application: Option<&Self>| {
            application.is_some_and(|record| record.key_source == KeySource::Universal)
        };
        before.map(settings) != after.map(settings) && (is_universal(before) || is_universal(after))
    }

    /// If this application is the default, the former default loses the flag in the same commit,
    /// because at most one application is the default.
    fn write_dependents(&self, accounts: &Accounts, batch: &mut Batch) -> Result<(), AccountError> {
        if !self.is_default {
            return Ok(());
        }
        for other in accounts.list::<Self>(None, usize::MAX)?.items {
            if other.record.is_default && other.record.id != self.id {
                let mut record = other.record;
                record.is_default = false;
                let key = record.id.clone();
                batch.expect(Self::TABLE, key.clone(), Expected::Revision(other.revision));
                batch.put(Self::TABLE, key, encode(&record));
            }
        }
        Ok(())
    }
}

impl PolicyRecord for Resource {
    const WHAT: &'static str = "resource";
    const TABLE: Table = Table::Resources;

    fn id(&self) -> &str {
        &self.id
    }

    fn violations(&self, accounts: &Accounts) -> Vec<Violation> {
        check_resource(accounts, self)
    }

    fn deletion_blocker(_: &str, _: &Accounts) -> Option<AccountError> {
        None
    }
}

impl Accounts {
    /// The record with this id.
    pub fn get<T: PolicyRecord>(&self, id: &str) -> Result<Option<Versioned<T>>, AccountError> {
        self.read(T::TABLE, id.as_bytes())
    }

    /// A page of records, sorted by id. The page begins after the record `after`, or with the first
    /// record if `after` is `None`.
    pub fn list<T: PolicyRecord>(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<T>, AccountError> {
        self.page(T::TABLE, after.map(str::as_bytes), limit)
    }

    pub(super) fn read<T: DeserializeOwned>(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Versioned<T>>, AccountError> {
        let Some(stored) = self.store().get(table, key)? else { return Ok(None) };
        Ok(Some(Versioned { revision: stored.revision, record: stored.read(table, key)? }))
    }

    pub(super) fn page<T: DeserializeOwned>(
        &self,
        table: Table,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page<T>, AccountError> {
        let mut found = self.store().scan(table, &[], after, limit.saturating_add(1))?;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let items = found
            .into_iter()
            .map(|(key, stored)| {
                Ok(Versioned { revision: stored.revision, record: stored.read(table, &key)? })
            })
            .collect::<Result<_, AccountError>>()?;
        Ok(Page { items, has_more })
    }
}

impl Writer {
    /// Creates a record.
    pub async fn create<T: PolicyRecord>(&self, record: T) -> Result<Versioned<T>, AccountError> {
        self.admin_only_if(T::needs_admin(None, Some(&record)))?;
        ensure_valid(record.violations(self))?;
        let attempt = || {
            let mut batch = Batch::new();
            batch.expect(T::TABLE, record.id(), Expected::Missing);
            batch.put(T::TABLE, record.id(), encode(&record));
            record.write_dependents(self, &mut batch)?;
            let act = Act::create(T::WHAT, record.id(), &record);
            let exists = Violation::new(
                "id",
                format!("There is a {} {} already.", T::WHAT, record.id()),
                "Choose another id, or change the existing record.",
            );
            let record = record.clone();
            let pending = PendingCommit::new(batch, act, |revision| Versioned { revision, record });
            Ok(pending
                .on_conflict(|conflict| {
                    let is_taken = conflict.state == Expected::Missing;
                    is_taken.then(|| Err(AccountError::Invalid(vec![exists])))
                })
                .into())
        };
        self.update(attempt).await
    }

    /// Changes a record. The parameters have the same meaning as for [`Writer::change_user`]. The
    /// id of a record cannot be changed.
    pub async fn change<T: PolicyRecord, E: From<AccountError>>(
        &self,
        id: &str,
        expected: Option<Sequence>,
        mut edit: impl FnMut(&mut T) -> Result<(), E>,
    ) -> Result<Versioned<T>, E> {
        let attempt = || {
            let before = self.current::<T>(id, expected)?;
            let mut record = before.record.clone();
            edit(&mut record)?;
            self.admin_only_if(T::needs_admin(Some(&before.record), Some(&record)))?;
            if record.id() != id {
                return Err(AccountError::Invalid(vec![Violation::new(
                    "id",
                    format!("The id of a {} cannot be changed.", T::WHAT),
                    "Create a new record and delete the old one.",
                )])
                .into());
            }
            if record == before.record {
                return Ok(Attempt::Unchanged(before));
            }
            ensure_valid(record.violations(self))?;
            let mut batch = Batch::new();
            batch.expect(T::TABLE, id, Expected::Revision(before.revision));
            batch.put(T::TABLE, id, encode(&record));
            T::check_change(&before.record, Some(&record), self, &mut batch)?;
            record.write_dependents(self, &mut batch)?;
            let act = Act::change(T::WHAT, "change", id, &before.record, &record);
            let finish = |revision| Versioned { revision, record };
            Ok(PendingCommit::new(batch, act, finish).into())
        };
        self.update(attempt).await
    }

    /// Deletes a record.
    pub async fn delete<T: PolicyRecord>(
        &self,
        id: &str,
        expected: Option<Sequence>,
    ) -> Result<(), AccountError> {
        let attempt = || {
            let before = self.current::<T>(id, expected)?;
            self.admin_only_if(T::needs_admin(Some(&before.record), None))?;
            if let Some(problem) = T::deletion_blocker(id, self) {
                return Err(problem);
            }
            let mut batch = Batch::new();
            batch.expect(T::TABLE, id, Expected::Revision(before.revision));
            batch.delete(T::TABLE, id);
            T::check_change(&before.record, None, self, &mut batch)?;
            let act = Act::delete(T::WHAT, id, &before.record);
            Ok(PendingCommit::new(batch, act, |_| ()).into())
        };
        self.update(attempt).await
    }

    fn current<T: PolicyRecord>(
        &self,
        id: &str,
        expected: Option<Sequence>,
    ) -> Result<Versioned<T>, AccountError> {
        let before = self.get::<T>(id)?.ok_or_else(|| AccountError::not_found(T::WHAT, id))?;
        before.expect_revision(expected)
    }
}

impl<T> Versioned<T> {
    /// Returns an error if the revision of the record is not `expected`: another writer has changed
    /// the record since the caller read it. `None` accepts every revision.
    pub(super) fn expect_revision(self, expected: Option<Sequence>) -> Result<Self, AccountError> {
        match expected {
            Some(expected) if expected != self.revision => {
                Err(AccountError::Stale { current: self.revision })
            }
            _ => Ok(self),
        }
    }
}
