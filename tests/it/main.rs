//! The integration tests: one binary, one module for each part of the house.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod admin;
mod audit;
mod backup;
mod bulk;
mod cli;
mod denials;
mod docs;
mod embedded;
mod entity;
mod errors;
mod events;
mod faces;
mod faults;
mod first_run;
mod floods;
#[allow(dead_code, reason = "shared with the test of crashes")]
mod harness;
mod house;
mod import;
mod input;
mod keys;
mod killed;
mod layer;
mod limits;
mod me;
mod scripting_cli;
mod scripts;
mod slow;
mod state;
mod tls;
mod uniform;
mod universal;
mod usage;
mod workers;
