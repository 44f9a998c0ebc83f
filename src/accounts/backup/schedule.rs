//! Backups that a server writes by itself: when, where, and how many are kept.

use std::{
    fs::{self, DirBuilder, File},
    future::Future,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::fs::{Access, access};

use super::{
    check_backup,
    write::{self, PART, WriteLimits, WrittenBackup},
};
use crate::{accounts::Accounts, model::Timestamp, store::archive::ArchiveError};

/// The wait after the first failed attempt. It doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(60);
const LONGEST_RETRY: Duration = Duration::from_secs(30 * 60);
/// The longest time for which changes may wait. It is shorter than the time after which the store
/// takes a waiting write for a failed one, and stops.
const LONGEST_WAIT: Duration = Duration::from_secs(45);
/// The end of a backup's name.
const END: &str = ".backup";

/// When and where a server writes backups by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSchedule {
    /// The time between two backups.
    pub every: Duration,
    /// The number of backups that are kept, at least one.
    pub keep: usize,
    /// The folder of the backups.
    pub dir: PathBuf,
    /// Whether a missing folder is created. A folder that the operator has named is not: it may be
    /// on a disk that is not mounted.
    pub create_dir: bool,
    /// The beginning of the names. A server removes only files that are named
    /// `NAME-20261129T205142Z.backup`.
    pub name: String,
}

/// The state of the scheduled backups, for readiness.
#[derive(Debug, Default)]
pub(in crate::accounts) struct BackupStatus(Mutex<Option<String>>);

/// A failed attempt, as a text for the log.
#[derive(Debug)]
pub(super) struct Failed(String);

impl Accounts {
    /// The reason why the last scheduled backup was not written. `None` means that it was, or that
    /// none was due yet.
    pub fn backup_problem(&self) -> Option<String> {
        self.0.backup_status.0.lock().clone()
    }

    /// Writes backups by this schedule until `end` resolves. The first one is written at once if
    /// the newest backup in the folder is older than the schedule allows.
    pub async fn write_backups_periodically(
        &self,
        schedule: BackupSchedule,
        end: impl Future<Output = ()>,
    ) {
        let mut end = pin!(end);
        let mut failures = 0;
        loop {
            let limits = WriteLimits { longest_wait: Some(LONGEST_WAIT), ..WriteLimits::default() };
            let limits = Arc::new(limits);
            let mut attempt = tokio::task::spawn_blocking({
                let (accounts, schedule) = (self.clone(), schedule.clone());
                let limits = limits.clone();
                move || accounts.keep_backups(&schedule, &limits)
            });
            let finished = tokio::select! {
                finished = &mut attempt => finished,
                () = &mut end => {
                    // A large backup must not delay the end of the server.
                    limits.is_stopped.cancel();
                    let _ = attempt.await;
                    return;
                }
            };
            let failed = finished.unwrap_or_else(|panic| Err(Failed(panic.to_string())));
            let wait = match failed {
                Ok(wait) => {
                    failures = 0;
                    *self.0.backup_status.0.lock() = None;
                    wait
                }
                Err(Failed(problem)) => {
                    let wait = retry_wait(failures).min(schedule.every);
                    failures += 1;
                    let seconds = wait.as_secs();
                    tracing::error!(
                        "could not write a backup: {problem}; will retry in {seconds} s"
                    );
                    *self.0.backup_status.0.lock() = Some(problem);
                    wait
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = &mut end => return,
            }
        }
    }

    /// Writes a backup if one is due, and removes what is too old. Returns the wait until the next
    /// one.
    pub(super) fn keep_backups(
        &self,
        schedule: &BackupSchedule,
        limits: &WriteLimits,
    ) -> Result<Duration, Failed> {
        if let Some(fault) = self.fault() {
            return Err(Failed(format!("the store stopped writing: {fault}")));
        }
        schedule.prepare_dir()?;
        schedule.remove_leftovers()?;
        let now = self.0.clock.now();
        let newest = schedule.backups()?.pop().map(|(written, _)| written);
        let wait = schedule.wait_after(newest, now);
        if !wait.is_zero() {
            schedule.remove_old()?;
            return Ok(wait);
        }
        // A clock that was set back must not make the new backup look older than the last one.
        let time = newest.map_or(now, |newest| now.max(newest.plus(1)));
        let file = schedule.dir.join(schedule.file_name(time));
        let written = write::write(&*self.0.store, &self.0.pepper.backup_key(), &file, limits);
        let WrittenBackup { contents, .. } = written
            .map_err(|problem: ArchiveError| Failed(format!("{}: {problem}", file.display())))?;
        tracing::info!(file = %file.display(), records = contents.records, "backup written");
        schedule.remove_old()?;
        Ok(schedule.every)
    }
}

fn retry_wait(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_RETRY)
}

impl BackupSchedule {
    /// Whether backups can be written to the folder now.
    ///
    /// # Errors
    /// The folder is missing, or cannot be written to; the text says which.
    pub fn check_dir(&self) -> Result<(), String> {
        self.prepare_dir().map_err(|Failed(problem)| problem)
    }

    /// The newest of these backups that is complete and whose seal is right. Reads whole files.
    pub fn newest_usable(&self, pepper_file: &Path) -> Option<PathBuf> {
        let mut backups = self.backups().ok()?;
        backups.sort();
        let mut newest_first = backups.into_iter().rev().map(|(_, path)| path);
        newest_first.find(|path| check_backup(path, pepper_file).is_ok())
    }

    /// The time and the size in bytes of the newest of these backups. `None` means that there is
    /// none, or that the folder cannot be read.
    pub fn newest_file(&self) -> Option<(Timestamp, u64)> {
        let (time, path) = self.backups().ok()?.into_iter().max()?;
        Some((time, fs::metadata(path).ok()?.len()))
    }

    fn failed(&self, problem: &dyn std::fmt::Display) -> Failed {
        Failed(format!("the folder {} (backup.dir): {problem}", self.dir.display()))
    }

    fn prepare_dir(&self) -> Result<(), Failed> {
        if self.create_dir {
            match DirBuilder::new().mode(0o700).recursive(true).create(&self.dir) {
                Err(problem) if problem.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(self.failed(&problem));
                }
                _ => {}
            }
        }
        if !fs::metadata(&self.dir).map_err(|problem| self.failed(&problem))?.is_dir() {
            return Err(self.failed(&"it is not a folder"));
        }
        access(&self.dir, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|problem| self.failed(&format!("it is not writable: {problem}")))
    }

    fn file_name(&self, time: Timestamp) -> String {
        let digits: String =
            time.to_string().chars().take(19).filter(|c| !"-:".contains(*c)).collect();
        format!("{}-{digits}Z{END}", self.name)
    }

    /// The time in the name of a backup. `None` means that this schedule does not name files so.
    fn time_of(&self, file_name: &str) -> Option<Timestamp> {
        let digits = file_name.strip_prefix(&self.name)?.strip_prefix('-')?;
        let digits = digits.strip_suffix(END)?.strip_suffix('Z')?;
        let (date, time) = digits.split_once('T')?;
        let is_number = |text: &str, length| {
            text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !is_number(date, 8) || !is_number(time, 6) {
            return None;
        }
        let date = [&date[..4], &date[4..6], &date[6..]].join("-");
        let time = [&time[..2], &time[2..4], &time[4..]].join(":");
        Timestamp::parse(&format!("{date}T{time}Z"))
    }

    /// The files of this schedule whose names end with `suffix`, the oldest first.
    fn files(&self, suffix: &str) -> Result<Vec<(Timestamp, PathBuf)>, Failed> {
        let list = || -> io::Result<Vec<(Timestamp, PathBuf)>> {
            let mut found = Vec::new();
            for entry in fs::read_dir(&self.dir)? {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_str().and_then(|name| name.strip_suffix(suffix));
                let Some(time) = name.and_then(|name| self.time_of(name)) else { continue };
                if entry.file_type()?.is_file() {
                    found.push((time, entry.path()));
                }
            }
            found.sort();
            Ok(found)
        };
        list().map_err(|problem| self.failed(&problem))
    }

    fn backups(&self) -> Result<Vec<(Timestamp, PathBuf)>, Failed> {
        self.files("")
    }

    /// The wait until the next backup. Zero means that it is due.
    fn wait_after(&self, newest: Option<Timestamp>, now: Timestamp) -> Duration {
        let age = newest.and_then(|newest| u64::try_from(now.0.saturating_sub(newest.0)).ok());
        // A time in the future says nothing about the age.
        age.map_or(Duration::ZERO, |age| self.every.saturating_sub(Duration::from_secs(age)))
    }

    /// Removes the temporary files of attempts that were killed.
    fn remove_leftovers(&self) -> Result<(), Failed> {
        for (_, path) in self.files(PART)? {
            let file = match File::open(&path) {
                Err(problem) if problem.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(|problem| in_file(&path, &problem))?,
            };
            if write::lock(&file).is_err() {
                tracing::warn!(
                    file = %path.display(),
                    "another process is writing a backup there: give each server a folder of its own"
                );
                continue;
            }
            remove(&path)?;
            tracing::warn!(file = %path.display(), "removed the rest of an interrupted backup");
        }
        Ok(())
    }

    /// Removes all but the newest backups.
    fn remove_old(&self) -> Result<(), Failed> {
        let backups = self.backups()?;
        let surplus = backups.len().saturating_sub(self.keep.max(1));
        for (_, path) in &backups[..surplus] {
            remove(path)?;
            tracing::info!(file = %path.display(), "removed an old backup");
        }
        Ok(())
    }
}

fn in_file(path: &Path, problem: &io::Error) -> Failed {
    Failed(format!("{}: {problem}", path.display()))
}

fn remove(path: &Path) -> Result<(), Failed> {
    match fs::remove_file(path) {
        Err(problem) if problem.kind() != io::ErrorKind::NotFound => Err(in_file(path, &problem)),
        _ => Ok(()),
    }
}
