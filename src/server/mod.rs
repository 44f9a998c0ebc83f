//! The edge: what comes from the network is bounded, read in one way, led through the Gate, and answered.

mod accept;
mod connection;
mod explain;
mod listener;
mod proxy_protocol;
mod public;
#[cfg(test)]
mod tests;
mod verify;

pub use accept::{Answer, Limits, serve};
pub use explain::Explainer;
pub use listener::{Door, Listener, Peer};
pub use public::Public;
pub use verify::envoy::Envoy;
