//! Enforces the budget of a call (time, steps, log lines) while the call runs, and catches panics.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use rhai::{Dynamic, EvalAltResult, Position};

use super::memory;
use crate::scripting::limits::CallBudget;

/// The budget of the call that runs on this thread.
#[derive(Clone, Copy)]
struct ActiveBudget {
    operations: u64,
    deadline: Instant,
    /// How many more lines the call may log.
    log_lines: usize,
    keys: [&'static str; 2],
}

thread_local! {
    // The engine passes only a number of steps to its progress callback. So this variable holds the
    // budget of the call that runs on this thread. `run_within` sets and resets this variable.
    static ACTIVE: Cell<Option<ActiveBudget>> = const { Cell::new(None) };
    /// A copy of `ACTIVE.operations` for the fast path of `on_progress`; 0 outside of calls.
    static OPERATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The clock is read once in this many steps.
const STRIDE: u64 = 8;

/// Runs a call within a budget. Calls nest when a test calls `decide()`. The inner call never gets
/// more time than the outer call has left.
pub(in crate::scripting) fn run_within<T>(budget: CallBudget, call: impl FnOnce() -> T) -> T {
    struct RestoreOuter(Option<ActiveBudget>);
    impl Drop for RestoreOuter {
        fn drop(&mut self) {
            set_active(self.0);
        }
    }
    let outer = ACTIVE.get();
    let now = Instant::now();
    // If the configured time is too long for the clock, the deadline is in one day.
    let deadline = now.checked_add(budget.time).unwrap_or(now + Duration::from_secs(86_400));
    let deadline = outer.map_or(deadline, |outer| outer.deadline.min(deadline));
    let _restore = RestoreOuter(outer);
    let CallBudget { operations, log_lines, keys, .. } = budget;
    set_active(Some(ActiveBudget { operations, deadline, log_lines, keys }));
    memory::with_ledger(call)
}

fn set_active(budget: Option<ActiveBudget>) {
    OPERATIONS.set(budget.map_or(0, |budget| budget.operations));
    ACTIVE.set(budget);
}

/// Takes one line from the log budget of the call on this thread. Returns false if no line is left,
/// so that a script that logs in a loop cannot fill the disk.
pub(in crate::scripting) fn take_log_line() -> bool {
    let Some(mut budget) = ACTIVE.get() else { return true };
    let has_line = budget.log_lines > 0;
    budget.log_lines = budget.log_lines.saturating_sub(1);
    ACTIVE.set(Some(budget));
    has_line
}

/// The engine calls this function at each step of a call. `Some` ends the call with this reason.
pub(in crate::scripting) fn on_progress(operations: u64) -> Option<Dynamic> {
    // Fast path: nearly all steps return here.
    if operations <= OPERATIONS.get() && !operations.is_multiple_of(STRIDE) {
        return None;
    }
    let budget = ACTIVE.get()?;
    if operations > budget.operations {
        return Some(format!("takes too many steps ({})", budget.keys[0]).into());
    }
    if operations.is_multiple_of(STRIDE) && Instant::now() >= budget.deadline {
        return Some(too_long(&budget).into());
    }
    None
}

fn too_long(budget: &ActiveBudget) -> String {
    format!("takes too long ({})", budget.keys[1])
}

/// Looks at the clock, for host functions that take long.
///
/// # Errors
/// The call's time is over.
pub(in crate::scripting) fn check_time() -> Result<(), Box<EvalAltResult>> {
    match ACTIVE.get() {
        Some(budget) if Instant::now() >= budget.deadline => {
            Err(EvalAltResult::ErrorTerminated(too_long(&budget).into(), Position::NONE).into())
        }
        _ => Ok(()),
    }
}

/// A host function panicked. The panic hook has printed the panic message.
pub(in crate::scripting) struct Panicked;

/// Runs a closure that may panic. After a panic the values that the closure worked on are dropped,
/// so that no later call sees half-changed values.
pub(in crate::scripting) fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked)
}
