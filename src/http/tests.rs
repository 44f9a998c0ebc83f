//! The edge over real sockets.

mod decide;
mod proxy;
mod rig;
mod smuggling;
mod tunnel;
mod upstream;
