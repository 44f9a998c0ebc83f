//! The state of a check of all records, which commits update.

use super::sled_key;
use crate::store::{RecordDigest, Table};

/// A check that has not read all records yet.
#[derive(Clone)]
pub(super) struct RunningCheck {
    /// The sled key of the last record that was read.
    pub last: Vec<u8>,
    /// The digest over the records up to `last`, as they are now.
    pub digest: RecordDigest,
}

impl RunningCheck {
    /// Takes a change of a record into account.
    pub fn replace(
        &mut self,
        table: Table,
        key: &[u8],
        before: Option<&[u8]>,
        after: Option<&[u8]>,
    ) {
        if sled_key(table, key) <= self.last {
            self.digest.replace(table, key, before, after);
        }
    }
}
