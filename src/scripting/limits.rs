//! Every limit of scripting in one place: the budgets of calls, and the sizes of scripts and their
//! data.

use std::time::Duration;

use rhai::Engine;

/// The limits of scripts. The defaults suit scripts of one or two pages. Raise a limit when an
/// error says that a script exceeds this limit.
///
/// The limits are the same in debug and in release builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptLimits {
    /// The maximum number of steps in one call. A comparison, an assignment and a call are one step
    /// each.
    pub operations: u64,
    /// The maximum time of one call. Time in which the system suspends the thread counts, too, so
    /// leave some room.
    pub time: Duration,
    /// The maximum number of steps in one call of a script with `const BLOCKING = true;`.
    pub blocking_operations: u64,
    /// The maximum time of one call of a blocking script, without the wait in the queue.
    pub blocking_time: Duration,
    /// The maximum number of blocking calls that run at the same time.
    pub blocking_calls: usize,
    /// The maximum number of blocking calls that wait. Further calls are rejected at once.
    pub blocking_queue: usize,
    /// The maximum time of one `test_…` function at load.
    pub test_time: Duration,
    /// The maximum depth of nested function calls.
    pub call_levels: usize,
    /// The maximum depth of nested expressions and blocks.
    pub expression_depth: usize,
    /// The maximum size of a text, and of all texts in an array or a map together, in bytes.
    pub string_bytes: usize,
    /// The maximum number of elements of an array, or of bytes of a blob. Elements of nested arrays
    /// count, too.
    pub array_items: usize,
    /// The maximum number of entries of a map, including the entries of nested maps. Entries are
    /// counted when a map is created, copied or passed to a function. In between, a script can set
    /// more entries one by one; the limit of steps bounds their number.
    pub map_entries: usize,
    /// The maximum number of variables that exist at the same time.
    pub variables: usize,
    /// The maximum memory of the variables of one call, in bytes: their texts, blobs, array
    /// elements, and map entries with their keys. A text counts in each variable that contains it.
    /// The memory is measured every few accesses of variables, so a call can exceed the limit for a
    /// moment, by a few values.
    pub call_bytes: usize,
    /// The maximum memory of the variables of all calls that run at the same time, in bytes,
    /// without calls that use less than 64 KiB.
    pub memory_bytes: usize,
    /// The maximum number of functions in a file.
    pub functions: usize,
    /// The maximum size of a file, in bytes.
    pub script_bytes: usize,
    /// The maximum number of files in the folder.
    pub files: usize,
    /// The maximum number of lines that one call may log.
    pub log_lines: usize,
    /// The maximum number of notes (`req.set`) of one request.
    pub notes: usize,
    /// The maximum number of buckets of `rate_limit` in memory. A script may use a quarter, and a
    /// client half of this quarter. Beyond this limit, a new bucket is over its limit.
    pub rate_buckets: usize,
    /// The maximum number of ids of `once` in memory. A script may use a quarter, and a client half
    /// of this quarter. Beyond this limit, a new id counts as seen.
    pub replay_ids: usize,
    /// The number of calls within `strike_window` that exceed the budget of steps or time after
    /// which their client is shut out of the script.
    pub strikes: usize,
    /// How many clients must cause that many strikes to switch the script off for everybody.
    pub strike_clients: usize,
    /// The period in which exceeded budgets are counted.
    pub strike_window: Duration,
    /// How long a client is shut out, and how long a script stays switched off, unless a reload
    /// replaces the script earlier.
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
            call_bytes: 16 * 1024 * 1024,
            memory_bytes: 256 * 1024 * 1024,
            functions: 128,
            script_bytes: 256 * 1024,
            files: 256,
            log_lines: 32,
            notes: 32,
            rate_buckets: 262_144,
            replay_ids: 1_048_576,
            strikes: 5,
            strike_clients: 5,
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
    /// The keys of the configuration for steps and time.
    pub keys: [&'static str; 2],
}

impl ScriptLimits {
    /// The budget of a call on an async thread.
    pub(super) fn inline(&self) -> CallBudget {
        CallBudget {
            operations: self.operations,
            time: self.time,
            log_lines: self.log_lines,
            keys: ["scripts.operations", "scripts.call_milliseconds"],
        }
    }

    /// The budget of a call on a separate thread, which may block.
    pub(super) fn blocking(&self) -> CallBudget {
        CallBudget {
            operations: self.blocking_operations,
            time: self.blocking_time,
            log_lines: self.log_lines,
            keys: ["scripts.blocking_operations", "scripts.blocking_milliseconds"],
        }
    }

    /// The budget of a `test_…` function. Each call that `decide()` makes has a separate budget.
    pub(super) fn for_test(&self) -> CallBudget {
        let operations = self.operations.max(self.blocking_operations);
        CallBudget {
            operations,
            time: self.test_time,
            log_lines: self.log_lines,
            keys: ["scripts.blocking_operations", "scripts.test_seconds"],
        }
    }

    /// Sets the limits that the engine enforces. These limits apply even outside of calls. The
    /// budget of a call is smaller.
    pub(super) fn apply_to(&self, engine: &mut Engine) {
        // The engine treats 0 as "no limit", except for the call levels.
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
