//! The timeout of each HTTP/2 stream: a stream whose client takes no bytes of the response is
//! reset, and the connection lives on.
//!
//! hyper passes the task of each stream to an executor. The executor wraps the task, so that the
//! task can be dropped, which resets the stream and ends the exchange with the upstream.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};

thread_local! {
    /// The last report of the stream whose task this thread polls.
    static REPORT: Cell<Option<Progress>> = const { Cell::new(None) };
}

/// The progress of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Progress {
    /// hyper has taken bytes, which wait until the client opens its flow-control window.
    Offered,
    /// The client can take bytes, but no bytes are ready.
    Waiting,
}

impl Progress {
    /// Reports the progress to the task that is being polled. Does nothing on an HTTP/1 connection.
    pub fn report(self) {
        REPORT.set(Some(self));
    }
}

/// Runs the tasks of HTTP/2 streams.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct StreamExecutor {
    /// The maximum time during which a client may take no bytes.
    pub idle: Duration,
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        tokio::spawn(StreamTask { task: Some(task), idle: self.idle, offered: None, timer: None });
    }
}

pin_project_lite::pin_project! {
    /// The task of a stream.
    struct StreamTask<F> {
        // `None` after the stream was reset.
        #[pin]
        task: Option<F>,
        idle: Duration,
        // The time at which the client was last offered bytes. `None` means that no bytes wait.
        offered: Option<Instant>,
        // Created when bytes first wait for the client, which is rare.
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(task) = this.task.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        REPORT.set(None);
        if task.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match REPORT.take() {
            Some(Progress::Offered) => *this.offered = Some(Instant::now()),
            Some(Progress::Waiting) => *this.offered = None,
            None => {}
        }
        let Some(offered) = *this.offered else { return Poll::Pending };
        let deadline = offered + *this.idle;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        tracing::debug!("a stream was reset: the client does not open its HTTP/2 window");
        this.task.set(None);
        Poll::Ready(())
    }
}
