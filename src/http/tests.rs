//! The edge over real sockets.

mod decide;
mod proxy;
mod rig;
mod tunnel;
mod upstream;
