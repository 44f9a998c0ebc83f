//! The limits of a streamed request body: a body that exceeds them is cut, and its request is
//! aborted.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::handlers::BodyLimits;

/// The limit that a body has exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exceeded {
    Bytes,
    Time,
}

/// The progress of a body towards its limits.
pub(super) struct UploadLimits {
    /// The number of bytes that may still come.
    left: usize,
    /// `None` means that the body has no time limit.
    deadline: Option<Instant>,
    /// Created when the client first pauses.
    timer: Option<Pin<Box<Sleep>>>,
}

impl UploadLimits {
    pub fn new(limits: &BodyLimits) -> Self {
        let deadline = Instant::now().checked_add(limits.read);
        Self { left: limits.bytes, deadline, timer: None }
    }

    /// Checks the result of a poll of the body. `None` means that the body is within its limits.
    pub fn check<E>(
        &mut self,
        polled: &Poll<Option<Result<Frame<Bytes>, E>>>,
        cx: &mut Context<'_>,
    ) -> Option<Exceeded> {
        let Poll::Ready(frame) = polled else { return self.check_time(cx) };
        let Some(Ok(frame)) = frame else { return None };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => return Some(Exceeded::Bytes),
        }
        let is_late = self.deadline.is_some_and(|deadline| deadline < Instant::now());
        is_late.then_some(Exceeded::Time)
    }

    /// Checks the time while the client pauses.
    fn check_time(&mut self, cx: &mut Context<'_>) -> Option<Exceeded> {
        let deadline = self.deadline?;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().poll(cx).is_ready().then_some(Exceeded::Time)
    }
}
