//! The end of the server: the first SIGTERM or SIGINT lets requests finish, and a second signal or
//! the end of the time in `server.shutdown_seconds` ends the process at once.
//!
//! A thread of its own waits for the signals, so no other work can delay the end.

use std::{thread, time::Duration};

use anyhow::Context as _;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::timeout,
};

/// The longest time that is kept for the last writes, after the last request.
const MAX_LAST_WRITES: Duration = Duration::from_secs(2);

/// The time that running requests have to finish. The rest of the whole time is for the last
/// writes.
pub fn time_of_requests(whole: Duration) -> Duration {
    whole.saturating_sub(MAX_LAST_WRITES.min(whole / 5))
}

/// Returns a receiver that becomes true with the first SIGTERM or SIGINT. From then on, the process
/// lives for at most `whole`.
pub fn stop_signal(whole: Duration) -> anyhow::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let (registered, registration) = std::sync::mpsc::channel();
    let waiting = move || -> anyhow::Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let signals = Signals::new();
            let (signals, problem) = match signals {
                Ok(signals) => (Some(signals), None),
                Err(problem) => (None, Some(problem)),
            };
            // This cannot fail, because the caller waits.
            let _ = registered.send(problem);
            if let Some(signals) = signals {
                signals.wait(&sender, whole).await;
            }
        });
        Ok(())
    };
    thread::Builder::new().name("signals".into()).spawn(waiting)?;
    match registration.recv() {
        Ok(None) => Ok(receiver),
        Ok(Some(problem)) => Err(problem).context("cannot wait for signals"),
        Err(_) => anyhow::bail!("cannot wait for signals: the thread has ended"),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn wait(mut self, sender: &watch::Sender<bool>, whole: Duration) {
        self.next().await;
        tracing::info!("stopping");
        sender.send_replace(true);
        match timeout(whole, self.next()).await {
            Ok(()) => tracing::warn!("stopping at once"),
            Err(_) => tracing::warn!(
                seconds = whole.as_secs(),
                "stopping at once: the time in server.shutdown_seconds is over"
            ),
        }
        exit_at_once();
    }
}

#[expect(clippy::exit, reason = "every acknowledged change is on the disk")]
fn exit_at_once() -> ! {
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_last_writes_share_the_whole_time() {
        for (whole, requests) in [(1_000, 800), (10_000, 8_000), (60_000, 58_000)] {
            let whole = Duration::from_millis(whole);
            assert_eq!(time_of_requests(whole), Duration::from_millis(requests));
        }
    }
}
