//! The view of the operator: the log, the metrics and the access log.

pub mod access_log;
mod line;
mod logs;
pub mod metrics;
mod observers;
mod sampling;

pub use line::LogFormat;
pub use logs::start_logs;
pub use observers::Observers;
pub use sampling::{ClientLines, UnloggedLines};
