//! The `[backup]` section: backups that the server writes by itself.

use std::{path::Path, time::Duration};

use super::{Check, appended, file, lies_in};
use crate::{accounts::BackupSchedule, model::parse_span};

/// The longest time between two backups: 366 days.
const LONGEST: i64 = 366 * 86_400;

impl<R: FnMut(&[&str], String, String)> Check<R> {
    pub(super) fn backup(
        &mut self,
        raw: &file::BackupSection,
        store_path: &str,
    ) -> Option<BackupSchedule> {
        let keep = self.size("backup.keep", raw.keep, 1..=10_000);
        let store: &Path = &Path::new(store_path).components().collect::<std::path::PathBuf>();
        let dir = match raw.dir.as_str() {
            "" => appended(store, ".backups"),
            given => given.into(),
        };
        if !raw.dir.is_empty() && lies_in(&dir, store) {
            self.broken(
                "backup.dir",
                "The backups would lie in the store's own folder.",
                "Name a folder outside of store.path, best on another disk.",
            );
        }
        if raw.every.is_empty() {
            return None;
        }
        let seconds = parse_span(&raw.every).filter(|seconds| (1..=LONGEST).contains(seconds));
        let Some(seconds) = seconds else {
            self.broken(
                "backup.every",
                "This is no time between two backups.",
                "Use a time from 1s to 366d, such as 24h or 1d12h, or \"\" for no backups.",
            );
            return None;
        };
        Some(BackupSchedule {
            every: Duration::from_secs(seconds.unsigned_abs()),
            keep,
            dir,
            create_dir: raw.dir.is_empty(),
            name: store.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        })
    }
}
