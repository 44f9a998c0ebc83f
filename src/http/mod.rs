//! The edge: what comes from the network is bounded, read in one way, led through the Gate, and answered.

mod accept;
mod explain;
mod forwarded;
mod head;
mod refusal;
mod route;
mod stream;
#[cfg(test)]
mod tests;
mod verify;
mod watch;

pub use accept::{Answer, Limits, Listener, Peer, serve};
pub use explain::Explainer;
pub use route::Public;
