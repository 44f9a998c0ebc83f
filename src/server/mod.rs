//! The edge: what comes from the network is bounded, read in one way, led through the Gate, and answered.

mod accept;
mod aside;
mod door;
mod envoy;
mod explain;
mod forwarded;
mod head;
mod preamble;
mod refusal;
mod route;
mod stream;
#[cfg(test)]
mod tests;
mod told;
mod verify;
mod watch;

pub use accept::{Answer, Limits, serve};
pub use door::{Door, Listener, Peer};
pub use envoy::Envoy;
pub use explain::Explainer;
pub use route::Public;
