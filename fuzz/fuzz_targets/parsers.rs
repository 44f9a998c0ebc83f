//! Fuzzes one parser of `keyward::fuzzing`, which the environment variable TARGET names.
//!
//! ```sh
//! cargo install cargo-fuzz
//! mkdir -p fuzz/corpus/framing
//! TARGET=framing cargo +nightly fuzz run parsers --sanitizer none fuzz/corpus/framing \
//!     fuzz/seeds/framing -- -max_total_time=600 -timeout=10 -dict=fuzz/tokens.dict
//! ```

#![no_main]

use std::sync::LazyLock;

use keyward::fuzzing::{Check, TARGETS};
use libfuzzer_sys::fuzz_target;

static CHECK: LazyLock<Check> = LazyLock::new(|| {
    let wanted = std::env::var("TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    found.unwrap_or_else(|| panic!("set TARGET to one of {names:?}")).1
});

fuzz_target!(|data: &[u8]| CHECK(data));
