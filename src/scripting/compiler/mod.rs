//! Compiles a script file, and finds errors that Rhai would report only when a function runs.

mod attributes;
pub(super) mod compile;
pub(super) mod engine;
pub(super) mod sorting;
