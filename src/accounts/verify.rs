//! The check of all records in the background. The start checks the records that decisions read;
//! the indexes and all other records are checked afterwards, beside the traffic.

use std::time::Instant;

use super::Accounts;
use crate::store::Cancel;

impl Accounts {
    /// Reads all records of the store once, and compares them with the digest of the last commit.
    /// If they differ, the store stops writing, which readiness shows. Ends when all records are
    /// read, or soon after `end` resolves.
    pub async fn verify_store(&self, end: impl Future<Output = ()>) {
        let (store, cancel) = (self.0.store.clone(), Cancel::default());
        let (cancelled, started) = (cancel.clone(), Instant::now());
        let mut check = tokio::task::spawn_blocking(move || store.verify(cancelled.flag()));
        let checked = tokio::select! {
            checked = &mut check => checked,
            () = end => {
                cancel.cancel();
                let _ = check.await;
                return;
            }
        };
        let seconds = started.elapsed().as_secs_f32();
        match checked {
            Ok(Ok(())) => tracing::info!(seconds, "all records are those of the last commit"),
            Ok(Err(problem)) => tracing::error!(seconds, "the store is damaged: {problem}"),
            Err(panic) => tracing::error!(seconds, "the check of all records panicked: {panic}"),
        }
    }
}
