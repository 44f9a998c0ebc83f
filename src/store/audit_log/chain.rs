//! The hash chain: its states, the marks of its beginning and its end, and the stored entries.

use serde::{Deserialize, Serialize};

use crate::{
    model::{AuditKey, Digest},
    store::{StoreError, Stored, Table, encode, table},
};

/// The state of the hash chain after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainState {
    /// The id of the entry's generation.
    pub generation: Digest,
    /// The number of the entry. `0` means the state before the first entry.
    pub number: u64,
    /// The entry's hash.
    pub hash: Digest,
    /// A keyed hash over the hashes of all entries up to this one.
    seal: Digest,
}

/// An entry of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEntry {
    /// The entry's number.
    pub number: u64,
    /// The entry's hash.
    pub hash: Digest,
    /// The id of the generation that begins with this entry. `None` means that the entry belongs to
    /// the generation of the entry before it.
    pub generation: Option<Digest>,
    /// The entry as JSON.
    pub json: Vec<u8>,
}

impl ChainState {
    /// The state before the first entry of a store.
    pub(super) fn origin(key: &AuditKey) -> Self {
        let generation = Digest::from_bytes([0; 32]);
        let (hash, seal) = (key.digest("start", &[]), key.digest("seal", &[]));
        Self { generation, number: 0, hash, seal }
    }

    /// The state with another number, after which a lost generation begins.
    pub(super) fn renumbered(self, number: u64) -> Self {
        Self { number, ..self }
    }

    /// The next entry, if this is its JSON. `generation` begins a new generation with it.
    pub(super) fn next_entry(
        &self,
        key: &AuditKey,
        generation: Option<Digest>,
        json: Vec<u8>,
    ) -> ChainEntry {
        let entry = ChainEntry { number: self.number + 1, hash: self.hash, generation, json };
        ChainEntry { hash: entry.hash_after(key, self.hash), ..entry }
    }

    /// The state after the next entry. The caller has checked the entry's hash.
    pub(super) fn advance(&self, key: &AuditKey, entry: &ChainEntry) -> Self {
        let generation = entry.generation.unwrap_or(self.generation);
        let number = entry.number.to_le_bytes();
        let seal = key.digest("seal", &[self.seal.as_bytes(), &number, entry.hash.as_bytes()]);
        Self { generation, number: entry.number, hash: entry.hash, seal }
    }
}

impl ChainEntry {
    /// The hash that this entry must have after an entry with the hash `previous`.
    pub(super) fn hash_after(&self, key: &AuditKey, previous: Digest) -> Digest {
        let number = self.number.to_le_bytes();
        let previous = match &self.generation {
            None => previous,
            Some(id) => key.digest("generation", &[previous.as_bytes(), &number, id.as_bytes()]),
        };
        key.digest("entry", &[previous.as_bytes(), &number, &self.json])
    }
}

/// The id of the generation of entries that were written when the store had records, but no
/// authentic end of its trail.
pub(super) fn lost_generation(key: &AuditKey) -> Digest {
    key.digest("lost generation", &[])
}

/// The two records in `meta` about the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// The state before the first remaining entry. The record is missing while the trail begins
    /// with entry 1.
    Beginning,
    /// The state after the last entry. The record is missing while the store is new.
    End,
}

impl Edge {
    /// The key of the record in `meta`.
    pub fn key(self) -> &'static [u8] {
        match self {
            Self::Beginning => b"audit-begin",
            Self::End => b"audit-end",
        }
    }

    fn stamp(self, key: &AuditKey, state: &ChainState, begin: u64) -> Digest {
        let purpose = match self {
            Self::Beginning => "beginning",
            Self::End => "end",
        };
        let ChainState { generation, number, hash, seal } = state;
        let (number, begin) = (number.to_le_bytes(), begin.to_le_bytes());
        let parts: &[&[u8]] =
            &[generation.as_bytes(), &number, hash.as_bytes(), seal.as_bytes(), &begin];
        key.digest(purpose, parts)
    }

    /// The JSON of the record. `begin` is the number of the trail's beginning at that time.
    pub fn write(self, key: &AuditKey, state: ChainState, begin: u64) -> Vec<u8> {
        encode(&StampedState { state, begin, stamp: self.stamp(key, &state, begin) })
    }

    /// Checks the record, as it was read from the store.
    pub fn read(
        self,
        key: &AuditKey,
        record: Result<Option<Stored>, StoreError>,
    ) -> Result<Mark, StoreError> {
        let stored = match record {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(Mark::Missing),
            Err(StoreError::Damaged { .. }) => return Ok(Mark::Forged),
            Err(problem) => return Err(problem),
        };
        Ok(match stored.read::<StampedState>(Table::Meta, self.key()) {
            Ok(found) if found.stamp == self.stamp(key, &found.state, found.begin) => {
                Mark::Authentic { state: found.state, begin: found.begin }
            }
            _ => Mark::Forged,
        })
    }
}

/// The stored form of a mark.
#[derive(Serialize, Deserialize)]
struct StampedState {
    #[serde(rename = "mark")]
    state: ChainState,
    /// The number of the trail's beginning when the record was written. So an old end does not fit
    /// a later beginning.
    begin: u64,
    /// A keyed hash of `state` and `begin`.
    stamp: Digest,
}

/// The result of reading a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// There is no such record.
    Missing,
    /// The record is not what was written.
    Forged,
    /// The record is what was written.
    Authentic {
        /// The state of the chain.
        state: ChainState,
        /// The number of the trail's beginning when the record was written.
        begin: u64,
    },
}

impl Mark {
    /// This end of the trail, if `beginning` belongs to it. A forged beginning is reported on its
    /// own.
    pub fn belonging_to(self, beginning: Self) -> Self {
        let Self::Authentic { begin, .. } = self else { return self };
        let number = match beginning {
            Self::Missing => 0,
            Self::Forged => return self,
            Self::Authentic { state, .. } => state.number,
        };
        if number == begin { self } else { Self::Forged }
    }
}

const OPENING: &[u8] = b"{\"hash\":\"";
const GENERATION: &[u8] = b"\",\"generation\":\"";
const MIDDLE: &[u8] = b"\",\"entry\":";
const HASH_LENGTH: usize = 64;

impl ChainEntry {
    /// The stored form of the entry: JSON in which the entry keeps its exact bytes, because the
    /// hash covers them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let hash = self.hash.to_hex();
        let generation = self.generation.map(|id| id.to_hex());
        let generation =
            generation.as_ref().map_or([&b""[..]; 2], |id| [GENERATION, id.as_bytes()]);
        [&[OPENING, hash.as_bytes()][..], &generation, &[MIDDLE, &self.json, b"}"]]
            .concat()
            .concat()
    }

    /// Parses the stored form of the entry with this number.
    pub(super) fn decode(number: u64, json: &[u8]) -> Option<Self> {
        let (hash, mut rest) = split_hash(json.strip_prefix(OPENING)?)?;
        let mut generation = None;
        if let Some(begins) = rest.strip_prefix(GENERATION) {
            let (id, after) = split_hash(begins)?;
            (generation, rest) = (Some(id), after);
        }
        let json = rest.strip_prefix(MIDDLE)?.strip_suffix(b"}")?.to_vec();
        Some(Self { number, hash, generation, json })
    }

    /// The key of the entry in [`Table::Audit`].
    pub(super) fn key(&self) -> [u8; 8] {
        table::audit(self.number)
    }
}

fn split_hash(text: &[u8]) -> Option<(Digest, &[u8])> {
    let (hex, rest) = text.split_at_checked(HASH_LENGTH)?;
    // Only one spelling of a hash is accepted, so that every changed byte is detected.
    let hash = Digest::from_hex(hex).filter(|hash| hash.to_hex().as_bytes() == hex)?;
    Some((hash, rest))
}
