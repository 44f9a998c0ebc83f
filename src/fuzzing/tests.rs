//! Runs every check on the seeds in `fuzz/seeds/`, and on mutants of them.
//!
//! For a longer run, with this time for each check:
//! `KEYWARD_FUZZ_SECONDS=600 cargo test --lib fuzzing::`.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use super::{Check, TARGETS};

/// The number of mutants of each check in a short run.
const MUTANTS: u32 = 3000;
/// The longest mutant, in bytes.
const LONGEST: usize = 4096;

/// Random numbers that are equal in every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap()
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() % end.max(1)
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}

/// The inputs of a check, sorted by name.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder().join("seeds").join(target)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 3, "{target} has {} seeds", paths.len());
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The texts of `fuzz/tokens.dict`: each line is a text in quotes, with escapes.
fn tokens() -> Vec<Vec<u8>> {
    let text = fs::read_to_string(folder().join("tokens.dict")).unwrap();
    let quoted = text.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    let tokens: Vec<Vec<u8>> = quoted.map(unescaped).collect();
    assert!(tokens.len() > 50, "{} tokens", tokens.len());
    tokens
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        (bytes, rest) = match (first, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                ([bytes, vec![u8::from_str_radix(digits, 16).unwrap()]].concat(), after)
            }
            (b'\\', [escaped, after @ ..]) => ([bytes, vec![*escaped]].concat(), after),
            _ => ([bytes, vec![*first]].concat(), after),
        };
    }
    bytes
}

/// Changes an input in one to six places.
fn mutant(seeds: &[Vec<u8>], tokens: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut data = numbers.one_of(seeds).clone();
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(data.len() + 1);
        let end = (at + numbers.below(32)).min(data.len());
        match numbers.below(8) {
            0 if at < data.len() => data[at] ^= 1 << numbers.below(8),
            1 if at < data.len() => data[at] = u8::try_from(numbers.below(256)).unwrap(),
            2 => drop(data.drain(at..end)),
            3 => {
                let copied = data[at..end].to_vec();
                let to = numbers.below(data.len() + 1);
                data.splice(to..to, copied);
            }
            4 => {
                let other = numbers.one_of(seeds).clone();
                let from = numbers.below(other.len() + 1);
                data.splice(at..end, other[from..].iter().copied().take(64));
            }
            5 => drop(data.splice(at..end, numbers.one_of(tokens).clone())),
            _ => drop(data.splice(at..at, numbers.one_of(tokens).clone())),
        }
        data.truncate(LONGEST);
    }
    data
}

fn check(target: &str, check: Check, data: &[u8]) {
    let result = catch_unwind(AssertUnwindSafe(|| check(data)));
    assert!(result.is_ok(), "{target} failed for b\"{}\"", data.escape_ascii());
}

fn run(target: &str) {
    let (_, function) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let (seeds, tokens) = (seeds(target), tokens());
    for seed in &seeds {
        check(target, *function, seed);
    }
    let seconds = std::env::var("KEYWARD_FUZZ_SECONDS").ok().map(|text| text.parse().unwrap());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    // A long run takes other mutants each time.
    let start = until.map_or(1, |_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_nanos() as u64 | 1
    });
    let (mut numbers, mut count) = (Numbers(start.wrapping_mul(0x9e37_79b9_7f4a_7c15)), 0);
    while until.map_or(count < MUTANTS, |until| Instant::now() < until) {
        check(target, *function, &mutant(&seeds, &tokens, &mut numbers));
        count += 1;
    }
    println!("{target}: {} seeds, {count} mutants", seeds.len());
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*

        #[test]
        fn every_check_runs() {
            let named = [$(stringify!($name)),*];
            assert_eq!(named, TARGETS.map(|(name, _)| name));
        }
    };
}

targets!(
    framing dialects envoy_message proxy_header host path forwarded key_text backup user_entity
    state_document imported_file
);
