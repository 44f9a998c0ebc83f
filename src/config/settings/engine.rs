//! The storage engine that is chosen.

use crate::store::EngineKind;

/// The storage engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Stores on disk, with sled.
    Sled,
    /// Stores on disk, with redb.
    Redb,
    /// Stores in memory, until the program stops.
    Memory,
}

impl Engine {
    /// The engine that stores on disk. `None` means that the store is in memory.
    pub fn on_disk(self) -> Option<EngineKind> {
        match self {
            Self::Sled => Some(EngineKind::Sled),
            Self::Redb => Some(EngineKind::Redb),
            Self::Memory => None,
        }
    }
}
