//! Imports keys and users of other systems. A client sends them in batches.

#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server uses it"))]
pub(super) mod clear_text;
pub(super) mod keys;
pub(super) mod profile;
mod universal;
pub(super) mod users;
