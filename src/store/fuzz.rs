//! Checks of backup files with any damage, for the fuzz targets.

use std::sync::OnceLock;

use super::{Batch, MemoryStore, Store as _, Table, archive};
use crate::model::{BackupKey, Pepper};

type Records = Vec<(Table, Vec<u8>, Vec<u8>)>;

/// Checks a backup that was changed. The input is a list of changes: two bytes for the offset, one
/// for the kind of change, one for its value.
///
/// # Panics
/// A changed backup was read as another one.
pub fn backup(data: &[u8]) {
    let (good, records, contents) = sample();
    let mut file = good.clone();
    for change in data.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % file.len().max(1);
        let value = change[3];
        match change[2] % 5 {
            0 if at < file.len() => file[at] ^= value,
            1 => file.insert(at, value),
            2 => drop(file.drain(at..(at + usize::from(value)).min(file.len()))),
            3 => file.truncate(at),
            _ => {
                let copied = file[at..(at + usize::from(value)).min(file.len())].to_vec();
                file.splice(at..at, copied);
            }
        }
    }
    // As a person without the pepper would, for half of the inputs.
    if data.len() % 8 >= 4 && file.len() > 64 {
        let end = file.len() - 64;
        let checksum = *blake3::hash(&file[..end]).as_bytes();
        file[end..end + 32].copy_from_slice(&checksum);
    }
    let mut read = Records::new();
    let result = archive::read(&file[..], Some(&key()), |table, key, json| {
        read.push((table, key, json));
        Ok(())
    });
    if let Ok(found) = result {
        assert!(file == *good, "a changed backup was accepted");
        assert_eq!((&read, &found), (records, contents));
    }
}

fn key() -> BackupKey {
    Pepper::from_bytes([7; 32]).backup_key()
}

/// A small backup, its records and its summary.
fn sample() -> &'static (Vec<u8>, Records, archive::Contents) {
    static SAMPLE: OnceLock<(Vec<u8>, Records, archive::Contents)> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        for table in Table::ALL {
            batch.put(table, *b"a", table.name().into());
            batch.put(table, Vec::new(), b"{}".to_vec());
        }
        let committed = futures_util::FutureExt::now_or_never(store.commit(batch));
        committed.expect("memory needs no wait").expect("the batch is valid");
        let snapshot = store.snapshot().expect("memory has snapshots");
        let mut file = Vec::new();
        let contents = archive::write(&*snapshot, &mut file, &key()).expect("memory is written");
        let mut records = Records::new();
        archive::read(&file[..], Some(&key()), |table, key, json| {
            records.push((table, key, json));
            Ok(())
        })
        .expect("the backup is good");
        (file, records, contents)
    })
}
