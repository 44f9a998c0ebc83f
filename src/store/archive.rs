//! A whole store in one file, for backups. The same records make the same bytes.
//!
//! ```text
//! "keyward backup 1\n"
//! a record:  u8 table, u16 length of the key, u32 length of the JSON, key, JSON   (numbers little-endian)
//! …          in the order of tables and keys
//! the end:   u8 0, u64 number of records, u64 the last commit, 32 bytes BLAKE3 of all before
//! ```
//! Revisions are not in it: a store that is restored numbers its commits anew.

use std::io::{self, Read, Write};

use super::{Sequence, Snapshot, StoreError, Table, codec::MAX_VALUE};

const BEGIN: &[u8] = b"keyward backup ";
const VERSION: &[u8] = b"1\n";
const END: u8 = 0;

/// What is in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// The number of its records.
    pub records: u64,
    /// The last commit of the store that it was made of.
    pub sequence: Sequence,
    /// The checksum.
    pub blake3: [u8; 32],
}

/// Why an archive could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is not a backup of Keyward's")]
    Foreign,
    /// A later version wrote it.
    #[error("a newer Keyward wrote it: restore it with that one")]
    Newer,
    /// It ends too early.
    #[error("it is cut short")]
    Cut,
    /// It was changed.
    #[error("it is damaged: its checksum is wrong")]
    Damaged,
}

/// Writes all that a snapshot shows.
pub fn write(snapshot: &dyn Snapshot, out: impl Write) -> Result<Contents, ArchiveError> {
    let mut out = Hashed { inner: out, hasher: blake3::Hasher::new() };
    out.write_all(BEGIN)?;
    out.write_all(VERSION)?;
    let mut records = 0;
    for table in Table::ALL {
        // The visitor speaks of the store's failures alone.
        let mut failed = None;
        let walked = snapshot.each(table, &mut |key, record| {
            records += 1;
            one(&mut out, table, key, record.json).map_err(|problem| {
                failed = Some(problem);
                StoreError::Failed("a backup could not be written".into())
            })
        });
        if let Some(problem) = failed {
            return Err(problem.into());
        }
        walked?;
    }
    let sequence = snapshot.sequence();
    out.write_all(&[END])?;
    out.write_all(&u64::to_le_bytes(records))?;
    out.write_all(&sequence.to_le_bytes())?;
    let blake3 = *out.hasher.finalize().as_bytes();
    out.inner.write_all(&blake3)?;
    out.inner.flush()?;
    Ok(Contents { records, sequence, blake3 })
}

fn one(out: &mut impl Write, table: Table, key: &[u8], json: &[u8]) -> io::Result<()> {
    let too_long = |_| io::Error::other("a record is too long");
    out.write_all(&[table as u8])?;
    out.write_all(&u16::try_from(key.len()).map_err(too_long)?.to_le_bytes())?;
    out.write_all(&u32::try_from(json.len()).map_err(too_long)?.to_le_bytes())?;
    out.write_all(key)?;
    out.write_all(json)
}

/// Reads an archive to its end. What `each` was given is to be believed only when this has returned without an error.
pub fn read(
    input: impl Read,
    mut each: impl FnMut(Table, Vec<u8>, Vec<u8>) -> Result<(), ArchiveError>,
) -> Result<Contents, ArchiveError> {
    let mut input = Hashed { inner: input, hasher: blake3::Hasher::new() };
    let begin: [u8; BEGIN.len()] = bytes(&mut input).map_err(|_| ArchiveError::Foreign)?;
    if begin != BEGIN {
        return Err(ArchiveError::Foreign);
    }
    let version: [u8; VERSION.len()] = bytes(&mut input)?;
    if version != VERSION {
        return Err(ArchiveError::Newer);
    }
    let mut records = 0;
    loop {
        let [table] = bytes(&mut input)?;
        if table == END {
            return end(input, records);
        }
        let key = usize::from(u16::from_le_bytes(bytes(&mut input)?));
        let json = u32::from_le_bytes(bytes(&mut input)?) as usize;
        // Before it is believed: a length that no record has would take all memory.
        let table = Table::of(table).ok_or(ArchiveError::Damaged)?;
        if json > MAX_VALUE {
            return Err(ArchiveError::Damaged);
        }
        records += 1;
        each(table, many(&mut input, key)?, many(&mut input, json)?)?;
    }
}

fn end(mut input: Hashed<impl Read>, records: u64) -> Result<Contents, ArchiveError> {
    let said = u64::from_le_bytes(bytes(&mut input)?);
    let sequence = u64::from_le_bytes(bytes(&mut input)?);
    let found = *input.hasher.finalize().as_bytes();
    let blake3: [u8; 32] = bytes(&mut input)?;
    let is_behind = input.inner.read(&mut [0])? > 0;
    match said == records && found == blake3 && !is_behind {
        true => Ok(Contents { records, sequence, blake3 }),
        false => Err(ArchiveError::Damaged),
    }
}

fn bytes<const N: usize>(input: &mut impl Read) -> Result<[u8; N], ArchiveError> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map_err(cut)?;
    Ok(bytes)
}

fn many(input: &mut impl Read, length: usize) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes).map_err(cut)?;
    Ok(bytes)
}

fn cut(problem: io::Error) -> ArchiveError {
    match problem.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Cut,
        _ => problem.into(),
    }
}

/// Everything that goes through goes into the checksum.
struct Hashed<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hasher.update(&bytes[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, MemoryStore, Store as _};

    type Records = Vec<(Table, Vec<u8>, Vec<u8>)>;

    async fn store() -> MemoryStore {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        for table in Table::ALL {
            batch.put(table, *b"a", table.name().into());
            batch.put(table, Vec::new(), b"{}".to_vec());
        }
        store.commit(batch).await.unwrap();
        store
    }

    fn archive(store: &MemoryStore) -> (Vec<u8>, Contents) {
        let mut file = Vec::new();
        let contents = write(&*store.snapshot().unwrap(), &mut file).unwrap();
        (file, contents)
    }

    fn all(file: &[u8]) -> Result<(Records, Contents), ArchiveError> {
        let mut records = Vec::new();
        let contents = read(file, |table, key, json| {
            records.push((table, key, json));
            Ok(())
        })?;
        Ok((records, contents))
    }

    #[tokio::test]
    async fn an_archive_holds_all_there_is_and_is_the_same_each_time() {
        let store = store().await;
        let (file, contents) = archive(&store);
        assert_eq!(archive(&store).0, file);
        let (records, found) = all(&file).unwrap();
        assert_eq!((found, contents.records, contents.sequence), (contents, 30, 1));
        for table in Table::ALL {
            let of: Records = records.iter().filter(|one| one.0 == table).cloned().collect();
            let expected = [
                (table, vec![], b"{}".to_vec()),
                (table, b"a".to_vec(), table.name().as_bytes().to_vec()),
            ];
            assert_eq!(of, expected);
        }
        let empty = archive(&MemoryStore::new()).0;
        assert_eq!(all(&empty).unwrap().1.records, 0);
    }

    #[tokio::test]
    async fn every_change_and_every_cut_is_seen() {
        let (file, _) = archive(&store().await);
        for at in 0..file.len() {
            for bit in [1, 0x80] {
                let mut changed = file.clone();
                changed[at] ^= bit;
                assert!(all(&changed).is_err(), "byte {at}");
            }
        }
        for length in 0..file.len() {
            let problem = all(&file[..length]).unwrap_err();
            assert!(matches!(problem, ArchiveError::Cut | ArchiveError::Foreign), "{length}");
        }
        assert!(all(&[&file[..], b"\n"].concat()).is_err());
        let newer = [b"keyward backup 2\n", &file[17..]].concat();
        assert!(matches!(all(&newer), Err(ArchiveError::Newer)));
        // A length that no record has.
        let long = [b"keyward backup 1\nu\0\0", &[0xff; 4][..]].concat();
        assert!(matches!(all(&long), Err(ArchiveError::Damaged)));
    }
}
