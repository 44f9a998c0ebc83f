//! The values that scripts and Keyward exchange: requests, records, identities and responses.

pub(super) mod credential;
pub(super) mod headers;
mod reads;
pub(super) mod records;
pub(super) mod request;
pub(super) mod response;
