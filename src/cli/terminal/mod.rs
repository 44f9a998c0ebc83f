//! Input and output of the command line: prompts, tables, errors and exit codes.

pub(super) mod exit;
pub(super) mod progress;
pub(super) mod prompt;
pub(super) mod screen;
pub(super) mod table;
pub(super) mod welcome;
