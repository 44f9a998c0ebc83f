//! Logs for the operator.

mod logs;

pub use logs::{LogFormat, start_logs};
