//! Imports keys and users of other systems, in batches.

pub(super) mod keys;
pub(super) mod users;
