//! The storage below redb: passes everything on to a file, or keeps all writes in memory.
//!
//! redb writes to a file while it opens it, also if it refuses it in the end, and it gives up all
//! reads after one failed write. This backend keeps writes in memory in two cases:
//! - A file is checked before it is opened ([`GuardedBackend::check_only`]). The check can repair
//!   what a crash has left behind, and the file is byte for byte what it was.
//! - A write or a sync has failed. redb is told that it succeeded, so that it goes on to read, and
//!   nothing reaches the disk any more. The owner asks for [`FileFault`] after each commit.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, OnceLock},
};

use parking_lot::RwLock;
use redb::StorageBackend;

/// The size of the parts of a file that are kept in memory.
const BLOCK: u64 = 4096;

/// Why nothing is written to the file any more. Empty means that writes reach the file.
pub(super) type FileFault = Arc<OnceLock<String>>;

/// Storage that is never changed, or not after a failure. It takes no locks: the owner has locked
/// the file.
#[derive(Debug)]
pub(super) struct GuardedBackend {
    storage: Box<dyn StorageBackend>,
    /// `None` means that writes go to the storage.
    overlay: RwLock<Option<Overlay>>,
    fault: FileFault,
}

impl GuardedBackend {
    /// A backend that never changes the storage.
    pub fn check_only(storage: impl StorageBackend) -> io::Result<Self> {
        let overlay = RwLock::new(Some(Overlay::of(&storage)?));
        Ok(Self { storage: Box::new(storage), overlay, fault: FileFault::default() })
    }

    /// A backend that writes to the storage until a write or a sync fails.
    pub fn new(storage: impl StorageBackend) -> Self {
        let (overlay, fault) = (RwLock::new(None), FileFault::default());
        Self { storage: Box::new(storage), overlay, fault }
    }

    /// The place of the first failure.
    pub fn fault(&self) -> FileFault {
        self.fault.clone()
    }

    /// Changes the storage, or the copy in memory if the storage is not changed any more.
    fn change(
        &self,
        direct: impl FnOnce(&dyn StorageBackend) -> io::Result<()>,
        in_memory: impl FnOnce(&mut Overlay, &dyn StorageBackend) -> io::Result<()>,
    ) -> io::Result<()> {
        let failure = {
            let overlay = self.overlay.read();
            match &*overlay {
                Some(_) => None,
                None => match direct(&*self.storage) {
                    Ok(()) => return Ok(()),
                    Err(failure) => Some(failure),
                },
            }
        };
        let mut overlay = self.overlay.write();
        if let Some(failure) = failure {
            let _ = self.fault.set(failure.to_string());
        }
        let overlay = match &mut *overlay {
            Some(overlay) => overlay,
            none => none.insert(Overlay::of(&*self.storage)?),
        };
        in_memory(overlay, &*self.storage)
    }
}

impl StorageBackend for GuardedBackend {
    fn len(&self) -> io::Result<u64> {
        match &*self.overlay.read() {
            Some(overlay) => Ok(overlay.length),
            None => self.storage.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.overlay.read() {
            Some(overlay) => overlay.read(&*self.storage, offset, out),
            None => self.storage.read(offset, out),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(
            |storage| storage.set_len(length),
            |overlay, _| {
                overlay.set_length(length);
                Ok(())
            },
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|storage| storage.sync_data(), |_, _| Ok(()))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(
            |storage| storage.write(offset, data),
            |overlay, storage| overlay.write(storage, offset, data),
        )
    }
}

/// Writes that are kept in memory.
#[derive(Debug)]
struct Overlay {
    /// The length that the storage would have.
    length: u64,
    /// From here on the storage's own bytes do not count: they are zero unless they were written.
    base_length: u64,
    /// The blocks that were written, by their number.
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    fn of(storage: &dyn StorageBackend) -> io::Result<Self> {
        let length = storage.len()?;
        Ok(Self { length, base_length: length, blocks: BTreeMap::new() })
    }

    fn read(&self, storage: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset + out.len() as u64;
        if end > self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let stored = self.base_length.saturating_sub(offset).min(out.len() as u64) as usize;
        let (base, rest) = out.split_at_mut(stored);
        storage.read(offset, base)?;
        rest.fill(0);
        for (number, block) in self.blocks.range(offset / BLOCK..end.div_ceil(BLOCK)) {
            let start = number * BLOCK;
            let (from, to) = (start.max(offset), (start + BLOCK).min(end));
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&block[(from - start) as usize..(to - start) as usize]);
        }
        Ok(())
    }

    fn write(&mut self, storage: &dyn StorageBackend, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        self.length = self.length.max(end);
        for number in offset / BLOCK..end.div_ceil(BLOCK) {
            let start = number * BLOCK;
            let (from, to) = (start.max(offset), (start + BLOCK).min(end));
            if !self.blocks.contains_key(&number) {
                let mut block = vec![0; BLOCK as usize];
                let stored = self.base_length.saturating_sub(start).min(BLOCK) as usize;
                if to - from < BLOCK {
                    storage.read(start, &mut block[..stored])?;
                }
                self.blocks.insert(number, block.into());
            }
            if let Some(block) = self.blocks.get_mut(&number) {
                block[(from - start) as usize..(to - start) as usize]
                    .copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
            }
        }
        Ok(())
    }

    fn set_length(&mut self, length: u64) {
        if length < self.length {
            self.base_length = self.base_length.min(length);
            self.blocks.split_off(&length.div_ceil(BLOCK));
            // The rest of the last block is zero if the storage grows again.
            if let Some(block) = self.blocks.get_mut(&(length / BLOCK)) {
                block[(length % BLOCK) as usize..].fill(0);
            }
        }
        self.length = length;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt as _};

    use proptest::{collection::vec, prelude::*};
    use redb::backends::FileBackend;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLength(u64),
        Read(u64, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let data = (any::<u8>(), 1..9000_usize).prop_map(|(byte, size)| vec![byte; size]);
        prop_oneof![
            (0..20_000_u64, data).prop_map(|(offset, data)| Step::Write(offset, data)),
            (0..30_000_u64).prop_map(Step::SetLength),
            (0..30_000_u64, 1..9000_usize).prop_map(|(offset, size)| Step::Read(offset, size)),
        ]
    }

    fn file_of(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn storage(file: &File) -> FileBackend {
        FileBackend::new(file.try_clone().unwrap()).unwrap()
    }

    fn bytes_of(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn read(backend: &GuardedBackend, offset: u64, size: usize) -> Option<Vec<u8>> {
        let mut out = vec![7; size];
        backend.read(offset, &mut out).ok().map(|()| out)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn writes_in_memory_read_like_writes_to_a_file(steps in vec(step(), 1..30)) {
            let content: Vec<u8> = (0..13_000_u32).map(|at| (at % 251) as u8).collect();
            let (kept, changed) = (file_of(&content), file_of(&content));
            let in_memory = GuardedBackend::check_only(storage(&kept)).unwrap();
            let direct = GuardedBackend::new(storage(&changed));
            for step in steps {
                match step {
                    Step::Write(offset, data) => {
                        in_memory.write(offset, &data).unwrap();
                        direct.write(offset, &data).unwrap();
                    }
                    Step::SetLength(length) => {
                        in_memory.set_len(length).unwrap();
                        direct.set_len(length).unwrap();
                    }
                    Step::Read(offset, size) => {
                        prop_assert_eq!(read(&in_memory, offset, size), read(&direct, offset, size));
                    }
                }
                prop_assert_eq!(in_memory.len().unwrap(), direct.len().unwrap());
            }
            let length = direct.len().unwrap() as usize;
            prop_assert_eq!(read(&in_memory, 0, length), read(&direct, 0, length));
            prop_assert!(direct.fault().get().is_none());
            prop_assert_eq!(bytes_of(&kept), content);
        }
    }

    #[test]
    fn after_a_failed_write_the_file_is_read_and_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"0123456789").unwrap();
        // Opened for reading only, so each write fails.
        let backend = GuardedBackend::new(storage(&File::open(&path).unwrap()));
        let fault = backend.fault();
        assert!(fault.get().is_none());
        backend.write(2, b"xy").unwrap();
        assert!(fault.get().is_some());
        backend.sync_data().unwrap();
        assert_eq!(read(&backend, 0, 10).unwrap(), b"01xy456789");
        assert_eq!(std::fs::read(&path).unwrap(), b"0123456789");
    }
}
