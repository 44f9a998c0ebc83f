//! Imports keys and users of other systems. A client sends them in batches.

pub(super) mod clear_text;
pub(super) mod keys;
pub(super) mod profile;
mod universal;
pub(super) mod users;
