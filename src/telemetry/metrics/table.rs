//! The keys by which requests and connections are counted. The number of keys is bounded: no key
//! contains a text that a client or a user chooses.

use std::{borrow::Cow, sync::Arc};

use ::http::{Method, StatusCode};
use foldhash::fast::RandomState;

use super::histogram::{DECISION_BOUNDS, HTTP_BOUNDS, Histogram};
use crate::pipeline::record::{ConnectionEvent, FinishedRequest, ListenerKind};

/// The maximum number of error codes of one shard. Scripts choose codes; further codes are counted
/// as [`OTHER`].
const MAX_CODES: usize = 200;
/// The maximum number of upstreams of one shard.
const MAX_UPSTREAMS: usize = 1000;
/// The name of everything beyond a maximum. OpenTelemetry uses it for unknown methods.
pub(super) const OTHER: &str = "_OTHER";

/// The methods that have a name in metrics.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::PATCH,
    Method::OPTIONS,
    Method::CONNECT,
    Method::TRACE,
];

type Map<K, V> = hashbrown::HashMap<K, V, RandomState>;
pub(super) type HttpHistogram = Histogram<{ HTTP_BOUNDS.len() }>;
pub(super) type DecisionHistogram = Histogram<{ DECISION_BOUNDS.len() }>;

/// The counts of one shard, or of all.
#[derive(Default)]
pub(super) struct Table {
    pub requests: Map<RequestKey, HttpHistogram>,
    pub decisions: Map<DecisionKey, u64>,
    pub decided_in: Map<DurationKey, DecisionHistogram>,
    pub upstreams: Map<UpstreamKey, HttpHistogram>,
    pub connections: Map<(ListenerKind, ConnectionEvent), u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RequestKey {
    pub listener: ListenerKind,
    /// The place in [`METHODS`].
    method: Option<u8>,
    pub status: StatusCode,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct DecisionKey {
    pub listener: ListenerKind,
    /// The phase and code of a denial. `None` means that the request was allowed.
    pub denial: Option<(&'static str, Cow<'static, str>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct DurationKey {
    pub listener: ListenerKind,
    pub is_allowed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct UpstreamKey {
    pub name: Arc<str>,
    /// `None` means that no response came.
    pub status: Option<StatusCode>,
}

impl RequestKey {
    pub fn method(&self) -> &'static str {
        const NAMES: [&str; METHODS.len()] =
            ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"];
        self.method.map_or(OTHER, |method| NAMES[usize::from(method)])
    }
}

impl Table {
    pub fn add(&mut self, request: &FinishedRequest<'_>) {
        let FinishedRequest { listener, duration, status, method, facts, .. } = *request;
        let method = METHODS.iter().position(|known| known == method);
        let method = method.and_then(|method| u8::try_from(method).ok());
        let key = RequestKey { listener, method, status };
        self.requests.entry(key).or_default().add(duration, &HTTP_BOUNDS);
        self.add_decision(request);
        if let Some(decided_in) = facts.decided_in {
            let is_allowed = !request.is_denied_by_pipeline();
            let key = DurationKey { listener, is_allowed };
            self.decided_in.entry(key).or_default().add(decided_in, &DECISION_BOUNDS);
        }
        if let Some(upstream) = &facts.upstream {
            let mut name = upstream.name.clone();
            let key = UpstreamKey { name: name.clone(), status: upstream.status };
            if self.upstreams.len() >= MAX_UPSTREAMS && !self.upstreams.contains_key(&key) {
                name = OTHER.into();
            }
            let key = UpstreamKey { name, status: upstream.status };
            self.upstreams.entry(key).or_default().add(upstream.duration, &HTTP_BOUNDS);
        }
    }

    fn add_decision(&mut self, request: &FinishedRequest<'_>) {
        let listener = request.listener;
        let denial = request.denial.map(|denial| (denial.phase.name(), denial.code.clone()));
        let mut key = DecisionKey { listener, denial };
        if self.decisions.len() >= MAX_CODES && !self.decisions.contains_key(&key) {
            key.denial = key.denial.map(|(phase, _)| (phase, Cow::Borrowed(OTHER)));
        }
        *self.decisions.entry(key).or_default() += 1;
    }

    pub fn count(&mut self, listener: ListenerKind, event: ConnectionEvent) {
        *self.connections.entry((listener, event)).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (key, more) in &other.requests {
            self.requests.entry(key.clone()).or_default().merge(more);
        }
        for (key, more) in &other.decisions {
            *self.decisions.entry(key.clone()).or_default() += more;
        }
        for (key, more) in &other.decided_in {
            self.decided_in.entry(key.clone()).or_default().merge(more);
        }
        for (key, more) in &other.upstreams {
            self.upstreams.entry(key.clone()).or_default().merge(more);
        }
        for (key, more) in &other.connections {
            *self.connections.entry(*key).or_default() += more;
        }
    }
}
