//! The edge over real sockets.

mod proxy;
mod rig;
mod tunnel;
mod upstream;
