//! The keys of `[limits]` about the memory of request bodies.

use super::{Check, file};
use crate::limits::BufferLimits;

impl<R: FnMut(&[&str], String, String)> Check<R> {
    pub(super) fn buffers(&mut self, raw: &file::LimitsSection) -> BufferLimits {
        const MAX: u32 = u32::MAX;
        let bytes = self.size("limits.buffered_bytes", raw.buffered_bytes, 1_048_576..=MAX);
        let (key, unauthenticated) = ("limits.unauthenticated_bytes", raw.unauthenticated_bytes);
        // A part cannot be more than the whole.
        let unauthenticated_bytes = self.size(key, unauthenticated, 65_536..=MAX).min(bytes);
        BufferLimits { bytes, unauthenticated_bytes }
    }
}
