//! The state of one connection: its bytes, its timeouts, and the responses to requests that are not
//! valid HTTP.

pub(super) mod framing;
pub(super) mod io;
pub(super) mod malformed;
pub(super) mod timeouts;
