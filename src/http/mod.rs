//! Rules that every face applies in the same way: how a path and a host are read, where a request
//! leads, how it passes the gate, and how a denial becomes a response.

pub(crate) mod guard;
pub(crate) mod host;
mod negotiate;
pub(crate) mod path;
pub mod response;
