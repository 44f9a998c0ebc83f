//! The HTTP rules that all entry points share (server, verify endpoints, admin API, layer): how a
//! path and a host are read, which route a request takes, how the pipeline decides about the
//! request, and how a denial becomes a response.

mod cache;
pub(crate) mod cors;
pub(crate) mod forwarded;
#[cfg(all(any(test, feature = "fuzzing"), feature = "server"))]
pub(crate) mod fuzz;
pub(crate) mod guard;
pub(crate) mod host;
mod kept;
pub(crate) mod method;
mod negotiate;
pub(crate) mod path;
#[cfg(feature = "server")]
pub(crate) mod request_id;
pub mod response;
