//! The pipeline's side of scripting: the values that scripts get, the hooks on responses, and the
//! pipeline that script tests send their requests to.

pub(super) mod late_body;
pub(super) mod response_hooks;
pub(super) mod script_views;
pub(super) mod test_gate;
