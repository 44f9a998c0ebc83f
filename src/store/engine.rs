//! The engines that keep a store in a folder, and which of them a folder belongs to.

use std::path::Path;

use super::{StoreError, marker};

/// The database file of redb.
pub(super) const REDB_FILE: &str = "store.redb";
/// The files of sled.
const SLED_FILES: [&str; 2] = ["db", "conf"];

/// An engine that keeps a store in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// [`SledStore`](super::SledStore).
    Sled,
    /// [`RedbStore`](super::RedbStore).
    Redb,
}

impl EngineKind {
    /// All engines.
    pub const ALL: [Self; 2] = [Self::Sled, Self::Redb];

    /// The name in the configuration, as `store.engine`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Redb => "redb",
        }
    }

    /// The engine whose files are in the folder. `None` means that there are none.
    pub fn of_folder(path: &Path) -> Option<Self> {
        if SLED_FILES.into_iter().any(|name| path.join(name).exists()) {
            Some(Self::Sled)
        } else {
            path.join(REDB_FILE).exists().then_some(Self::Redb)
        }
    }
}

/// Whether `path` contains a store of any engine, complete or not.
pub fn store_exists(path: &Path) -> bool {
    path.join(marker::NAME).exists() || EngineKind::of_folder(path).is_some()
}

/// Refuses a folder with the files of another engine than `engine`.
pub(super) fn refuse_other_engine(path: &Path, engine: EngineKind) -> Result<(), StoreError> {
    match EngineKind::of_folder(path) {
        // Other files in a folder without a store are reported by the engine.
        Some(found) if found != engine && path.join(marker::NAME).exists() => {
            let (found, engine) = (found.name(), engine.name());
            let problem = format!(
                "it is a store of the engine {found}, and {engine} was to open it. Set \
                 store.engine = \"{found}\", or run keyward store convert --to {engine} while no \
                 server runs"
            );
            Err(StoreError::Unusable { path: path.display().to_string(), problem })
        }
        _ => Ok(()),
    }
}
