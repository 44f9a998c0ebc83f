//! The integration tests: one binary, with one module for each part of the program.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test and reports its line")]

mod admin;
mod apply;
mod audit;
mod authority;
mod backup;
mod backup_schedule;
mod browsers;
mod bulk;
mod cli;
mod client_address;
mod credentials;
mod denials;
mod docs;
mod embedded;
mod embedded_keyward;
mod embedded_stores;
mod engine;
mod entity;
mod errors;
mod events;
mod faces;
mod failure_limits;
mod faults;
mod first_run;
#[allow(dead_code, reason = "tests/crash.rs uses the other parts")]
mod harness;
mod house;
mod import;
mod input;
mod keys;
mod kill;
mod kill_commands;
mod layer;
mod layer_once;
mod layer_places;
mod limits;
mod log;
mod me;
mod resource_options;
mod restore;
mod scripting_cli;
mod scripts;
mod slow_digests;
mod start;
mod tls;
mod uniform;
mod universal;
mod usage;
mod verify_listener;
mod workers;
