//! Reports the requests and connections of a listener to an observer.

use std::sync::Arc;

use ::http::{Method, StatusCode};

use crate::pipeline::record::{
    ConnectionEvent, ListenerKind, Observation, RequestObserver, RequestRecord,
};

/// The observer of a listener. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Observed(Option<(Arc<dyn RequestObserver>, ListenerKind)>);

impl Observed {
    pub fn by(observer: Arc<dyn RequestObserver>, listener: ListenerKind) -> Self {
        Self(Some((observer, listener)))
    }

    pub fn observation(&self) -> Observation {
        self.0.as_ref().map_or(Observation::Off, |(observer, _)| observer.observation())
    }

    /// Reports a request whose response is ready. `method` is for a request that was not described.
    pub fn finished(&self, record: &RequestRecord, method: &Method, status: StatusCode) {
        if let Some((observer, listener)) = &self.0 {
            record.finish(&**observer, *listener, method, status);
        }
    }

    pub fn report(&self, event: ConnectionEvent) {
        if let Some((observer, listener)) = &self.0 {
            observer.connection(*listener, event);
        }
    }

    /// Reports that a connection was opened and, when the result is dropped, that it was closed.
    pub fn opened(&self) -> OpenConnection {
        self.report(ConnectionEvent::Opened);
        OpenConnection(self.clone())
    }
}

/// An open connection of an observed listener.
pub(super) struct OpenConnection(Observed);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.report(ConnectionEvent::Closed);
    }
}
