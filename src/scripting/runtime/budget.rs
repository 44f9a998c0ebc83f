//! What a call may use up, watched while it runs.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use rhai::Dynamic;

use crate::scripting::limits::Budget;

#[derive(Clone, Copy)]
struct Watch {
    operations: u64,
    until: Instant,
    /// The lines that may still be logged.
    lines: usize,
}

thread_local! {
    // The engine's progress callback is told a number of steps and nothing else, so the call that runs on this thread is kept
    // here. Set and reset by `within` alone.
    static WATCH: Cell<Option<Watch>> = const { Cell::new(None) };
    /// The same operations alone; none outside of calls.
    static OPERATIONS: Cell<u64> = const { Cell::new(0) };
}

/// How many steps there are between two looks at the clock.
const STRIDE: u64 = 32;

/// Runs a call within a budget. Calls can be nested, when a test runs others: the inner one has no more time than the outer.
pub(in crate::scripting) fn within<T>(budget: Budget, call: impl FnOnce() -> T) -> T {
    struct Restore(Option<Watch>);
    impl Drop for Restore {
        fn drop(&mut self) {
            set(self.0);
        }
    }
    let outer = WATCH.get();
    let now = Instant::now();
    // A time that no clock can hold is as good as none.
    let until = now.checked_add(budget.time).unwrap_or(now + Duration::from_secs(86_400));
    let until = outer.map_or(until, |outer| outer.until.min(until));
    let _restore = Restore(outer);
    let lines = budget.log_lines;
    set(Some(Watch { operations: budget.operations, until, lines }));
    call()
}

fn set(watch: Option<Watch>) {
    OPERATIONS.set(watch.map_or(0, |watch| watch.operations));
    WATCH.set(watch);
}

/// Whether the call that runs on this thread may write a line into the log. A loop that logs would fill a disk.
pub(in crate::scripting) fn may_log() -> bool {
    let Some(mut watch) = WATCH.get() else { return true };
    let may = watch.lines > 0;
    watch.lines = watch.lines.saturating_sub(1);
    WATCH.set(Some(watch));
    may
}

/// Called by the engine with each step. A value ends the call.
pub(in crate::scripting) fn progress(operations: u64) -> Option<Dynamic> {
    // Nearly all steps are over here.
    if operations <= OPERATIONS.get() && !operations.is_multiple_of(STRIDE) {
        return None;
    }
    let watch = WATCH.get()?;
    if operations > watch.operations {
        return Some("takes too many steps".into());
    }
    if operations.is_multiple_of(STRIDE) && Instant::now() >= watch.until {
        return Some("takes too long".into());
    }
    None
}
