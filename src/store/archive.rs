//! A whole store in one file, for backups. Equal records yield equal bytes.
//!
//! ```text
//! start      "keyward backup 1\n"
//! record     u8 table, u16 length of the key, u32 length of the JSON, key, JSON
//! …          in the order of tables and keys
//! end        u8 0, u64 number of records, u64 last commit, 32 bytes BLAKE3 of all bytes before
//! ```
//! Numbers are little-endian. An archive contains no revisions: a restored store numbers its
//! commits from 1 again.

use std::io::{self, Read, Write};

use super::{Sequence, Snapshot, StoreError, Table, codec::MAX_VALUE_SIZE};

const MAGIC: &[u8] = b"keyward backup ";
const VERSION: &[u8] = b"1\n";
const END: u8 = 0;

/// A summary of an archive's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// The number of records.
    pub records: u64,
    /// The last commit of the store that the archive was made from.
    pub sequence: Sequence,
    /// The checksum.
    pub blake3: [u8; 32],
}

/// Why an archive could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file could not be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is not an archive.
    #[error("the file is not a backup of Keyward")]
    NotAnArchive,
    /// A later version wrote the archive.
    #[error("a newer Keyward wrote it: restore it with that version")]
    Newer,
    /// The archive ends too early.
    #[error("the backup is truncated")]
    Truncated,
    /// The archive's bytes are not what was written.
    #[error("the backup is damaged: its checksum is wrong")]
    Damaged,
}

/// Writes all records of a snapshot.
pub fn write(snapshot: &dyn Snapshot, out: impl Write) -> Result<Contents, ArchiveError> {
    let mut out = Hashed { inner: out, hasher: blake3::Hasher::new() };
    out.write_all(MAGIC)?;
    out.write_all(VERSION)?;
    let mut records = 0;
    for table in Table::ALL {
        // The callback can return only a `StoreError`, so an I/O error is kept here.
        let mut io_error = None;
        let result = snapshot.each(table, &mut |key, record| {
            records += 1;
            write_record(&mut out, table, key, record.json).map_err(|problem| {
                io_error = Some(problem);
                StoreError::Failed("a backup could not be written".into())
            })
        });
        if let Some(problem) = io_error {
            return Err(problem.into());
        }
        result?;
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

fn write_record(out: &mut impl Write, table: Table, key: &[u8], json: &[u8]) -> io::Result<()> {
    let too_long = |_| io::Error::other("a record is too long");
    out.write_all(&[table as u8])?;
    out.write_all(&u16::try_from(key.len()).map_err(too_long)?.to_le_bytes())?;
    out.write_all(&u32::try_from(json.len()).map_err(too_long)?.to_le_bytes())?;
    out.write_all(key)?;
    out.write_all(json)
}

/// Reads an archive to its end and calls `each` with every record. The caller must not use the
/// records before this function has returned successfully: the checksum is at the end.
pub fn read(
    input: impl Read,
    mut each: impl FnMut(Table, Vec<u8>, Vec<u8>) -> Result<(), ArchiveError>,
) -> Result<Contents, ArchiveError> {
    let mut input = Hashed { inner: input, hasher: blake3::Hasher::new() };
    let magic: [u8; MAGIC.len()] =
        read_array(&mut input).map_err(|_| ArchiveError::NotAnArchive)?;
    if magic != MAGIC {
        return Err(ArchiveError::NotAnArchive);
    }
    let version: [u8; VERSION.len()] = read_array(&mut input)?;
    if version != VERSION {
        return Err(ArchiveError::Newer);
    }
    let mut records = 0;
    loop {
        let [table] = read_array(&mut input)?;
        if table == END {
            return read_end(input, records);
        }
        let key_length = usize::from(u16::from_le_bytes(read_array(&mut input)?));
        let json_length = u32::from_le_bytes(read_array(&mut input)?) as usize;
        let table = Table::from_byte(table).ok_or(ArchiveError::Damaged)?;
        // Checked before the allocation: a damaged length could ask for 4 GiB.
        if json_length > MAX_VALUE_SIZE {
            return Err(ArchiveError::Damaged);
        }
        records += 1;
        each(table, read_vec(&mut input, key_length)?, read_vec(&mut input, json_length)?)?;
    }
}

fn read_end(mut input: Hashed<impl Read>, records: u64) -> Result<Contents, ArchiveError> {
    let expected_records = u64::from_le_bytes(read_array(&mut input)?);
    let sequence = u64::from_le_bytes(read_array(&mut input)?);
    let computed = *input.hasher.finalize().as_bytes();
    let blake3: [u8; 32] = read_array(&mut input)?;
    let has_trailing_bytes = input.inner.read(&mut [0])? > 0;
    if expected_records == records && computed == blake3 && !has_trailing_bytes {
        Ok(Contents { records, sequence, blake3 })
    } else {
        Err(ArchiveError::Damaged)
    }
}

fn read_array<const N: usize>(input: &mut impl Read) -> Result<[u8; N], ArchiveError> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map_err(read_error)?;
    Ok(bytes)
}

fn read_vec(input: &mut impl Read, length: usize) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes).map_err(read_error)?;
    Ok(bytes)
}

fn read_error(problem: io::Error) -> ArchiveError {
    match problem.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Truncated,
        _ => problem.into(),
    }
}

/// Adds all bytes that are read or written to a checksum.
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

    fn archive_of(store: &MemoryStore) -> (Vec<u8>, Contents) {
        let mut file = Vec::new();
        let contents = write(&*store.snapshot().unwrap(), &mut file).unwrap();
        (file, contents)
    }

    fn read_all(file: &[u8]) -> Result<(Records, Contents), ArchiveError> {
        let mut records = Vec::new();
        let contents = read(file, |table, key, json| {
            records.push((table, key, json));
            Ok(())
        })?;
        Ok((records, contents))
    }

    #[tokio::test]
    async fn archive_contains_all_records_and_is_deterministic() {
        let store = store().await;
        let (file, contents) = archive_of(&store);
        assert_eq!(archive_of(&store).0, file);
        let (records, read_contents) = read_all(&file).unwrap();
        assert_eq!((read_contents, contents.records, contents.sequence), (contents, 30, 1));
        for table in Table::ALL {
            let found: Records =
                records.iter().filter(|record| record.0 == table).cloned().collect();
            let expected = [
                (table, vec![], b"{}".to_vec()),
                (table, b"a".to_vec(), table.name().as_bytes().to_vec()),
            ];
            assert_eq!(found, expected);
        }
        let empty = archive_of(&MemoryStore::new()).0;
        assert_eq!(read_all(&empty).unwrap().1.records, 0);
    }

    #[tokio::test]
    async fn every_changed_byte_and_every_truncation_is_detected() {
        let (file, _) = archive_of(&store().await);
        for at in 0..file.len() {
            for bit in [1, 0x80] {
                let mut changed = file.clone();
                changed[at] ^= bit;
                assert!(read_all(&changed).is_err(), "byte {at}");
            }
        }
        for length in 0..file.len() {
            let problem = read_all(&file[..length]).unwrap_err();
            assert!(
                matches!(problem, ArchiveError::Truncated | ArchiveError::NotAnArchive),
                "{length}"
            );
        }
        assert!(read_all(&[&file[..], b"\n"].concat()).is_err());
        let newer = [b"keyward backup 2\n", &file[17..]].concat();
        assert!(matches!(read_all(&newer), Err(ArchiveError::Newer)));
        // A length above the limit.
        let long = [b"keyward backup 1\nu\0\0", &[0xff; 4][..]].concat();
        assert!(matches!(read_all(&long), Err(ArchiveError::Damaged)));
    }
}
