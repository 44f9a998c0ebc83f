//! Several observers as one.

use std::sync::Arc;

use super::{access_log::AccessLog, metrics::Metrics};
use crate::pipeline::record::{
    ConnectionEvent, FinishedRequest, ListenerKind, Observation, RequestObserver,
};

/// The metrics and the access log, as far as they are on. Cheap to clone.
#[derive(Clone, Default)]
pub struct Observers {
    /// `None` means that nothing is counted.
    pub metrics: Option<Metrics>,
    /// `None` means no access log.
    pub access_log: Option<Arc<AccessLog>>,
}

impl Observers {
    /// The observer of the listeners. `None` means that nothing is observed.
    pub fn observer(&self) -> Option<Arc<dyn RequestObserver>> {
        match (&self.metrics, &self.access_log) {
            (None, None) => None,
            (Some(metrics), None) => Some(Arc::new(metrics.clone())),
            (None, Some(log)) => Some(log.clone()),
            (Some(_), Some(_)) => Some(Arc::new(self.clone())),
        }
    }
}

impl RequestObserver for Observers {
    fn observation(&self) -> Observation {
        let metrics = self.metrics.as_ref().map(RequestObserver::observation);
        let log = self.access_log.as_ref().map(|log| log.observation());
        metrics.max(log).unwrap_or_default()
    }

    fn finished(&self, request: &FinishedRequest<'_>) {
        if let Some(metrics) = &self.metrics {
            metrics.finished(request);
        }
        if let Some(log) = &self.access_log {
            log.finished(request);
        }
    }

    fn connection(&self, listener: ListenerKind, event: ConnectionEvent) {
        if let Some(metrics) = &self.metrics {
            metrics.connection(listener, event);
        }
    }
}
