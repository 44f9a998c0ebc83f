//! The state of one connection: its bytes, its timeouts, and the responses to requests that are not
//! valid HTTP.

pub(super) mod framing;
mod half_close;
pub(super) mod head;
mod header_block;
mod held;
pub(super) mod io;
mod lines;
pub(super) mod malformed;
pub(super) mod stream;
pub(super) mod timeouts;
pub(super) mod tracked_body;
pub(super) mod window;
