//! Users that were read lately, as they were read: the same ones are asked for again and again.

use std::sync::Arc;

use super::Versioned;
use crate::{model::User, store::Member};

/// How many are kept. When there are more, all are forgotten, and the ones that are asked for come back.
const MOST: usize = 4096;

/// An entry counts only while the Directory holds the very member that it was read for. Every write of a user makes a new member, after the
/// store has it and before the writer is answered: so what is found here is never older than what the writer was told.
#[derive(Default)]
pub(super) struct Recent(papaya::HashMap<u64, Entry>);

struct Entry {
    member: Arc<Member>,
    user: Arc<Versioned<User>>,
}

impl Recent {
    /// The user whom the Directory knows as `member`.
    pub fn get(&self, member: &Arc<Member>) -> Option<Arc<Versioned<User>>> {
        let entries = self.0.pin();
        let entry = entries.get(&member.uid)?;
        Arc::ptr_eq(&entry.member, member).then(|| entry.user.clone())
    }

    /// Keeps a user that was read after `member` was found.
    pub fn keep(&self, member: Arc<Member>, user: Arc<Versioned<User>>) {
        let entries = self.0.pin();
        if entries.len() >= MOST {
            entries.clear();
        }
        entries.insert(member.uid, Entry { member, user });
    }
}
