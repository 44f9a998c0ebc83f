//! Names as keys of a map, in the form in which they are compared. ASCII names need no copy for a
//! look-up.

use std::hash::{Hash, Hasher};

use crate::model::fold;

/// A name that is hashed and compared in its folded form.
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
            // In parts, as above: a folded text may be ASCII.
            fold(self.0).as_bytes().chunks(64).for_each(|part| state.write(part));
        }
        state.write_u8(0xff);
    }
}

impl PartialEq for Folded<'_> {
    fn eq(&self, other: &Self) -> bool {
        if self.0.is_ascii() && other.0.is_ascii() {
            self.0.eq_ignore_ascii_case(other.0)
        } else {
            fold(self.0) == fold(other.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    use super::*;

    #[test]
    fn folded_names_are_equal_exactly_if_their_folded_texts_are() {
        // Folding turns the Kelvin sign into an ASCII letter, and the dotted capital I into an
        // ASCII letter with a combining dot. Sigma has two lower-case forms. A ligature becomes
        // several letters.
        let long = ["ﬃ".repeat(60), "ffi".repeat(60)];
        let names = [
            "Bob",
            "bOB",
            "ÜNÏ",
            "ünï",
            "\u{212A}im",
            "kim",
            "İ",
            "i",
            "ΑΣ",
            "ας",
            "ασ",
            "",
            "bo",
            "rené",
            "rene\u{301}",
            "straße",
            "STRASSE",
            "ﬁ",
            "fi",
            &long[0],
            &long[1],
        ];
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
