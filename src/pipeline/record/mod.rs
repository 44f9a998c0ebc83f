//! The record of one request: what the pipeline decided, for whom, and how long it took. Metrics
//! and the access log are made from it.
//!
//! A record contains no credential, no query, no body and no digest.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, StatusCode};

use super::{Denial, Phase};
use crate::limits::Subject;

/// How much of each request is recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Observation {
    /// Nothing. Requests then cost nothing more.
    #[default]
    Off,
    /// Outcomes and durations, without a text of the request or of its user.
    Counts,
    /// Everything that a [`RequestRecord`] has.
    Full,
}

/// Gets the record of each request, when the head of its response is ready.
pub trait RequestObserver: Send + Sync {
    /// How much the observer needs.
    fn observation(&self) -> Observation;

    /// Called once for each request.
    fn finished(&self, request: &FinishedRequest<'_>);

    /// Called for each event of a connection.
    fn connection(&self, listener: ListenerKind, event: ConnectionEvent);
}

/// The listener that accepted a request or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenerKind {
    /// The public listener.
    Public,
    /// The verify listener.
    Verify,
    /// The verify listener for gRPC.
    Grpc,
    /// The admin listener.
    Admin,
    /// The socket of the command line.
    CommandLine,
}

impl ListenerKind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Public, Self::Verify, Self::Grpc, Self::Admin, Self::CommandLine];

    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Verify => "verify",
            Self::Grpc => "grpc",
            Self::Admin => "admin",
            Self::CommandLine => "command_line",
        }
    }
}

/// An event of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionEvent {
    /// The listener accepted it.
    Opened,
    /// It ended.
    Closed,
    /// It was closed at once, because its address has too many connections.
    PeerLimit,
    /// Its TLS handshake, or its PROXY header, failed or came too late.
    FailedHandshake,
    /// It was closed because of a timeout.
    TimedOut,
    /// Its client sent something that is not HTTP.
    Malformed,
}

/// The record of a request that is processed.
pub struct RequestRecord {
    observation: Observation,
    /// `None` means that nothing is recorded.
    started: Option<Instant>,
    id: OnceLock<HeaderValue>,
    trace_id: OnceLock<String>,
    head: OnceLock<RecordedHead>,
    denial: OnceLock<RecordedDenial>,
    facts: OnceLock<RequestFacts>,
}

/// The request that was decided about.
struct RecordedHead {
    method: Method,
    path: String,
    host: Option<String>,
    client: IpAddr,
}

struct RecordedDenial {
    phase: Phase,
    code: Cow<'static, str>,
    status: StatusCode,
}

/// The findings of the pipeline and of the handler.
#[derive(Debug, Clone, Default)]
pub struct RequestFacts {
    /// The time of the decision. `None` means that the pipeline did not run.
    pub decided_in: Option<Duration>,
    /// The resource, or another target. `None` is also the value if texts are not recorded.
    pub target: Option<Target>,
    /// The application. `None` is also the value if texts are not recorded.
    pub application: Option<String>,
    /// The user and the key.
    pub subject: Subject,
    /// The name of the user. `None` is also the value if the request was denied.
    pub user: Option<String>,
    /// The exchange with an upstream. `None` means that there was none.
    pub upstream: Option<UpstreamFacts>,
}

/// The target of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The resource with this id.
    Resource(String),
    /// The admin API.
    Admin,
    /// The program that embeds Keyward.
    Program,
    /// The request has no route.
    Nowhere,
}

/// An exchange with an upstream.
#[derive(Debug, Clone)]
pub struct UpstreamFacts {
    /// The host and port.
    pub name: Arc<str>,
    /// The status of the response. `None` means that no response came.
    pub status: Option<StatusCode>,
    /// The time until the head of the response, or until the failure.
    pub duration: Duration,
}

/// A request whose response begins.
pub struct FinishedRequest<'a> {
    /// The listener.
    pub listener: ListenerKind,
    /// The id of the request (`X-Request-Id`). `None` means that texts are not recorded.
    pub id: Option<&'a HeaderValue>,
    /// The id of the request's trace. `None` means that it has none, or that texts are not
    /// recorded.
    pub trace_id: Option<&'a str>,
    /// The time since the head of the request arrived.
    pub duration: Duration,
    /// The status of the response.
    pub status: StatusCode,
    /// The method. For a question of a proxy, the method of its client's request.
    pub method: &'a Method,
    /// The path, host and client. `None` means that they were not recorded.
    pub head: Option<Head<'a>>,
    /// The denial. `None` means that the request was allowed.
    pub denial: Option<DenialFacts<'a>>,
    /// The findings of the pipeline and of the handler.
    pub facts: &'a RequestFacts,
}

/// The request that was decided about.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The path as the client sent it.
    pub path: &'a str,
    /// The host.
    pub host: Option<&'a str>,
    /// The client's address.
    pub client: IpAddr,
}

/// The reason of a denial.
#[derive(Debug, Clone, Copy)]
pub struct DenialFacts<'a> {
    /// The phase that refused the request.
    pub phase: Phase,
    /// The error code.
    pub code: &'a Cow<'static, str>,
    /// The status that the client gets.
    pub status: StatusCode,
}

impl FinishedRequest<'_> {
    /// Whether one of the five phases denied the request.
    pub fn is_denied_by_pipeline(&self) -> bool {
        use Phase::{Decode, Header, Lookup, Permit, Verify};
        let phase = self.denial.map(|denial| denial.phase);
        matches!(phase, Some(Header | Decode | Lookup | Verify | Permit))
    }
}

impl RequestRecord {
    /// Begins the record of a request.
    pub fn begin(observation: Observation) -> Self {
        Self {
            observation,
            started: (observation > Observation::Off).then(Instant::now),
            id: OnceLock::new(),
            trace_id: OnceLock::new(),
            head: OnceLock::new(),
            denial: OnceLock::new(),
            facts: OnceLock::new(),
        }
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.started.is_some()
    }

    /// Sets the id of the request if texts are recorded, and returns it.
    pub fn identify(&self, id: impl FnOnce() -> HeaderValue) -> Option<&HeaderValue> {
        (self.observation == Observation::Full).then(|| self.id.get_or_init(id))
    }

    /// Sets the id of the request's trace, if texts are recorded and it has one.
    pub fn trace<'t>(&self, id: impl FnOnce() -> Option<&'t str>) {
        if self.observation == Observation::Full
            && let Some(id) = id()
        {
            let _ = self.trace_id.set(id.to_owned());
        }
    }

    /// A record that keeps nothing.
    pub fn off() -> Self {
        Self::begin(Observation::Off)
    }

    /// Records the request that is decided about.
    pub fn describe(&self, method: &Method, path: &str, host: Option<&str>, client: IpAddr) {
        if self.observation == Observation::Off {
            return;
        }
        let (path, host) = match self.observation {
            Observation::Full => (path.to_owned(), host.map(str::to_owned)),
            _ => (String::new(), None),
        };
        let _ = self.head.set(RecordedHead { method: method.clone(), path, host, client });
    }

    /// Records a denial.
    pub fn denied(&self, denial: &Denial) {
        if self.observation == Observation::Off {
            return;
        }
        let (phase, code, status) = (denial.phase, denial.code.clone(), denial.status);
        let _ = self.denial.set(RecordedDenial { phase, code, status });
    }

    /// Records what the pipeline and the handler found out.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server uses it"))]
    pub(crate) fn found(&self, facts: Option<RequestFacts>) {
        if let Some(facts) = facts {
            let _ = self.facts.set(facts);
        }
    }

    /// Reports the finished request. `method` is for a request that was not described.
    pub fn finish(
        &self,
        observer: &dyn RequestObserver,
        listener: ListenerKind,
        method: &Method,
        status: StatusCode,
    ) {
        let Some(started) = self.started else { return };
        let none = RequestFacts::default();
        let head = self.head.get();
        observer.finished(&FinishedRequest {
            listener,
            id: self.id.get(),
            trace_id: self.trace_id.get().map(String::as_str),
            duration: started.elapsed(),
            status,
            method: head.map_or(method, |head| &head.method),
            head: head.map(|head| Head {
                path: &head.path,
                host: head.host.as_deref(),
                client: head.client,
            }),
            denial: self.denial.get().map(|denial| DenialFacts {
                phase: denial.phase,
                code: &denial.code,
                status: denial.status,
            }),
            facts: self.facts.get().unwrap_or(&none),
        });
    }
}
