//! Names as keys of a table: found without regard to case, and without making a folded copy for each look-up.

use std::hash::{Hash, Hasher};

/// A name, compared without regard to case.
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
    fn names_are_the_same_here_and_in_the_index_of_names() {
        // The Kelvin sign and the dotted capital I leave or enter ASCII when they are folded; sigma has two small forms.
        let names =
            ["Bob", "bOB", "ÜNÏ", "ünï", "\u{212A}im", "kim", "İ", "i", "ΑΣ", "ας", "ασ", "", "bo"];
        let state = RandomState::new();
        for a in names {
            for b in names {
                let same = fold(a) == fold(b);
                assert_eq!(Folded(a) == Folded(b), same, "{a} {b}");
                assert!(!same || state.hash_one(Folded(a)) == state.hash_one(Folded(b)), "{a} {b}");
            }
        }
    }

    #[test]
    fn a_long_name_is_the_same_in_any_case() {
        let state = RandomState::new();
        let (small, large) = ("x".repeat(200), "X".repeat(200));
        assert!(Folded(&small) == Folded(&large));
        assert_eq!(state.hash_one(Folded(&small)), state.hash_one(Folded(&large)));
    }
}
