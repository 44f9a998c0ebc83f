//! TODO.

pub(super) mod source;
pub(super) mod watch;
