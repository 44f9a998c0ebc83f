//! Logs for the operator.

mod logs;

pub use logs::{LogForm, start_logs};
