//! The metrics and the access log of a server.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::Signal;

use crate::{
    accounts::Accounts,
    cli::instance::metrics::MetricsPage,
    config::Settings,
    telemetry::{Observers, access_log::AccessLog, metrics::Metrics},
};

/// Starts what the configuration asks for.
///
/// # Errors
/// The file of the access log cannot be opened.
pub fn start(settings: &Settings) -> anyhow::Result<Observers> {
    let access_log = settings.access_log.as_ref().map(|log| {
        AccessLog::open(&log.output, log.format, log.requests.clone())
            .context("access_log.output: cannot open the file for writing")
    });
    Ok(Observers {
        metrics: settings.metrics.as_ref().map(|_| Metrics::default()),
        access_log: access_log.transpose()?.map(Arc::new),
    })
}

/// The page of the metrics. `None` means that there are none.
///
/// # Errors
/// The file of the token cannot be read.
pub fn page(
    settings: &Settings,
    observers: &Observers,
    accounts: &Accounts,
) -> anyhow::Result<Option<MetricsPage>> {
    let page = settings.metrics.as_ref().map(|metrics| {
        let (observers, accounts) = (observers.clone(), accounts.clone());
        MetricsPage::new(metrics, observers, accounts, settings.backup.clone())
    });
    page.transpose()
}

/// Opens the access log again at each SIGHUP, since a program that rotates logs has moved the file.
pub async fn reopen_on_hangup(observers: Observers, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        if let Some(log) = &observers.access_log {
            log.reopen();
        }
    }
}

/// Writes the lines of the last requests.
pub async fn flush(observers: Observers) {
    if let Some(log) = observers.access_log {
        let _ = tokio::task::spawn_blocking(move || log.flush()).await;
    }
}
