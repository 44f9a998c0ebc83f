//! The HTTP server: limits connections, reads requests, sends each request through the pipeline,
//! and writes the response.

mod accept;
mod accept_errors;
mod connection;
mod explain;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod health;
mod listener;
mod observed;
mod peers;
mod proxy_protocol;
mod public;
#[cfg(test)]
mod tests;
mod verify;

pub use accept::{ConnectionLimits, Service, serve};
pub use connection::head::HeadLimits;
pub use explain::Explainer;
pub use listener::{BoundSocket, Listener, Peer};
pub use peers::PeerLimit;
pub use public::Public;
pub use verify::{Verify, envoy::Envoy};
