//! Tests of credentials: which parts of a request an upstream never gets, which challenge a client
//! gets, and how a resource chooses among several applications. Each rule is tested in all faces.

mod choice;
mod fixture;
mod removal;
