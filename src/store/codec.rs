//! The form of a value in an engine: one byte of version, a CRC32, the revision, and the record as JSON.
//!
//! ```text
//! offset  size  what
//! 0       1     version of this form: 1
//! 1       4     CRC32 (ISO-HDLC), little-endian, over table, key, and all from offset 5
//! 5       8     revision, little-endian: the sequence of the commit that wrote it
//! 13      …     JSON
//! ```
//! The key is part of the checksum, so a value that turns up in another's place is found too.

use serde::{Serialize, de::DeserializeOwned};

use super::{Sequence, StoreError, Table};

const VERSION: u8 = 1;
pub(super) const HEAD: usize = 13;

/// The most that a value may take. sled keeps larger ones in files of their own, which it never syncs.
pub(super) const MAX_VALUE: usize = 7 * 1024;

/// A record as it was read.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The sequence of the commit that last wrote it.
    pub revision: Sequence,
    /// The record.
    pub json: Vec<u8>,
}

impl Stored {
    /// The record of the type that its table holds.
    pub fn read<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<T, StoreError> {
        decode(table, key, &self.json)
    }
}

/// A record as JSON, as [`Batch::put`](super::Batch::put) takes it.
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record has string keys and finite numbers")
}

/// Reads a record's JSON.
pub fn decode<'a, T: serde::Deserialize<'a>>(
    table: Table,
    key: &[u8],
    json: &'a [u8],
) -> Result<T, StoreError> {
    // serde_json's message can quote what it found, and a record holds digests: say where, not what.
    serde_json::from_slice(json).map_err(|problem| {
        damaged(table, key, format!("its JSON is not a record's (column {})", problem.column()))
    })
}

/// Wraps JSON for the engine.
pub(super) fn seal(
    table: Table,
    key: &[u8],
    revision: Sequence,
    json: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let size = HEAD + json.len();
    if size > MAX_VALUE {
        return Err(StoreError::TooLarge { table: table.name(), size, limit: MAX_VALUE });
    }
    let mut value = Vec::with_capacity(size);
    value.push(VERSION);
    value.extend_from_slice(&[0; 4]);
    value.extend_from_slice(&revision.to_le_bytes());
    value.extend_from_slice(json);
    let check = checksum(table, key, &value[5..]);
    value[1..5].copy_from_slice(&check.to_le_bytes());
    Ok(value)
}

/// Checks a value and takes it apart.
pub(super) fn open<'a>(
    table: Table,
    key: &[u8],
    value: &'a [u8],
) -> Result<(Sequence, &'a [u8]), StoreError> {
    if value.len() < HEAD {
        return Err(damaged(table, key, "it is cut short".into()));
    }
    if value[0] != VERSION {
        return Err(damaged(
            table,
            key,
            format!(
                "it has version {} and this program knows {VERSION}; a newer Keyward wrote it",
                value[0]
            ),
        ));
    }
    let check = u32::from_le_bytes(value[1..5].try_into().expect("four bytes"));
    if check != checksum(table, key, &value[5..]) {
        return Err(damaged(table, key, "its checksum is wrong".into()));
    }
    let revision = Sequence::from_le_bytes(value[5..HEAD].try_into().expect("eight bytes"));
    Ok((revision, &value[HEAD..]))
}

fn checksum(table: Table, key: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[table as u8]);
    hasher.update(key);
    hasher.update(rest);
    hasher.finalize()
}

fn damaged(table: Table, key: &[u8], problem: String) -> StoreError {
    let key = match (table, <[u8; 8]>::try_from(key)) {
        (Table::Users | Table::Audit, Ok(uid)) => u64::from_be_bytes(uid).to_string(),
        (Table::Keys, Ok(id)) => {
            crate::model::KeyId::from_number(u64::from_be_bytes(id)).to_string()
        }
        _ => key.escape_ascii().to_string(),
    };
    StoreError::Damaged { table: table.name(), key, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_opened_as_it_was_sealed() {
        let value = seal(Table::Users, b"k", 7, b"{}").unwrap();
        assert_eq!(open(Table::Users, b"k", &value).unwrap(), (7, b"{}".as_slice()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let value = seal(Table::Users, b"key", 7, br#"{"a":1}"#).unwrap();
        for bit in 0..value.len() * 8 {
            let mut changed = value.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(Table::Users, b"key", &changed).is_err(), "bit {bit}");
        }
        for length in 0..value.len() {
            assert!(open(Table::Users, b"key", &value[..length]).is_err(), "{length}");
        }
        assert!(open(Table::Users, b"other", &value).is_err());
        assert!(open(Table::Keys, b"key", &value).is_err());
    }

    #[test]
    fn a_value_that_the_engine_would_not_sync_is_refused() {
        let problem = seal(Table::Roles, b"k", 1, &[b' '; MAX_VALUE]).unwrap_err();
        assert_eq!(
            problem.to_string(),
            "a record in roles would take 7181 bytes; at most 7168 are kept"
        );
    }
}
