//! TODO.

pub(super) mod framing;
pub(super) mod io;
pub(super) mod malformed;
pub(super) mod timeouts;
pub(super) mod wake;
