//! TODO.

pub(super) mod inspect;
