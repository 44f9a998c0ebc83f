//! Users that were read lately, as they were read: the same ones are asked for again and again.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::{accounts::Versioned, directory::CachedUser, model::User};

/// How many are kept. When there are more, all are forgotten, and the ones that are asked for come back.
const MOST: usize = 4096;

/// An entry counts only while the Directory holds the very member that it was read for. Every write of a user makes a new member, after the
/// store has it and before the writer is answered: so what is found here is never older than what the writer was told.
#[derive(Default)]
pub(in crate::accounts) struct Recent(papaya::HashMap<u64, Entry>);

struct Entry {
    member: Arc<CachedUser>,
    user: Arc<ReadUser>,
}

/// A user as it was read, with what was made of it since.
pub struct ReadUser {
    /// The user.
    pub record: User,
    made: [OnceLock<Bytes>; ReadUser::FORMS],
}

impl ReadUser {
    /// How many things are kept that were made of a user.
    pub const FORMS: usize = 4;

    pub(in crate::accounts) fn new(user: Versioned<User>) -> Self {
        Self { record: user.record, made: Default::default() }
    }

    /// What `make` makes of the user, made once for each `form`, of which there are [`FORMS`](Self::FORMS).
    pub fn made(&self, form: usize, make: impl FnOnce(&User) -> Bytes) -> Bytes {
        self.made[form].get_or_init(|| make(&self.record)).clone()
    }
}

impl Recent {
    /// The user whom the Directory knows as `member`.
    pub fn get(&self, member: &Arc<CachedUser>) -> Option<Arc<ReadUser>> {
        let entries = self.0.pin();
        let entry = entries.get(&member.uid)?;
        Arc::ptr_eq(&entry.member, member).then(|| entry.user.clone())
    }

    /// Keeps a user that was read after `member` was found.
    pub fn keep(&self, member: Arc<CachedUser>, user: Arc<ReadUser>) {
        let entries = self.0.pin();
        if entries.len() >= MOST {
            entries.clear();
        }
        entries.insert(member.uid, Entry { member, user });
    }
}
