//! TODO.

pub(super) mod compile;
pub(super) mod engine;
pub(super) mod sorting;
