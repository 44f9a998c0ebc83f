//! The error of a store that cannot be used, and the sentences that several findings share.

use std::path::Path;

use crate::store::StoreError;

/// The end of a message about records that are lost.
pub(super) const RESTORE: &str = "Restore it from a backup";
/// The finding that the digest over all records is wrong.
pub(super) const NOT_COMMITTED: &str = "its records are not those of the last commit";

pub(super) fn unusable(path: &Path, problem: &dyn ToString) -> StoreError {
    StoreError::Unusable { path: path.display().to_string(), problem: problem.to_string() }
}

pub(super) fn failed(e: sled::Error) -> StoreError {
    StoreError::Failed(e.to_string())
}
