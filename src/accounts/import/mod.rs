//! Imports keys and users of other systems. A client sends them in batches.

pub(super) mod keys;
pub(super) mod users;
