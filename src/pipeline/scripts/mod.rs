//! TODO.

pub(super) mod response_hooks;
pub(super) mod script_views;
pub(super) mod test_gate;
