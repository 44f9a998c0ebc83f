//! Every limit of scripting, in one place: what a script may use up, and how much of it there may be.

use std::time::Duration;

use rhai::Engine;

/// What scripts may use. Each default suits a script of a page or two; raise one where a script says that it needs more.
///
/// The limits are the same in debug and in release builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The steps of one call. A comparison, an assignment and a call are a step each.
    pub operations: u64,
    /// How long one call may take. A script that is descheduled is on the clock too, so leave some room.
    pub time: Duration,
    /// The steps of one call of a script that says `const BLOCKING = true;`.
    pub blocking_operations: u64,
    /// How long one call of a blocking script may take, the wait for its turn not included.
    pub blocking_time: Duration,
    /// How many blocking calls run at a time.
    pub blocking_calls: usize,
    /// How many blocking calls may wait for their turn. One more is refused at once.
    pub blocking_queue: usize,
    /// How long one `test_…` function may take at load.
    pub test_time: Duration,
    /// How deep functions may call functions.
    pub call_levels: usize,
    /// How deep expressions and blocks may be nested.
    pub expression_depth: usize,
    /// The bytes of a text, and of all texts in an array or a map together.
    pub string_bytes: usize,
    /// The elements of an array or the bytes of a blob, those of arrays inside it included.
    pub array_items: usize,
    /// The entries of a map, those of maps inside it included. Counted when a map is made, copied or given to a function; between two of
    /// these, entries that are set one by one are bounded by the steps.
    pub map_entries: usize,
    /// The variables that may be there at a time.
    pub variables: usize,
    /// The functions of a file.
    pub functions: usize,
    /// The bytes of a file.
    pub script_bytes: usize,
    /// The files of the folder.
    pub files: usize,
    /// The lines that one call may write into the log.
    pub log_lines: usize,
    /// The notes (`req.set`) of one request.
    pub notes: usize,
    /// The buckets of `rate_limit` that are remembered at a time. When all are in use, a new one is over its limit.
    pub rate_buckets: usize,
    /// The ids of `once` that are remembered at a time. When all are in use, a new one counts as seen.
    pub replay_ids: usize,
    /// How often a script may run out of its budget within `strike_window` before it is switched off.
    pub strikes: usize,
    /// The time in which strikes are counted.
    pub strike_window: Duration,
    /// How long a script stays switched off, unless a reload brings a better one.
    pub cool_down: Duration,
}

impl Default for Limits {
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

/// What one call may use up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub operations: u64,
    pub time: Duration,
    pub log_lines: usize,
}

impl Limits {
    /// The budget of a call on an async thread.
    pub(super) fn inline(&self) -> Budget {
        Budget { operations: self.operations, time: self.time, log_lines: self.log_lines }
    }

    /// The budget of a call on a thread of its own.
    pub(super) fn blocking(&self) -> Budget {
        Budget {
            operations: self.blocking_operations,
            time: self.blocking_time,
            log_lines: self.log_lines,
        }
    }

    /// The budget of a `test_…` function. It may call many a function that has a budget of its own.
    pub(super) fn testing(&self) -> Budget {
        let operations = self.operations.max(self.blocking_operations);
        Budget { operations, time: self.test_time, log_lines: self.log_lines }
    }

    /// Sets the engine's own limits. Budgets are smaller and set call by call; these hold where there is none.
    pub(super) fn set(&self, engine: &mut Engine) {
        // Zero would mean "no limit" in all of these but the call levels.
        engine
            .set_max_operations(self.testing().operations.max(1))
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
