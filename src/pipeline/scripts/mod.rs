//! The pipeline's side of scripting: what scripts see of a request, hooks on responses, and the
//! Gate for the tests of scripts.

pub(super) mod response_hooks;
pub(super) mod script_views;
pub(super) mod test_gate;
