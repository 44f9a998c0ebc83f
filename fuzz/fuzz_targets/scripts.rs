//! Fuzzes a script and a request. For every script: hooks and handlers do not let requests pass
//! that are not entitled, a denial stays a denial, no secret is disclosed, and nothing panics.
//!
//! ```sh
//! cargo install cargo-fuzz
//! mkdir -p fuzz/corpus/scripts && cp tests/hostile/*.rhai fuzz/corpus/scripts/
//! cargo +nightly fuzz run scripts -- -max_total_time=300 -timeout=20 -max_len=8192
//! ```
//! The input is the text of the script. Bytes after the first NUL are the path and query of a
//! request, bytes after the second NUL its credential. `cargo test --test hostile` checks its
//! mutants with the same function.

#![no_main]
#![allow(dead_code)]

#[path = "../../tests/hostile/checks.rs"]
mod checks;
#[path = "../../tests/hostile/scripted_gate.rs"]
mod scripted_gate;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let violations = checks::check_script(data).violations;
    assert!(violations.is_empty(), "{}", violations.join("\n"));
});
