//! Tests of credentials: which parts of a request an upstream never gets, which challenge a client
//! gets, how a resource chooses among several applications, and how the identity is told. Each rule
//! is tested in all faces.

mod challenge;
mod choice;
pub mod fixture;
mod identity;
mod program;
mod removal;
