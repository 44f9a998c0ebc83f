//! TODO.

pub(super) mod headers;
pub(super) mod records;
pub(super) mod request;
pub(super) mod response;
