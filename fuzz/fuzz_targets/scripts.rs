//! A script and a request: whatever the script says, nobody without a right is let in by a hook or a handler, a denial stays one, no secret is
//! told, and nothing panics.
//!
//! ```sh
//! cargo install cargo-fuzz
//! mkdir -p fuzz/corpus/scripts && cp tests/hostile/*.rhai fuzz/corpus/scripts/
//! cargo +nightly fuzz run scripts -- -max_total_time=300 -timeout=20 -max_len=8192
//! ```
//! The input is the script's text; what follows its first NUL is the path and the query of a request, and what follows the second its
//! credential. The same function judges the mutants of `cargo test --test hostile`.

#![no_main]
#![allow(dead_code)]

#[path = "../../tests/hostile/arena.rs"]
mod arena;
#[path = "../../tests/hostile/judge.rs"]
mod judge;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let judged = judge::any(data);
    assert!(judged.wrong.is_empty(), "{}", judged.wrong.join("\n"));
});
