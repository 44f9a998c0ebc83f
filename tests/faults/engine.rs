//! Opens the engines by name, so that each test runs against all of them.

use std::{path::Path, sync::Arc};

use keyward::store::{RedbStore, SledStore, Store, StoreError};

/// The engines that keep their records on a disk.
pub const ENGINES: &[&str] = &["sled", "redb"];

const CACHE_MIB: u64 = 16;

/// Opens the store in a folder, or creates one.
pub fn open(engine: &str, path: &Path) -> Result<Arc<dyn Store>, StoreError> {
    match engine {
        "sled" => Ok(Arc::new(SledStore::open(path, CACHE_MIB)?)),
        "redb" => Ok(Arc::new(RedbStore::open(path, CACHE_MIB)?)),
        other => panic!("there is no engine {other}"),
    }
}

/// Compacts the store in a folder.
pub fn compact(engine: &str, path: &Path) -> Result<(), StoreError> {
    match engine {
        "sled" => SledStore::compact(path, CACHE_MIB).map(drop),
        "redb" => RedbStore::compact(path, CACHE_MIB).map(drop),
        other => panic!("there is no engine {other}"),
    }
}
