//! A digest over all records of a store. A checksum of a record cannot detect that an older version
//! of the record came back, for example a key from before its revocation. The digest can: each
//! commit updates it, and it is compared with the records that are loaded at the start.
//!
//! The digest is a multiset hash: the sum, modulo 2^256, of a keyed BLAKE3 hash of each record. A
//! commit subtracts the hash of the record before and adds the hash of the record after. The order
//! does not matter, so all cores can compute parts of the sum. Source: MSet-Add-Hash in Clarke,
//! Devadas, van Dijk, Gassend and Suh, "Incremental Multiset Hash Functions and Their Application
//! to Memory Integrity Checking", ASIACRYPT 2003.
//!
//! The key is random for each store and is stored in the store. Clients choose the contents of some
//! records, and do not know the key. So they cannot choose records whose hashes cancel out. The
//! digest does not protect against a person who can write to the store's files.

use serde::{Deserialize, Serialize};

use super::{Sequence, Table, codec::HEADER_SIZE};
use crate::model::{Digest, Entropy};

/// The offset of the revision in an encoded value. The hash covers everything from there on.
const REVISION_OFFSET: usize = 5;

/// A sum of the hashes of records, and their number and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    /// The sum modulo 2^256, as little-endian words.
    words: [u64; 4],
    records: u64,
    /// The size of the keys and encoded values.
    bytes: u64,
}

/// The digest over all records of a store.
///
/// The tables that decisions read are one part, because the start loads them and can check them
/// without further reads. All other tables, such as the indexes, are the other part.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "StoredDigest", from = "StoredDigest")]
pub struct RecordDigest {
    key: Digest,
    loaded: Sum,
    others: Sum,
}

/// The stored form of a digest.
#[derive(Serialize, Deserialize)]
struct StoredDigest {
    key: Digest,
    loaded: Digest,
    loaded_records: u64,
    loaded_bytes: u64,
    others: Digest,
    other_records: u64,
    other_bytes: u64,
}

/// The last commit of a store, as an engine stores it with each commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CommitState {
    /// The number of the commit. `0` means that nothing was ever committed.
    pub sequence: Sequence,
    /// The digest over all records after the commit.
    pub digest: RecordDigest,
}

impl RecordDigest {
    /// The digest of an empty store, with a new key.
    pub fn random() -> Self {
        Self::with_key(Digest::from_bytes(Entropy::system().bytes()))
    }

    fn with_key(key: Digest) -> Self {
        Self { key, loaded: Sum::default(), others: Sum::default() }
    }

    /// The digest of no records, with the key of this digest.
    pub fn empty(&self) -> Self {
        Self::with_key(self.key)
    }

    /// Adds a record.
    pub fn add(&mut self, table: Table, key: &[u8], revision: Sequence, json: &[u8]) {
        let hash = self.hash(table, key, &[&revision.to_le_bytes(), json]);
        self.sum(table).add(&Sum::of(hash, key.len() + HEADER_SIZE + json.len()));
    }

    /// The number of records.
    pub fn records(&self) -> u64 {
        self.loaded.records.saturating_add(self.others.records)
    }

    /// The size of all keys and encoded values, in bytes.
    pub fn bytes(&self) -> u64 {
        self.loaded.bytes.saturating_add(self.others.bytes)
    }

    /// Replaces a record. Both values are as [`encode_value`](super::codec::encode_value) returns
    /// them. `None` means that there is no record.
    pub(super) fn replace(
        &mut self,
        table: Table,
        key: &[u8],
        before: Option<&[u8]>,
        after: Option<&[u8]>,
    ) {
        let sum = |value: &[u8]| {
            let hash = self.hash(table, key, &[value.get(REVISION_OFFSET..).unwrap_or_default()]);
            Sum::of(hash, key.len() + value.len())
        };
        let (before, after) = (before.map(sum), after.map(sum));
        if let Some(record) = before {
            self.sum(table).subtract(&record);
        }
        if let Some(record) = after {
            self.sum(table).add(&record);
        }
    }

    /// Adds all records of another digest with the same key.
    pub fn merge(&mut self, other: &Self) {
        self.loaded.add(&other.loaded);
        self.others.add(&other.others);
    }

    /// Compares the records of the tables that decisions read. The error says what was found.
    ///
    /// # Errors
    /// The records of `found` are not those of this digest.
    pub fn compare_loaded(&self, found: &Self) -> Result<(), String> {
        self.loaded.compare(&found.loaded)
    }

    /// [`RecordDigest::compare_loaded`] for all other tables.
    ///
    /// # Errors
    /// The records of `found` are not those of this digest.
    pub fn compare_others(&self, found: &Self) -> Result<(), String> {
        self.others.compare(&found.others)
    }

    fn sum(&mut self, table: Table) -> &mut Sum {
        if table.is_loaded() { &mut self.loaded } else { &mut self.others }
    }

    fn hash(&self, table: Table, key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(self.key.as_bytes());
        // One update is cheaper than four: nearly all records are smaller than the buffer.
        let mut buffer = [0_u8; 512];
        let head = [&[table as u8][..], &(key.len() as u32).to_le_bytes(), key];
        let mut length = 0;
        for part in head.iter().chain(parts) {
            match buffer.get_mut(length..length + part.len()) {
                Some(space) => {
                    space.copy_from_slice(part);
                    length += part.len();
                }
                None => {
                    hasher.update(&buffer[..length]);
                    length = 0;
                    hasher.update(part);
                }
            }
        }
        hasher.update(&buffer[..length]);
        *hasher.finalize().as_bytes()
    }
}

/// Without the key, which no log needs.
impl std::fmt::Debug for RecordDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key: _, loaded, others } = self;
        f.debug_struct("RecordDigest").field("loaded", loaded).field("others", others).finish()
    }
}

impl Sum {
    /// The sum of one record.
    fn of(hash: [u8; 32], bytes: usize) -> Self {
        Self { words: words(&hash), records: 1, bytes: bytes as u64 }
    }

    fn add(&mut self, other: &Self) {
        let mut carry = false;
        for (word, other) in self.words.iter_mut().zip(other.words) {
            let (sum, first) = word.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*word, carry) = (sum, first || second);
        }
        self.records = self.records.wrapping_add(other.records);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }

    fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (word, other) in self.words.iter_mut().zip(other.words) {
            let (difference, first) = word.overflowing_sub(other);
            let (difference, second) = difference.overflowing_sub(u64::from(borrow));
            (*word, borrow) = (difference, first || second);
        }
        self.records = self.records.wrapping_sub(other.records);
        self.bytes = self.bytes.wrapping_sub(other.bytes);
    }

    fn compare(&self, found: &Self) -> Result<(), String> {
        if self == found {
            return Ok(());
        }
        Err(if self.records == found.records {
            "at least one record is not the one that was last committed".into()
        } else {
            format!("{} records were committed, and {} were found", self.records, found.records)
        })
    }
}

fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

fn bytes(words: [u64; 4]) -> Digest {
    let mut bytes = [0; 32];
    for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    Digest::from_bytes(bytes)
}

impl From<RecordDigest> for StoredDigest {
    fn from(digest: RecordDigest) -> Self {
        Self {
            key: digest.key,
            loaded: bytes(digest.loaded.words),
            loaded_records: digest.loaded.records,
            loaded_bytes: digest.loaded.bytes,
            others: bytes(digest.others.words),
            other_records: digest.others.records,
            other_bytes: digest.others.bytes,
        }
    }
}

impl From<StoredDigest> for RecordDigest {
    fn from(stored: StoredDigest) -> Self {
        let sum = |digest: Digest, records, bytes| {
            let words = words(digest.as_bytes());
            Sum { words, records, bytes }
        };
        Self {
            key: stored.key,
            loaded: sum(stored.loaded, stored.loaded_records, stored.loaded_bytes),
            others: sum(stored.others, stored.other_records, stored.other_bytes),
        }
    }
}

const _: () = assert!(REVISION_OFFSET + size_of::<Sequence>() == HEADER_SIZE);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec::encode_value;

    fn value(revision: Sequence, json: &[u8]) -> Vec<u8> {
        encode_value(Table::Keys, b"k", revision, json).unwrap()
    }

    #[test]
    fn order_of_records_does_not_matter_and_parts_can_be_merged() {
        let empty = RecordDigest::random();
        let (mut forwards, mut backwards) = (empty.clone(), empty.clone());
        let (mut even, mut odd) = (empty.empty(), empty.empty());
        for number in 0..100_u64 {
            forwards.add(Table::Users, &number.to_be_bytes(), number, b"{}");
            backwards.add(Table::Users, &(99 - number).to_be_bytes(), 99 - number, b"{}");
            let part = if number % 2 == 0 { &mut even } else { &mut odd };
            part.add(Table::Users, &number.to_be_bytes(), number, b"{}");
        }
        assert_eq!(forwards, backwards);
        even.merge(&odd);
        assert_eq!(forwards, even);
        assert_ne!(forwards, empty);
    }

    #[test]
    fn each_part_of_a_record_counts() {
        let empty = RecordDigest::random();
        let digest = |table, key: &[u8], revision, json: &[u8]| {
            let mut digest = empty.clone();
            digest.add(table, key, revision, json);
            digest
        };
        let record = digest(Table::Keys, b"k", 1, b"{}");
        assert_eq!(record, digest(Table::Keys, b"k", 1, b"{}"));
        for other in [
            digest(Table::Users, b"k", 1, b"{}"),
            digest(Table::Keys, b"l", 1, b"{}"),
            digest(Table::Keys, b"k", 2, b"{}"),
            digest(Table::Keys, b"k", 1, b"[]"),
            digest(Table::Keys, b"", 1, b"k{}"),
        ] {
            assert!(record.compare_loaded(&other).is_err());
        }
        // Without the key nobody can compute it.
        let mut other_key = RecordDigest::random();
        other_key.add(Table::Keys, b"k", 1, b"{}");
        assert_ne!(record.loaded, other_key.loaded);
    }

    #[test]
    fn replacing_records_gives_the_digest_of_the_records_that_remain() {
        let empty = RecordDigest::random();
        let (first, second) = (value(1, b"{}"), value(2, &[b' '; 2000]));
        let mut digest = empty.clone();
        digest.replace(Table::Keys, b"k", None, Some(&first));
        let mut added = empty.clone();
        added.add(Table::Keys, b"k", 1, b"{}");
        assert_eq!(digest, added);
        digest.replace(Table::Keys, b"k", Some(&first), Some(&second));
        let mut added = empty.clone();
        added.add(Table::Keys, b"k", 2, &[b' '; 2000]);
        assert_eq!(digest, added);
        digest.replace(Table::Keys, b"k", Some(&second), None);
        assert_eq!(digest, empty);
        // A record that comes back is not the record that was committed last.
        digest.replace(Table::Keys, b"k", None, Some(&second));
        let problem = digest.compare_loaded(&{
            let mut found = empty.clone();
            found.replace(Table::Keys, b"k", None, Some(&first));
            found
        });
        assert_eq!(
            problem,
            Err("at least one record is not the one that was last committed".into())
        );
        assert_eq!(
            digest.compare_loaded(&empty),
            Err("1 records were committed, and 0 were found".into())
        );
    }

    #[test]
    fn stored_digest_is_read_as_it_was_written() {
        let mut digest = RecordDigest::random();
        digest.add(Table::Keys, b"k", 1, b"{}");
        digest.add(Table::Names, b"n", 1, b"1");
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<RecordDigest>(&text).unwrap(), digest);
    }
}
