//! Runs the `test_…` functions of scripts: at each load, and for `keyward script test`.

pub(super) mod gate;
pub(super) mod inspect;
pub(super) mod runner;
