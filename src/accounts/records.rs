//! Roles, applications and resources: few records, each with an id that a person chose, all kept in the same way.

use serde::{Serialize, de::DeserializeOwned};

use super::{
    AccountError, Accounts, Page, TRIES, Versioned, Writer, is_race,
    rules::{check_application, check_resource, in_order},
};
use crate::{
    model::{Act, Application, Resource, Role, Violation},
    store::{Batch, CommitError, Sequence, State, Table, encode},
};

/// A record with an id that a person chose.
pub trait Record: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync {
    /// What messages call it.
    const WHAT: &'static str;
    /// Where it lies.
    const TABLE: Table;

    /// Its id.
    fn id(&self) -> &str;

    /// What is wrong with it, as it would be written.
    fn problems(&self, accounts: &Accounts) -> Vec<Violation>;

    /// Why it cannot be deleted, if it cannot.
    fn hold(id: &str, accounts: &Accounts) -> Option<AccountError>;

    /// What must hold for it to be changed so, or deleted.
    fn guard(
        before: &Self,
        after: Option<&Self>,
        accounts: &Accounts,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        let _ = (before, after, accounts, batch);
        Ok(())
    }

    /// What else must be written with it.
    fn and_also(&self, accounts: &Accounts, batch: &mut Batch) -> Result<(), AccountError> {
        let _ = (accounts, batch);
        Ok(())
    }
}

impl Record for Role {
    const WHAT: &'static str = "role";
    const TABLE: Table = Table::Roles;

    fn id(&self) -> &str {
        &self.id
    }

    fn problems(&self, _: &Accounts) -> Vec<Violation> {
        self.check()
    }

    fn hold(id: &str, accounts: &Accounts) -> Option<AccountError> {
        if Self::is_locked(id) {
            return Some(AccountError::refused(
                format!("The role {id} belongs to every installation."),
                "Take its permissions away instead.",
            ));
        }
        accounts.directory().has_user_with_role(id).then(|| {
            AccountError::refused(
                format!("The role {id} is held by users."),
                "Take it from them first.",
            )
        })
    }

    fn guard(
        before: &Self,
        after: Option<&Self>,
        accounts: &Accounts,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        accounts.keep_an_administrators_role(before, after, batch)
    }
}

impl Record for Application {
    const WHAT: &'static str = "application";
    const TABLE: Table = Table::Applications;

    fn id(&self) -> &str {
        &self.id
    }

    fn problems(&self, accounts: &Accounts) -> Vec<Violation> {
        check_application(accounts, self)
    }

    fn hold(id: &str, accounts: &Accounts) -> Option<AccountError> {
        let policy = accounts.directory().policy();
        let names = |resource: &Resource| {
            let mut rules = crate::model::METHODS.iter().filter_map(|m| resource.rules.of(m));
            rules.any(|rules| rules.authentication.contains(id))
        };
        if let Some(user) = policy.routes.resources().find(|one| names(one)) {
            return Some(AccountError::refused(
                format!("The application {id} is named by the resource {}.", user.id),
                "Take it out of the resource first.",
            ));
        }
        // They would work again with whatever is called so later.
        let bound = accounts.directory().keys_bound_to(id);
        (bound > 0).then(|| {
            AccountError::refused(
                format!("Keys that were not revoked are bound to the application {id}: {bound}."),
                "Revoke them first, or turn the application off.",
            )
        })
    }

    /// At most one application is the default: the one before it steps back in the same commit.
    fn and_also(&self, accounts: &Accounts, batch: &mut Batch) -> Result<(), AccountError> {
        if !self.is_default {
            return Ok(());
        }
        for other in accounts.list::<Self>(None, usize::MAX)?.items {
            if other.record.is_default && other.record.id != self.id {
                let mut record = other.record;
                record.is_default = false;
                let key = record.id.clone();
                batch.expect(Self::TABLE, key.clone(), State::Revision(other.revision));
                batch.put(Self::TABLE, key, encode(&record));
            }
        }
        Ok(())
    }
}

impl Record for Resource {
    const WHAT: &'static str = "resource";
    const TABLE: Table = Table::Resources;

    fn id(&self) -> &str {
        &self.id
    }

    fn problems(&self, accounts: &Accounts) -> Vec<Violation> {
        check_resource(accounts, self)
    }

    fn hold(_: &str, _: &Accounts) -> Option<AccountError> {
        None
    }
}

impl Accounts {
    /// The record with this id.
    pub fn get<T: Record>(&self, id: &str) -> Result<Option<Versioned<T>>, AccountError> {
        let Some(stored) = self.store().get(T::TABLE, id.as_bytes())? else {
            return Ok(None);
        };
        Ok(Some(Versioned {
            revision: stored.revision,
            record: stored.read(T::TABLE, id.as_bytes())?,
        }))
    }

    /// Records after `after`, in the order of their ids.
    pub fn list<T: Record>(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<T>, AccountError> {
        self.page(T::TABLE, after.map(str::as_bytes), limit)
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
    /// Makes a record.
    pub async fn create<T: Record>(&self, record: T) -> Result<Versioned<T>, AccountError> {
        in_order(record.problems(self))?;
        for _ in 0..TRIES {
            let mut batch = Batch::new();
            batch.expect(T::TABLE, record.id(), State::Missing);
            batch.put(T::TABLE, record.id(), encode(&record));
            record.and_also(self, &mut batch)?;
            let act = Act::create(T::WHAT, record.id(), &record);
            match self.commit(batch, act).await {
                Ok(revision) => return Ok(Versioned { revision, record }),
                Err(CommitError::Conflict(on)) if on.state == State::Missing => {
                    return Err(AccountError::Invalid(vec![Violation::new(
                        "id",
                        format!("There is a {} {} already.", T::WHAT, record.id()),
                        "Choose another id, or change the one there is.",
                    )]));
                }
                Err(problem) if is_race(&problem) => {}
                Err(CommitError::Store(problem)) => return Err(problem.into()),
                Err(_) => return Err(AccountError::contended()),
            }
        }
        Err(AccountError::contended())
    }

    /// Changes a record as [`Writer::change_user`] changes a user. The id stays.
    pub async fn change<T: Record, E: From<AccountError>>(
        &self,
        id: &str,
        expected: Option<Sequence>,
        mut edit: impl FnMut(&mut T) -> Result<(), E>,
    ) -> Result<Versioned<T>, E> {
        for _ in 0..TRIES {
            let before = self.current::<T>(id, expected)?;
            let mut record = before.record.clone();
            edit(&mut record)?;
            if record.id() != id {
                return Err(AccountError::Invalid(vec![Violation::new(
                    "id",
                    format!("The id of a {} cannot be changed.", T::WHAT),
                    "Make a new one and delete the old one.",
                )])
                .into());
            }
            if record == before.record {
                return Ok(before);
            }
            in_order(record.problems(self))?;
            let mut batch = Batch::new();
            batch.expect(T::TABLE, id, State::Revision(before.revision));
            batch.put(T::TABLE, id, encode(&record));
            T::guard(&before.record, Some(&record), self, &mut batch)?;
            record.and_also(self, &mut batch)?;
            let act = Act::change(T::WHAT, "change", id, &before.record, &record);
            match self.commit(batch, act).await {
                Ok(revision) => return Ok(Versioned { revision, record }),
                Err(problem) if is_race(&problem) => {}
                Err(CommitError::Store(problem)) => return Err(AccountError::from(problem).into()),
                Err(_) => return Err(AccountError::contended().into()),
            }
        }
        Err(AccountError::contended().into())
    }

    /// Deletes a record.
    pub async fn delete<T: Record>(
        &self,
        id: &str,
        expected: Option<Sequence>,
    ) -> Result<(), AccountError> {
        for _ in 0..TRIES {
            let before = self.current::<T>(id, expected)?;
            if let Some(problem) = T::hold(id, self) {
                return Err(problem);
            }
            let mut batch = Batch::new();
            batch.expect(T::TABLE, id, State::Revision(before.revision));
            batch.delete(T::TABLE, id);
            T::guard(&before.record, None, self, &mut batch)?;
            let act = Act::delete(T::WHAT, id, &before.record);
            match self.commit(batch, act).await {
                Ok(_) => return Ok(()),
                Err(problem) if is_race(&problem) => {}
                Err(CommitError::Store(problem)) => return Err(problem.into()),
                Err(_) => return Err(AccountError::contended()),
            }
        }
        Err(AccountError::contended())
    }

    fn current<T: Record>(
        &self,
        id: &str,
        expected: Option<Sequence>,
    ) -> Result<Versioned<T>, AccountError> {
        let before = self.get::<T>(id)?.ok_or_else(|| AccountError::not_found(T::WHAT, id))?;
        if expected.is_some_and(|revision| revision != before.revision) {
            let current = before.revision;
            return Err(AccountError::Stale { current });
        }
        Ok(before)
    }
}
