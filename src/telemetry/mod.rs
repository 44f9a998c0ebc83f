//! Logs for the operator.

mod line;
mod logs;
mod sampling;

pub use logs::{LogFormat, start_logs};
pub use sampling::{ClientLines, UnloggedLines};
