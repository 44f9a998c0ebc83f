//! The `[scripts]` section: folders, and the limits of scripts.

use std::{path::PathBuf, time::Duration};

use super::{Check, file};
use crate::scripting::ScriptLimits;

/// The Rhai scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptSettings {
    /// The folder of the scripts, which may be missing.
    pub dir: PathBuf,
    /// The folder of the scripts' secrets, which may be missing.
    pub secrets_dir: PathBuf,
    /// The limits of scripts.
    pub limits: ScriptLimits,
}

impl<R: FnMut(&[&str], String, String)> Check<R> {
    pub(super) fn scripts(&mut self, raw: &file::ScriptsSection) -> ScriptSettings {
        ScriptSettings {
            dir: self.path("scripts.dir", &raw.dir),
            secrets_dir: self.path("scripts.secrets_dir", &raw.secrets_dir),
            limits: self.script_limits(raw),
        }
    }

    fn script_limits(&mut self, raw: &file::ScriptsSection) -> ScriptLimits {
        let mut size = |key: &str, raw, range| self.size(&format!("scripts.{key}"), raw, range);
        let millis = |number: usize| Duration::from_millis(number as u64);
        let seconds = |number: usize| Duration::from_secs(number as u64);
        ScriptLimits {
            operations: size("operations", raw.operations, 1_000..=100_000_000) as u64,
            time: millis(size("call_milliseconds", raw.call_milliseconds, 1..=10_000)),
            blocking_operations: size(
                "blocking_operations",
                raw.blocking_operations,
                1_000..=1_000_000_000,
            ) as u64,
            blocking_time: millis(size(
                "blocking_milliseconds",
                raw.blocking_milliseconds,
                1..=60_000,
            )),
            blocking_calls: size("blocking_calls", raw.blocking_calls, 1..=256),
            blocking_queue: size("blocking_queue", raw.blocking_queue, 0..=10_000),
            test_time: seconds(size("test_seconds", raw.test_seconds, 1..=60)),
            call_levels: size("call_levels", raw.call_levels, 4..=64),
            expression_depth: size("expression_depth", raw.expression_depth, 8..=64),
            string_bytes: size("string_bytes", raw.string_bytes, 1_024..=16_777_216),
            array_items: size("array_items", raw.array_items, 16..=1_000_000),
            map_entries: size("map_entries", raw.map_entries, 16..=100_000),
            variables: size("variables", raw.variables, 16..=10_000),
            call_bytes: size("call_bytes", raw.call_bytes, 65_536..=1_073_741_824),
            memory_bytes: size("memory_bytes", raw.memory_bytes, 1_048_576..=4_294_967_295),
            functions: size("functions", raw.functions, 8..=1_024),
            script_bytes: size("script_bytes", raw.script_bytes, 1_024..=4_194_304),
            files: size("files", raw.files, 1..=10_000),
            log_lines: size("log_lines", raw.log_lines, 0..=10_000),
            notes: size("notes", raw.notes, 0..=1_024),
            rate_buckets: size("rate_buckets", raw.rate_buckets, 16..=16_777_216),
            replay_ids: size("replay_ids", raw.replay_ids, 16..=16_777_216),
            strikes: size("strikes", raw.strikes, 1..=1_000),
            strike_clients: size("strike_clients", raw.strike_clients, 1..=1_000),
            strike_window: seconds(size("strike_seconds", raw.strike_seconds, 1..=3_600)),
            cool_down: seconds(size("cool_down_seconds", raw.cool_down_seconds, 1..=86_400)),
        }
    }
}
