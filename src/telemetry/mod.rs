//! What the operator is told: logs.

mod logs;

pub use logs::{LogForm, start_logs};
