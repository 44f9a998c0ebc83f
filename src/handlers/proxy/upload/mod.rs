//! Streams a request's body to an upstream, and tracks its progress.

mod limits;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use ::http::HeaderName;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use self::limits::{Exceeded, UploadLimits};
use super::{activity::LastActivity, headers::is_reserved};
use crate::{
    handlers::{
        BodyError, BodyLimits, ClientBody, IdentityFields, RequestBody, identity::is_similar,
        trailers::is_forbidden_trailer,
    },
    pipeline::CredentialRemoval,
};

/// The maximum time that a body with `Expect: 100-continue` waits for the upstream's permission.
/// RFC 9110, section 10.1.1, advises against an indefinite wait.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A request's body. Each part of the body is dropped after it is sent.
#[derive(Default)]
pub(super) struct Upload(UploadBody);

#[derive(Default)]
enum UploadBody {
    #[default]
    Empty,
    Full(Bytes),
    Stream(Box<UploadStream>),
}

struct UploadStream {
    body: ClientBody,
    limits: UploadLimits,
    progress: Arc<UploadProgress>,
    identity_fields: Arc<IdentityFields>,
    /// The header fields of the credential, which must not come as trailers either.
    credential_fields: Vec<HeaderName>,
    /// The timeout of `Expect: 100-continue`; `None` means that the body may be sent.
    continue_timeout: Option<Pin<Box<Sleep>>>,
}

/// Whether the client waits for permission to send its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expectation {
    /// The client sends the body at once.
    None,
    /// The client sent `Expect: 100-continue`.
    Continue,
}

/// The progress of a body, for the tasks that wait for the response.
pub(super) struct UploadProgress {
    limits: BodyLimits,
    activity: LastActivity,
    state: AtomicU8,
    gate: Mutex<BodyGate>,
}

const SENDING: u8 = 0;
const WAITING_FOR_CLIENT: u8 = 1;
const COMPLETE: u8 = 2;
const BROKEN: u8 = 3;
const TOO_LARGE: u8 = 4;
const TOO_SLOW: u8 = 5;

/// The reason why a body did not arrive.
#[derive(Debug, Clone, Copy)]
pub(super) enum UploadFailure {
    /// The body ended early.
    Broken,
    /// The body is larger than its limit.
    TooLarge(BodyLimits),
    /// The body took longer than its limit.
    TooSlow(BodyLimits),
}

/// Holds the body back until the upstream permits it (`100 Continue`).
struct BodyGate {
    state: BodyGateState,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyGateState {
    /// The body may be sent.
    Open,
    /// The body is held back until the upstream permits it or the timeout ends.
    Waiting,
    /// The upstream's response began without a `100 Continue`. The body is held back, and is not
    /// sent if the response ends.
    Responded,
    /// The exchange is over: the body must not be sent.
    Over,
}

impl Upload {
    pub fn new(
        body: RequestBody,
        limits: &BodyLimits,
        expectation: Expectation,
        identity_fields: &Arc<IdentityFields>,
        removal: Option<&CredentialRemoval<'_>>,
    ) -> Self {
        let body = match body {
            RequestBody::Full(bytes) if bytes.is_empty() => return Self::default(),
            RequestBody::Full(bytes) => return Self(UploadBody::Full(bytes)),
            RequestBody::Stream(body) if body.is_end_stream() => return Self::default(),
            RequestBody::Stream(body) => body,
        };
        let (state, continue_timeout) = match expectation {
            Expectation::None => (BodyGateState::Open, None),
            Expectation::Continue => {
                (BodyGateState::Waiting, Some(Box::pin(tokio::time::sleep(CONTINUE_WAIT))))
            }
        };
        let progress = Arc::new(UploadProgress {
            limits: *limits,
            activity: LastActivity::now(),
            state: AtomicU8::new(SENDING),
            gate: Mutex::new(BodyGate { state, waker: None }),
        });
        Self(UploadBody::Stream(Box::new(UploadStream {
            body,
            limits: UploadLimits::new(limits),
            progress,
            identity_fields: identity_fields.clone(),
            credential_fields: removal.map(CredentialRemoval::header_names).unwrap_or_default(),
            continue_timeout,
        })))
    }

    pub fn is_empty(&self) -> bool {
        matches!(self.0, UploadBody::Empty)
    }

    /// The progress of a streamed body; `None` means that the body is in memory.
    pub fn progress(&self) -> Option<Arc<UploadProgress>> {
        match &self.0 {
            UploadBody::Stream(stream) => Some(stream.progress.clone()),
            UploadBody::Empty | UploadBody::Full(_) => None,
        }
    }
}

impl UploadProgress {
    /// The time of the last progress.
    pub fn last(&self) -> Instant {
        self.activity.last()
    }

    /// Whether the upload waits for data from the client.
    pub fn waits_for_client(&self) -> bool {
        self.state.load(Relaxed) == WAITING_FOR_CLIENT
    }

    /// Whether the whole body was sent.
    pub fn is_complete(&self) -> bool {
        self.state.load(Relaxed) == COMPLETE
    }

    /// The reason why the client's body did not arrive. `None` means that it may still arrive.
    pub fn failure(&self) -> Option<UploadFailure> {
        match self.state.load(Relaxed) {
            BROKEN => Some(UploadFailure::Broken),
            TOO_LARGE => Some(UploadFailure::TooLarge(self.limits)),
            TOO_SLOW => Some(UploadFailure::TooSlow(self.limits)),
            _ => None,
        }
    }

    /// Called when the upstream sends `100 Continue`.
    pub fn upstream_continues(&self) {
        self.change_gate(BodyGateState::Waiting, BodyGateState::Open);
    }

    /// Called when the upstream's response begins.
    pub fn response_started(&self) {
        self.change_gate(BodyGateState::Waiting, BodyGateState::Responded);
    }

    /// Called when the upstream's response has ended. If the body is held back at this moment, it
    /// is not sent.
    pub fn response_ended(&self) {
        self.change_gate(BodyGateState::Responded, BodyGateState::Over);
    }

    fn change_gate(&self, from: BodyGateState, to: BodyGateState) {
        let mut gate = self.gate.lock();
        if gate.state == from {
            gate.state = to;
            if let Some(waker) = gate.waker.take() {
                waker.wake();
            }
        }
    }

    fn set_state(&self, state: u8) {
        if state != WAITING_FOR_CLIENT {
            self.activity.touch();
        }
        self.state.store(state, Relaxed);
    }
}

impl UploadStream {
    /// Ready when the body may be sent.
    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let Some(timeout) = &mut self.continue_timeout else {
            return Poll::Ready(Ok(()));
        };
        let mut gate = self.progress.gate.lock();
        match gate.state {
            BodyGateState::Open => {}
            BodyGateState::Over => {
                return Poll::Ready(Err(BodyError::new(
                    "the upstream responded without accepting the body",
                )));
            }
            state => {
                gate.waker = Some(cx.waker().clone());
                let has_timed_out =
                    state == BodyGateState::Waiting && timeout.as_mut().poll(cx).is_ready();
                if !has_timed_out {
                    return Poll::Pending;
                }
                gate.state = BodyGateState::Open;
            }
        }
        drop(gate);
        self.continue_timeout = None;
        Poll::Ready(Ok(()))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.poll_gate(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(Ok(())) => {}
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(exceeded) = self.limits.check(&polled, cx) {
            self.progress.set_state(match exceeded {
                Exceeded::Bytes => TOO_LARGE,
                Exceeded::Time => TOO_SLOW,
            });
            return Poll::Ready(Some(Err(BodyError::new("the body exceeds a limit"))));
        }
        self.progress.set_state(match &polled {
            Poll::Pending => WAITING_FOR_CLIENT,
            Poll::Ready(None) => COMPLETE,
            Poll::Ready(Some(Err(_))) => BROKEN,
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => COMPLETE,
            Poll::Ready(Some(Ok(_))) => SENDING,
        });
        polled.map(|frame| {
            frame.map(|frame| {
                frame.map(|frame| self.without_reserved(frame)).map_err(BodyError::new)
            })
        })
    }

    /// Removes reserved and forbidden trailers, because an upstream may merge trailers into the
    /// header fields.
    fn without_reserved(&self, mut frame: Frame<Bytes>) -> Frame<Bytes> {
        if let Some(trailers) = frame.trailers_mut() {
            let is_credential = |name: &HeaderName| {
                let mut known = self.credential_fields.iter();
                known.any(|known| is_similar(name.as_str(), known.as_str()))
            };
            let reserved = trailers.keys().filter(|name| {
                is_reserved(name, &self.identity_fields)
                    || is_forbidden_trailer(name.as_ref())
                    || is_credential(name)
            });
            for name in reserved.cloned().collect::<Vec<_>>() {
                trailers.remove(name);
            }
        }
        frame
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            UploadBody::Empty => Poll::Ready(None),
            UploadBody::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            UploadBody::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            UploadBody::Stream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            UploadBody::Empty => true,
            UploadBody::Full(bytes) => bytes.is_empty(),
            UploadBody::Stream(stream) => stream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            // hyper would send an exact size of 0 as a length. `OutgoingRequest` decides about it.
            UploadBody::Empty => SizeHint::default(),
            UploadBody::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            UploadBody::Stream(stream) => stream.body.size_hint(),
        }
    }
}
