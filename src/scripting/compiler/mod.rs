//! Compiles a script file, and finds errors that Rhai would report only when a function runs.

mod attributes;
mod body;
mod collections;
pub(super) mod compile;
pub(super) mod engine;
mod lint;
pub(super) mod sorting;
pub(super) mod texts;

type Checked<T> = Result<T, Box<rhai::EvalAltResult>>;
