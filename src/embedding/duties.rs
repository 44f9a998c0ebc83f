//! The background duties of a Keyward inside a program.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle};

use crate::accounts::Accounts;
#[cfg(feature = "watch")]
use crate::scripting::watch;

/// The time between two writes of the uses of keys.
const USAGE_INTERVAL: Duration = Duration::from_secs(10);

/// The running duties.
pub(super) struct Duties {
    /// Dropping the sender ends the duties.
    end: Mutex<Option<watch::Sender<()>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Duties {
    /// Starts the duties of these accounts on the runtime of the calling task.
    pub fn start(accounts: &Accounts) -> Self {
        let (sender, end) = watch::channel(());
        let ended = || dropped(end.clone());
        let (usage, usage_end) = (accounts.clone(), ended());
        let (denials, denials_end) = (accounts.clone(), ended());
        let (trail, trail_end) = (accounts.clone(), ended());
        let (store, store_end) = (accounts.clone(), ended());
        let (clock, clock_end) = (accounts.clone(), ended());
        #[cfg_attr(not(feature = "watch"), allow(unused_mut, reason = "one task more"))]
        let mut tasks = vec![
            tokio::spawn(async move {
                usage.write_usage_periodically(USAGE_INTERVAL, usage_end).await;
            }),
            tokio::spawn(async move { denials.write_denials_periodically(denials_end).await }),
            tokio::spawn(async move { trail.verify_audit_in_background(trail_end).await }),
            tokio::spawn(async move { store.verify_store(store_end).await }),
            tokio::spawn(async move { clock.watch_clock(clock_end).await }),
        ];
        #[cfg(feature = "watch")]
        if accounts.scripts().folder().is_some() {
            let (scripts, scripts_end) = (accounts.clone(), ended());
            tasks.push(tokio::spawn(async move {
                tokio::select! {
                    () = scripts_end => {}
                    () = reload_scripts(scripts) => {}
                }
            }));
        }
        Self { end: Mutex::new(Some(sender)), tasks: Mutex::new(tasks) }
    }

    /// Ends the duties and waits for their last write.
    pub async fn stop(&self) {
        drop(self.end.lock().take());
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            // A duty that has panicked has nothing left to write.
            let _ = task.await;
        }
    }
}

/// Resolves when the sender is dropped.
async fn dropped(mut receiver: watch::Receiver<()>) {
    while receiver.changed().await.is_ok() {}
}

/// Reloads the scripts after each change of their files.
#[cfg(feature = "watch")]
async fn reload_scripts(accounts: Accounts) {
    let watching = watch(accounts.scripts().clone(), |outcome| {
        for problem in outcome.as_ref().err().into_iter().flatten() {
            tracing::error!("cannot reload the scripts, so the old scripts stay in use: {problem}");
        }
    });
    if let Err(problem) = watching.await {
        tracing::error!("cannot watch the scripts: {problem}. Call Scripts::reload after a change");
    }
}
