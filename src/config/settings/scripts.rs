//! What scripts may use, as the configuration says it.

use std::path::PathBuf;

use super::{Check, file};

/// The Rhai scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptSettings {
    /// Their folder, which may be missing.
    pub dir: PathBuf,
    /// The folder of their secrets, which may be missing.
    pub secrets_dir: PathBuf,
    /// The steps that one call of a script may take.
    pub operations: usize,
    /// The milliseconds that one call may take.
    pub call_milliseconds: usize,
    /// The steps that one call may take of a script that says `const BLOCKING = true;`.
    pub blocking_operations: usize,
    /// The milliseconds that such a call may take, on a thread of its own.
    pub blocking_milliseconds: usize,
    /// The calls of blocking scripts that run at the same time.
    pub blocking_calls: usize,
    /// The calls of blocking scripts that may wait for their turn; one more is refused with 503.
    pub blocking_queue: usize,
    /// The seconds that one `test_` function may take when scripts are loaded.
    pub test_seconds: usize,
    /// How deep functions may call functions.
    pub call_levels: usize,
    /// How deep expressions and blocks may be nested.
    pub expression_depth: usize,
    /// The bytes of a text in a script.
    pub string_bytes: usize,
    /// The elements of an array, and the bytes of a blob.
    pub array_items: usize,
    /// The entries of a map.
    pub map_entries: usize,
    /// The variables of a call.
    pub variables: usize,
    /// The functions of a file.
    pub functions: usize,
    /// The bytes of a file.
    pub script_bytes: usize,
    /// The files of the folder.
    pub files: usize,
    /// The lines that one call may write into the log.
    pub log_lines: usize,
    /// The notes that hooks may leave on one request.
    pub notes: usize,
    /// The buckets of `rate_limit` that are remembered; a new one beyond them is over its limit.
    pub rate_buckets: usize,
    /// The ids of `once` that are remembered; a new one beyond them counts as seen.
    pub replay_ids: usize,
    /// How often a script may run out of its budget within strike_seconds before it is switched off.
    pub strikes: usize,
    /// The seconds in which that is counted.
    pub strike_seconds: usize,
    /// The seconds for which a script stays switched off, unless it is loaded again.
    pub cool_down_seconds: usize,
}

impl<R: FnMut(&[&str], String, String)> Check<R> {
    pub(super) fn scripts(&mut self, raw: &file::Scripts) -> ScriptSettings {
        ScriptSettings {
            dir: self.path("scripts.dir", &raw.dir),
            secrets_dir: self.path("scripts.secrets_dir", &raw.secrets_dir),
            operations: self.size("scripts.operations", raw.operations, 1_000..=100_000_000),
            call_milliseconds: self.size(
                "scripts.call_milliseconds",
                raw.call_milliseconds,
                1..=10_000,
            ),
            blocking_operations: self.size(
                "scripts.blocking_operations",
                raw.blocking_operations,
                1_000..=1_000_000_000,
            ),
            blocking_milliseconds: self.size(
                "scripts.blocking_milliseconds",
                raw.blocking_milliseconds,
                1..=60_000,
            ),
            blocking_calls: self.size("scripts.blocking_calls", raw.blocking_calls, 1..=256),
            blocking_queue: self.size("scripts.blocking_queue", raw.blocking_queue, 0..=10_000),
            test_seconds: self.size("scripts.test_seconds", raw.test_seconds, 1..=60),
            call_levels: self.size("scripts.call_levels", raw.call_levels, 4..=64),
            expression_depth: self.size("scripts.expression_depth", raw.expression_depth, 8..=64),
            string_bytes: self.size("scripts.string_bytes", raw.string_bytes, 1_024..=16_777_216),
            array_items: self.size("scripts.array_items", raw.array_items, 16..=1_000_000),
            map_entries: self.size("scripts.map_entries", raw.map_entries, 16..=100_000),
            variables: self.size("scripts.variables", raw.variables, 16..=10_000),
            functions: self.size("scripts.functions", raw.functions, 8..=1_024),
            script_bytes: self.size("scripts.script_bytes", raw.script_bytes, 1_024..=4_194_304),
            files: self.size("scripts.files", raw.files, 1..=10_000),
            log_lines: self.size("scripts.log_lines", raw.log_lines, 0..=10_000),
            notes: self.size("scripts.notes", raw.notes, 0..=1_024),
            rate_buckets: self.size("scripts.rate_buckets", raw.rate_buckets, 16..=16_777_216),
            replay_ids: self.size("scripts.replay_ids", raw.replay_ids, 16..=16_777_216),
            strikes: self.size("scripts.strikes", raw.strikes, 1..=1_000),
            strike_seconds: self.size("scripts.strike_seconds", raw.strike_seconds, 1..=3_600),
            cool_down_seconds: self.size(
                "scripts.cool_down_seconds",
                raw.cool_down_seconds,
                1..=86_400,
            ),
        }
    }
}
