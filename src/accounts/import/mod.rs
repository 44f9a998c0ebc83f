//! TODO.

pub(super) mod keys;
pub(super) mod users;
