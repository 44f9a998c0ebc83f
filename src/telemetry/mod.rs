//! Logs for the operator.

mod line;
mod logs;
mod sampling;

pub use line::LogFormat;
pub use logs::start_logs;
pub use sampling::{ClientLines, UnloggedLines};
