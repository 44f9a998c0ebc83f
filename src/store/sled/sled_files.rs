//! Opens sled in a folder, and handles the files that sled does not handle well: the lock, the
//! settings, and the durability of new files.

use std::{
    fs::{self, File},
    io,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use crate::store::{
    StoreError,
    disk::{RESTORE, panic_text, unusable},
};

/// How long to wait until another process releases the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// sled takes a settings file that is smaller than this for none, and writes a new one.
pub(super) const MIN_CONF_SIZE: usize = 9;

/// An open sled. Closing it syncs its log, and sled panics if the sync fails. Everything committed
/// was synced before, so the panic is caught.
pub(super) struct OpenDb(Option<sled::Db>);

impl Deref for OpenDb {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        self.0.as_ref().expect("it is taken out in `drop` only")
    }
}

impl Drop for OpenDb {
    fn drop(&mut self) {
        let db = self.0.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(db))) {
            tracing::warn!("could not close sled: {}", panic_text(panic.as_ref()));
        }
    }
}

/// Locks the marker file of an existing store, or the folder of a new one. sled's own lock would
/// come too late: the copy of the files is made before.
pub(super) fn lock(path: &Path, file: io::Result<File>) -> Result<File, StoreError> {
    let file = file.map_err(|e| unusable(path, &e))?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked { path: path.display().to_string() });
            }
            Err(e) => return Err(unusable(path, &io::Error::from(e))),
        }
    }
}

/// Checks sled's settings file, whose last four bytes are the CRC32 of the others. sled only warns
/// if they are not.
pub(super) fn check_conf(path: &Path) -> Result<(), String> {
    let conf = fs::read(path.join("conf")).map_err(|e| format!("the file conf: {e}"))?;
    let is_intact = conf.len() >= MIN_CONF_SIZE
        && conf.split_last_chunk().is_some_and(|(settings, check)| {
            crc32fast::hash(settings) == u32::from_le_bytes(*check)
        });
    if is_intact { Ok(()) } else { Err(format!("the file conf is damaged. {RESTORE}")) }
}

pub(super) fn open_sled(path: &Path, cache_mib: u64) -> Result<OpenDb, StoreError> {
    let config =
        sled::Config::new().path(path).cache_capacity(cache_mib * 1024 * 1024).flush_every_ms(None);
    let broken = |e: io::Error| unusable(path, &e);
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        // sled panics on some damaged files.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|panic| unusable(path, &panic_text(panic.as_ref())))?;
        match opened {
            Ok(db) => {
                // A start overwrites segments that only its new snapshot makes superfluous, and
                // sled does not sync the snapshot's name.
                let db = OpenDb(Some(db));
                File::open(path).and_then(|folder| folder.sync_all()).map_err(broken)?;
                return Ok(db);
            }
            Err(sled::Error::Io(e)) if is_lock_error(&e) => {
                if Instant::now() >= deadline {
                    return Err(StoreError::Locked { path: path.display().to_string() });
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(e) => return Err(unusable(path, &e)),
        }
    }
}

/// sled wraps the lock's error in an error of kind `Other` whose text mentions it.
fn is_lock_error(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock || e.to_string().contains("could not acquire lock")
}

/// Makes the new files durable, and their names in their folders.
pub(super) fn make_durable(path: &Path, log: &File) -> io::Result<()> {
    log.sync_all()?;
    File::open(path.join("conf"))?.sync_all()?;
    File::open(path)?.sync_all()?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
