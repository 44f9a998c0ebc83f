//! A request's body on its way to an upstream, and how far it is.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::handlers::{Body, BrokenOff, IdentityFields};

/// How long a client is let wait that asked whether it may send its body (RFC 9110, section 10.1.1: not for ever).
const ASKING: Duration = Duration::from_secs(1);

/// A request's body. It is not kept: what was sent is gone.
#[derive(Default)]
pub(super) struct Upload(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Whole(Bytes),
    Flowing(Box<Flowing>),
}

struct Flowing {
    body: Incoming,
    progress: Arc<Progress>,
    fields: Arc<IdentityFields>,
    /// Runs while the client waits to be told to go on.
    patience: Option<Pin<Box<Sleep>>>,
}

/// Whether a client waits to be told that it may send its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expectation {
    /// It sends.
    None,
    /// It asks first: `Expect: 100-continue`.
    Continue,
}

/// How far a body is, for those who wait for what follows.
pub(super) struct Progress {
    began: Instant,
    /// When it last moved: milliseconds since `began`.
    moved: AtomicU64,
    stage: AtomicU8,
    gate: Mutex<Gate>,
}

const GOING: u8 = 0;
const WAITING: u8 = 1;
const DONE: u8 = 2;
const BROKEN: u8 = 3;

/// What holds a body back until the upstream has said that it wants it.
struct Gate {
    state: GateState,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GateState {
    Open,
    /// Until the upstream says so, or patience ends.
    Asking,
    /// The upstream has answered without asking for the body: until its answer is through.
    Answered,
    /// The exchange is over.
    Over,
}

impl Upload {
    pub fn of(body: Body, expectation: Expectation, fields: &Arc<IdentityFields>) -> Self {
        let body = match body {
            Body::Full(bytes) if bytes.is_empty() => return Self::default(),
            Body::Full(bytes) => return Self(Kind::Whole(bytes)),
            Body::Stream(body) if body.is_end_stream() => return Self::default(),
            Body::Stream(body) => body,
        };
        let state = match expectation {
            Expectation::None => GateState::Open,
            Expectation::Continue => GateState::Asking,
        };
        let progress = Arc::new(Progress {
            began: Instant::now(),
            moved: AtomicU64::new(0),
            stage: AtomicU8::new(GOING),
            gate: Mutex::new(Gate { state, waker: None }),
        });
        let patience = (state == GateState::Asking).then(|| Box::pin(tokio::time::sleep(ASKING)));
        Self(Kind::Flowing(Box::new(Flowing { body, progress, fields: fields.clone(), patience })))
    }

    pub fn is_empty(&self) -> bool {
        matches!(self.0, Kind::Empty)
    }

    /// How far it is; none: it goes in one piece.
    pub fn progress(&self) -> Option<Arc<Progress>> {
        match &self.0 {
            Kind::Flowing(flowing) => Some(flowing.progress.clone()),
            Kind::Empty | Kind::Whole(_) => None,
        }
    }
}

impl Progress {
    /// When it last moved.
    pub fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.moved.load(Relaxed))
    }

    /// Whether the client is to blame for the wait.
    pub fn waits_for_client(&self) -> bool {
        self.stage.load(Relaxed) == WAITING
    }

    /// Whether all of it was sent.
    pub fn is_done(&self) -> bool {
        self.stage.load(Relaxed) == DONE
    }

    /// Whether the client's body broke off.
    pub fn has_broken(&self) -> bool {
        self.stage.load(Relaxed) == BROKEN
    }

    /// The upstream wants the body.
    pub fn is_wanted(&self) {
        self.turn(GateState::Open, |state| state == GateState::Asking);
    }

    /// The upstream's answer has begun.
    pub fn is_answered(&self) {
        self.turn(GateState::Answered, |state| state == GateState::Asking);
    }

    /// The upstream's answer is through: whoever is still held back will not be let in any more.
    pub fn is_over(&self) {
        self.turn(GateState::Over, |state| state == GateState::Answered);
    }

    fn turn(&self, to: GateState, from: impl FnOnce(GateState) -> bool) {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if from(gate.state) {
            gate.state = to;
            if let Some(waker) = gate.waker.take() {
                waker.wake();
            }
        }
    }

    fn enter(&self, stage: u8) {
        if stage != WAITING {
            let millis = self.began.elapsed().as_millis();
            self.moved.store(u64::try_from(millis).unwrap_or(u64::MAX / 4), Relaxed);
        }
        self.stage.store(stage, Relaxed);
    }
}

impl Flowing {
    /// Whether the body may go on.
    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BrokenOff>> {
        if self.patience.is_none() {
            return Poll::Ready(Ok(()));
        }
        let mut gate = self.progress.gate.lock().unwrap_or_else(PoisonError::into_inner);
        match gate.state {
            GateState::Open => {}
            GateState::Over => return Poll::Ready(Err(BrokenOff::new("it was not wanted"))),
            state => {
                gate.waker = Some(cx.waker().clone());
                let is_over = self.patience.as_mut().is_none_or(|sleep| {
                    state == GateState::Asking && sleep.as_mut().poll(cx).is_ready()
                });
                if !is_over {
                    return Poll::Pending;
                }
                gate.state = GateState::Open;
            }
        }
        drop(gate);
        self.patience = None;
        Poll::Ready(Ok(()))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.poll_gate(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(over)) => return Poll::Ready(Some(Err(over))),
            Poll::Ready(Ok(())) => {}
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.progress.enter(match &polled {
            Poll::Pending => WAITING,
            Poll::Ready(None) => DONE,
            Poll::Ready(Some(Err(_))) => BROKEN,
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => DONE,
            Poll::Ready(Some(Ok(_))) => GOING,
        });
        polled.map(|frame| {
            frame.map(|frame| frame.map(|frame| self.clean(frame)).map_err(BrokenOff::new))
        })
    }

    /// Trailers can end among the header fields of a program behind us: what must not come in there must not come in here.
    fn clean(&self, mut frame: Frame<Bytes>) -> Frame<Bytes> {
        if let Some(trailers) = frame.trailers_mut() {
            let bad: Vec<_> = trailers
                .keys()
                .filter(|name| super::outgoing::is_ours(name, &self.fields))
                .cloned()
                .collect();
            for name in bad {
                trailers.remove(name);
            }
        }
        frame
    }
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut self.get_mut().0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Flowing(flowing) => flowing.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Flowing(flowing) => flowing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Flowing(flowing) => flowing.body.size_hint(),
        }
    }
}
