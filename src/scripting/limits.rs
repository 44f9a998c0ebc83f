//! Every limit of scripting in one place: the budgets of calls, and the sizes of scripts and their
//! data.

use std::time::Duration;

use rhai::Engine;

/// The limits of scripts. The defaults suit scripts of a page or two; raise one when an error says
/// that a script exceeds it.
///
/// The limits are the same in debug and in release builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptLimits {
    /// The steps of one call. A comparison, an assignment and a call are one step each.
    pub operations: u64,
    /// How long one call may take. Time in which the thread is descheduled counts too, so leave
    /// some room.
    pub time: Duration,
    /// The steps of one call of a script with `const BLOCKING = true;`.
    pub blocking_operations: u64,
    /// How long one call of a blocking script may take, without its wait in the queue.
    pub blocking_time: Duration,
    /// How many blocking calls run at a time.
    pub blocking_calls: usize,
    /// How many blocking calls may wait. One more is rejected at once.
    pub blocking_queue: usize,
    /// How long one `test_…` function may take at load.
    pub test_time: Duration,
    /// How deep functions may call functions.
    pub call_levels: usize,
    /// How deep expressions and blocks may be nested.
    pub expression_depth: usize,
    /// The bytes of a text, and of all texts in an array or a map together.
    pub string_bytes: usize,
    /// The elements of an array, or the bytes of a blob, including those of nested arrays.
    pub array_items: usize,
    /// The entries of a map, including those of nested maps. They are counted when a map is
    /// created, copied or passed to a function; entries that are set one by one between two of
    /// these are bounded by the steps.
    pub map_entries: usize,
    /// The variables that may exist at a time.
    pub variables: usize,
    /// The functions of a file.
    pub functions: usize,
    /// The bytes of a file.
    pub script_bytes: usize,
    /// The files of the folder.
    pub files: usize,
    /// The lines that one call may log.
    pub log_lines: usize,
    /// The notes (`req.set`) of one request.
    pub notes: usize,
    /// The buckets of `rate_limit` that are remembered at a time. While all are in use, a new
    /// bucket is over its limit.
    pub rate_buckets: usize,
    /// The ids of `once` that are remembered at a time. While all are in use, a new id counts as
    /// seen.
    pub replay_ids: usize,
    /// How often a script may exceed its budget within `strike_window` before it is switched off.
    pub strikes: usize,
    /// The time in which strikes are counted.
    pub strike_window: Duration,
    /// How long a script stays switched off, unless a reload replaces it earlier.
    pub cool_down: Duration,
}

impl Default for ScriptLimits {
    fn default() -> Self {
        Self {
            operations: 100_000,
            time: Duration::from_millis(50),
            blocking_operations: 1_000_000,
            blocking_time: Duration::from_secs(2),
            blocking_calls: 8,
            blocking_queue: 64,
            test_time: Duration::from_secs(5),
            call_levels: 24,
            expression_depth: 32,
            string_bytes: 256 * 1024,
            array_items: 1024,
            map_entries: 512,
            variables: 256,
            functions: 128,
            script_bytes: 256 * 1024,
            files: 256,
            log_lines: 32,
            notes: 32,
            rate_buckets: 65_536,
            replay_ids: 262_144,
            strikes: 5,
            strike_window: Duration::from_secs(60),
            cool_down: Duration::from_secs(60),
        }
    }
}

/// The budget of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallBudget {
    pub operations: u64,
    pub time: Duration,
    pub log_lines: usize,
}

impl ScriptLimits {
    /// The budget of a call on an async thread.
    pub(super) fn inline(&self) -> CallBudget {
        CallBudget { operations: self.operations, time: self.time, log_lines: self.log_lines }
    }

    /// The budget of a call on a thread of its own.
    pub(super) fn blocking(&self) -> CallBudget {
        CallBudget {
            operations: self.blocking_operations,
            time: self.blocking_time,
            log_lines: self.log_lines,
        }
    }

    /// The budget of a `test_…` function. The functions that it calls have budgets of their own.
    pub(super) fn for_test(&self) -> CallBudget {
        let operations = self.operations.max(self.blocking_operations);
        CallBudget { operations, time: self.test_time, log_lines: self.log_lines }
    }

    /// Sets the engine's own limits. They apply also outside of calls; the budget of a call is
    /// smaller.
    pub(super) fn apply_to(&self, engine: &mut Engine) {
        // 0 would mean "no limit" for all of these except the call levels.
        engine
            .set_max_operations(self.for_test().operations.max(1))
            .set_max_call_levels(self.call_levels.max(1))
            .set_max_expr_depths(self.expression_depth.max(1), self.expression_depth.max(1))
            .set_max_string_size(self.string_bytes.max(1))
            .set_max_array_size(self.array_items.max(1))
            .set_max_map_size(self.map_entries.max(1))
            .set_max_variables(self.variables)
            .set_max_functions(self.functions)
            .set_max_modules(0);
    }
}
