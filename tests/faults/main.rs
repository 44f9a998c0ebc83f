//! Tests of the disk engines under faults: damaged files, system calls that fail, power cuts, and
//! full disks.
//!
//! A seeded [workload](model) changes users, keys and roles. After each fault the store must be
//! equal to the [model](model::Model), or be refused with an error. `docs/faults.md` describes the
//! long run.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test and reports its line")]
#![allow(clippy::print_stdout, reason = "the tables of results are the output of these tests")]

#[path = "../it/harness.rs"]
#[allow(dead_code, reason = "the harness is shared")]
mod harness;

mod calls;
mod check;
mod child;
mod damage;
mod disks;
mod engine;
mod model;
mod power;
mod preload;
mod rules;
mod trace;

use std::path::PathBuf;

/// The number of damages and of crash states for each engine.
fn rounds() -> usize {
    let text = std::env::var("KEYWARD_FAULT_ROUNDS").unwrap_or_else(|_| "100".into());
    text.parse().expect("KEYWARD_FAULT_ROUNDS is a number")
}

/// A temporary folder, in memory if the system has such a file system: the syncs of thousands of
/// starts would take hours on a disk.
fn scratch() -> tempfile::TempDir {
    let in_memory = PathBuf::from("/dev/shm");
    let folder = if in_memory.is_dir() { in_memory } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("keyward-faults-").tempdir_in(folder).unwrap()
}
