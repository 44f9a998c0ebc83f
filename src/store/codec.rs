//! The stored form of a record: a format version, a CRC32, the revision, and the record as JSON.
//!
//! ```text
//! offset  size  content
//! 0       1     version of this format: 1
//! 1       4     CRC32 (ISO-HDLC), little-endian, over table, key, and all bytes from offset 5
//! 5       8     revision, little-endian: the sequence of the commit that wrote the record
//! 13      …     JSON
//! ```
//! The checksum covers table and key, so a value that was moved to another key is detected too.

use serde::{Serialize, de::DeserializeOwned};

use super::{Sequence, StoreError, Table, table};

const VERSION: u8 = 1;
/// The size of all that precedes the JSON.
pub(super) const HEADER_SIZE: usize = 13;

/// The largest size of a value in bytes, header included. sled stores larger values in separate
/// files, which it never syncs.
pub(super) const MAX_VALUE_SIZE: usize = 7 * 1024;

/// A record that was read from a store.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The sequence of the commit that last wrote the record.
    pub revision: Sequence,
    /// The record as JSON.
    pub json: Vec<u8>,
}

impl Stored {
    /// Parses the record as the type of its table.
    pub fn read<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<T, StoreError> {
        decode(table, key, &self.json)
    }

    /// Decodes and copies an engine's value.
    pub(super) fn from_value(table: Table, key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let (revision, json) = decode_value(table, key, value)?;
        Ok(Self { revision, json: json.to_vec() })
    }
}

/// A record as JSON, for [`Batch::put`](super::Batch::put).
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record has string keys and finite numbers")
}

/// Parses a record's JSON.
pub fn decode<'a, T: serde::Deserialize<'a>>(
    table: Table,
    key: &[u8],
    json: &'a [u8],
) -> Result<T, StoreError> {
    // serde_json's message can quote the JSON, and a record contains digests: name the position
    // only.
    serde_json::from_slice(json).map_err(|problem| {
        let column = problem.column();
        damaged(table, key, format!("its JSON is not a record of this table (column {column})"))
    })
}

/// Encodes an engine's value.
pub(super) fn encode_value(
    table: Table,
    key: &[u8],
    revision: Sequence,
    json: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let size = HEADER_SIZE + json.len();
    if size > MAX_VALUE_SIZE {
        let (table, key) = (table.name(), shown_key(table, key));
        return Err(StoreError::TooLarge { table, key, size, limit: MAX_VALUE_SIZE });
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

/// Checks an engine's value and returns its revision and JSON.
pub(super) fn decode_value<'a>(
    table: Table,
    key: &[u8],
    value: &'a [u8],
) -> Result<(Sequence, &'a [u8]), StoreError> {
    if value.len() < HEADER_SIZE {
        return Err(damaged(table, key, "it is truncated".into()));
    }
    match value[0] {
        VERSION => {}
        0 => return Err(damaged(table, key, "the version of its format is 0".into())),
        version => {
            let (table, key) = (table.name(), shown_key(table, key));
            return Err(StoreError::Newer { table, key, version });
        }
    }
    let check = u32::from_le_bytes(value[1..5].try_into().expect("four bytes"));
    if check != checksum(table, key, &value[5..]) {
        return Err(damaged(table, key, "its checksum is wrong".into()));
    }
    let revision = Sequence::from_le_bytes(value[5..HEADER_SIZE].try_into().expect("eight bytes"));
    Ok((revision, &value[HEADER_SIZE..]))
}

fn checksum(table: Table, key: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[table as u8]);
    hasher.update(key);
    hasher.update(rest);
    hasher.finalize()
}

fn damaged(table: Table, key: &[u8], problem: String) -> StoreError {
    StoreError::Damaged { table: table.name(), key: shown_key(table, key), problem }
}

fn shown_key(table: Table, key: &[u8]) -> String {
    match (table, table::parse_number(key)) {
        (Table::Users | Table::Audit, Some(number)) => number.to_string(),
        (Table::Keys, Some(id)) => crate::model::KeyId::from_number(id).to_string(),
        _ => key.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_returns_what_was_encoded() {
        let value = encode_value(Table::Users, b"k", 7, b"{}").unwrap();
        assert_eq!(decode_value(Table::Users, b"k", &value).unwrap(), (7, b"{}".as_slice()));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_detected() {
        let value = encode_value(Table::Users, b"key", 7, br#"{"a":1}"#).unwrap();
        for bit in 0..value.len() * 8 {
            let mut changed = value.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_value(Table::Users, b"key", &changed).is_err(), "bit {bit}");
        }
        for length in 0..value.len() {
            assert!(decode_value(Table::Users, b"key", &value[..length]).is_err(), "{length}");
        }
        assert!(decode_value(Table::Users, b"other", &value).is_err());
        assert!(decode_value(Table::Keys, b"key", &value).is_err());
    }

    #[test]
    fn value_that_sled_would_not_sync_is_rejected() {
        let problem = encode_value(Table::Roles, b"k", 1, &[b' '; MAX_VALUE_SIZE]).unwrap_err();
        assert_eq!(
            problem.to_string(),
            "the record k in roles has 7181 bytes; the limit is 7168 bytes"
        );
    }
}
