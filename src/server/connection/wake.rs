//! Something that a task waits for beside what it is busy with. A task that is woken polls all that it waits for, and to poll a timer and a signal takes
//! locks; here they are polled when they are what has woken it.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use pin_project_lite::pin_project;

pin_project! {
    /// A future that is polled when it has something to say.
    pub(in crate::server) struct Aside<F> {
        #[pin]
        future: F,
        bell: Arc<Bell>,
        // The bell, for the future.
        waker: Waker,
        // Whom the bell wakes.
        task: Option<Waker>,
    }
}

struct Bell {
    has_rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }
}

impl<F> Aside<F> {
    pub fn new(future: F) -> Self {
        let bell = Arc::new(Bell { has_rung: AtomicBool::new(false), task: Mutex::new(None) });
        Self { future, waker: bell.clone().into(), bell, task: None }
    }
}

impl<F: Future> Future for Aside<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            if !this.bell.has_rung.load(Ordering::Relaxed) {
                return Poll::Pending;
            }
        } else {
            let task = this.task.insert(cx.waker().clone()).clone();
            *this.bell.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        }
        // What rings from here on is heard at the next poll, and what was said before is seen at this one.
        this.bell.has_rung.swap(false, Ordering::AcqRel);
        this.future.poll(&mut Context::from_waker(this.waker))
    }
}

#[cfg(test)]
mod unit {
    use std::{
        future::poll_fn,
        pin::pin,
        sync::atomic::{AtomicU32, Ordering::Relaxed},
    };

    use tokio::sync::Notify;

    use super::*;

    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn it_is_polled_when_it_has_rung_and_the_task_that_polled_last_is_woken() {
        let (notify, polls) = (Notify::new(), AtomicU32::new(0));
        let mut waiting = pin!(notify.notified());
        let mut aside = pin!(Aside::new(poll_fn(|cx| {
            polls.fetch_add(1, Relaxed);
            waiting.as_mut().poll(cx)
        })));
        let tasks = [0, 1].map(|_| Arc::new(Count(AtomicU32::new(0))));
        let wakers = tasks.clone().map(Waker::from);
        let mut poll = |task: usize| {
            let polled = aside.as_mut().poll(&mut Context::from_waker(&wakers[task]));
            (polled.is_ready(), polls.load(Relaxed))
        };
        let woken = || tasks.each_ref().map(|task| task.0.load(Relaxed));
        assert_eq!([poll(0), poll(0), poll(0)], [(false, 1); 3]);
        // Another task waits now.
        assert_eq!([poll(1), poll(1)], [(false, 2); 2]);
        assert_eq!(woken(), [0, 0]);
        notify.notify_waiters();
        assert_eq!(woken(), [0, 1]);
        assert_eq!(poll(1), (true, 3));
    }
}
