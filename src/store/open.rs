//! Opens a store with the engine that was chosen.

use std::{path::Path, sync::Arc};

use super::{EngineKind, RedbStore, SledStore, Store, StoreError, engine::refuse_other_engine};

/// Opens the store in `path`, or creates one if the folder is missing or empty. `cache_mib` is the
/// size of the engine's page cache in MiB.
///
/// # Errors
/// [`StoreError::Locked`] if another process has the store open. [`StoreError::Unusable`] if the
/// folder contains anything but a complete store with this engine.
pub fn open(engine: EngineKind, path: &Path, cache_mib: u64) -> Result<Arc<dyn Store>, StoreError> {
    refuse_other_engine(path, engine)?;
    Ok(match engine {
        EngineKind::Sled => Arc::new(SledStore::open(path, cache_mib)?),
        EngineKind::Redb => Arc::new(RedbStore::open(path, cache_mib)?),
    })
}
