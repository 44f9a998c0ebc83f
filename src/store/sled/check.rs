//! The state of a check of all records, which commits update.

use crate::store::{RecordDigest, Table};

/// A check that has not read all records yet. It reads the tables in the order of their bytes.
#[derive(Clone)]
pub(super) struct RunningCheck {
    /// The byte of the table that is being read. All tables with smaller bytes are read completely.
    table: u8,
    /// The key of the last record that was read in this table. `None` means that none was read.
    last: Option<Vec<u8>>,
    /// The digest over the records that were read, as they are now.
    digest: RecordDigest,
}

impl RunningCheck {
    /// A check that has read nothing. `digest` is the digest of no records.
    pub fn new(digest: RecordDigest) -> Self {
        Self { table: 0, last: None, digest }
    }

    /// The smallest key of a table that was not read yet.
    pub fn next_key(&self, table: Table) -> Vec<u8> {
        match &self.last {
            // The smallest key after the last one is the last one with a zero byte appended.
            Some(last) if self.table == table as u8 => [last, &[0][..]].concat(),
            _ => Vec::new(),
        }
    }

    /// Adds a record that was read.
    pub fn add(&mut self, table: Table, key: &[u8], revision: u64, json: &[u8]) {
        self.digest.add(table, key, revision, json);
        self.table = table as u8;
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
    }

    /// All records of a table were read.
    pub fn finish_table(&mut self, table: Table) {
        (self.table, self.last) = (table as u8 + 1, None);
    }

    /// Takes a change of a record into account, if the record would have been read already.
    pub fn replace(
        &mut self,
        table: Table,
        key: &[u8],
        before: Option<&[u8]>,
        after: Option<&[u8]>,
    ) {
        let is_in_read_part = self.last.as_deref().is_some_and(|last| key <= last);
        let byte = table as u8;
        if byte < self.table || byte == self.table && is_in_read_part {
            self.digest.replace(table, key, before, after);
        }
    }

    /// The digest over the records that were read.
    pub fn into_digest(self) -> RecordDigest {
        self.digest
    }
}
