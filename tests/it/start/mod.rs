//! The start of the program: what it refuses, what it puts up with, and what it says.

mod clock;
mod descriptors;
mod elsewhere;
mod leftovers;
mod missing;

use std::{process::Command, time::Instant};

use crate::harness::{Site, TIMEOUT};

/// Runs a command that must end by itself, and returns its exit code and standard error.
fn end_of(mut command: Command) -> (Option<i32>, String) {
    use std::process::Stdio;
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() >= deadline {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("{command:?} does not end: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!errors.contains("panicked"), "{errors}");
    (output.status.code(), errors)
}

/// Runs the program, which must fail with this exit code and a message that has all these parts.
fn assert_fails(site: &Site, args: &[&str], exit: i32, parts: &[&str]) {
    let (code, errors) = end_of(site.command(args));
    assert_eq!(code, Some(exit), "{args:?}: {errors}");
    for part in parts {
        assert!(errors.contains(part), "{args:?}: {part:?} is not in: {errors}");
    }
}
