//! Case-insensitive names as keys of a map, without a case-folded copy for each look-up.

use std::hash::{Hash, Hasher};

/// A name that is hashed and compared case-insensitively.
#[derive(Clone, Copy)]
pub(in crate::directory) struct Folded<'a>(pub &'a str);

impl Hash for Folded<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.0.is_ascii() {
            let mut chunk = [0; 64];
            for part in self.0.as_bytes().chunks(chunk.len()) {
                let lower = &mut chunk[..part.len()];
                lower.copy_from_slice(part);
                lower.make_ascii_lowercase();
                state.write(lower);
            }
        } else {
            state.write(self.0.to_lowercase().as_bytes());
        }
        state.write_u8(0xff);
    }
}

impl PartialEq for Folded<'_> {
    fn eq(&self, other: &Self) -> bool {
        if self.0.is_ascii() && other.0.is_ascii() {
            self.0.eq_ignore_ascii_case(other.0)
        } else {
            self.0.to_lowercase() == other.0.to_lowercase()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    use super::*;
    use crate::model::fold;

    #[test]
    fn folded_names_are_equal_exactly_if_their_folded_texts_are() {
        // Folding turns the Kelvin sign into an ASCII letter, and the dotted capital I into an
        // ASCII letter with a combining dot. Sigma has two lower-case forms.
        let names =
            ["Bob", "bOB", "ÜNÏ", "ünï", "\u{212A}im", "kim", "İ", "i", "ΑΣ", "ας", "ασ", "", "bo"];
        let state = RandomState::new();
        for a in names {
            for b in names {
                let is_same = fold(a) == fold(b);
                assert_eq!(Folded(a) == Folded(b), is_same, "{a} {b}");
                assert!(
                    !is_same || state.hash_one(Folded(a)) == state.hash_one(Folded(b)),
                    "{a} {b}"
                );
            }
        }
    }

    #[test]
    fn long_names_are_compared_case_insensitively() {
        let state = RandomState::new();
        let (lower, upper) = ("x".repeat(200), "X".repeat(200));
        assert!(Folded(&lower) == Folded(&upper));
        assert_eq!(state.hash_one(Folded(&lower)), state.hash_one(Folded(&upper)));
    }
}
