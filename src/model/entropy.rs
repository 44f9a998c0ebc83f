//! Sources of random bytes: the operating system's generator, or a repeatable stream for tests.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A source of random bytes.
#[derive(Clone, Default)]
pub struct Entropy(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    System,
    Seeded([u8; 32], Arc<AtomicU64>),
}

impl Entropy {
    /// The operating system's generator.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A repeatable stream for tests. Never use this stream for real keys.
    pub fn seeded(seed: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        Self(Source::Seeded(key, Arc::default()))
    }

    /// A repeatable stream derived from a secret. The stream is as hard to guess as the secret.
    pub fn derived(secret: [u8; 32]) -> Self {
        Self(Source::Seeded(secret, Arc::default()))
    }

    /// Fills `out` with random bytes.
    ///
    /// # Panics
    /// The operating system cannot give random bytes. Keys that are generated without them would
    /// not be safe.
    pub fn fill(&self, out: &mut [u8]) {
        match &self.0 {
            Source::System => {
                getrandom::fill(out).expect("the operating system should give random bytes")
            }
            Source::Seeded(key, draws) => {
                let draw = draws.fetch_add(1, Ordering::Relaxed);
                let mut hasher = blake3::Hasher::new_keyed(key);
                hasher.update(&draw.to_le_bytes());
                hasher.finalize_xof().fill(out);
            }
        }
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Entropy(system)",
            Source::Seeded(..) => "Entropy(seeded)",
        })
    }
}
