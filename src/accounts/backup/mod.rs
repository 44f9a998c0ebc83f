//! Writing and restoring backups. A backup is a whole store in one sealed file. It is written while
//! the server runs, and restored while it does not.
//!
//! The pepper is not in the backup. Without the pepper no key in a backup can be checked, and the
//! backup's seal cannot be checked either, so keep the two in different places.

mod compare;
mod keep;
mod narrow;
mod restore;
mod schedule;
#[cfg(test)]
mod tests;
mod write;

pub use compare::Revival;
pub use restore::{
    LaterChanges, RestoreError, Restored, check_backup, check_backup_completeness, restore,
};
pub use schedule::BackupSchedule;
pub(super) use schedule::BackupStatus;
pub use write::WrittenBackup;
