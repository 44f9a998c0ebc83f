//! The form in which names and mail addresses are compared: NFKC_Casefold of the Unicode Standard
//! (section 3.13), so that spellings which look alike are equal.

use icu_casemap::CaseMapper;
use icu_normalizer::{ComposingNormalizer, DecomposingNormalizer};
use icu_properties::{CodePointSetData, props::DefaultIgnorableCodePoint};

/// The maximum number of times that a text is folded until it stays the same.
const MAX_PASSES: usize = 4;

/// Folds a text. Two names or mail addresses are the same if their folded texts are equal.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut folded = fold_once(text);
    for _ in 1..MAX_PASSES {
        let next = fold_once(&folded);
        if next == folded {
            break;
        }
        folded = next;
    }
    folded
}

fn fold_once(text: &str) -> String {
    let cases = CaseMapper::new();
    let decomposed = DecomposingNormalizer::new_nfd().normalize(text);
    let folded = cases.fold_string(&decomposed);
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let compatible = DecomposingNormalizer::new_nfkd().normalize(&folded);
    let visible: String = compatible.chars().filter(|c| !ignorable.contains(*c)).collect();
    ComposingNormalizer::new_nfkc().normalize(&cases.fold_string(&visible)).into_owned()
}

/// The composed form of a text (NFC), in which text is sent (RFC 5198).
pub fn compose(text: &str) -> std::borrow::Cow<'_, str> {
    ComposingNormalizer::new_nfc().normalize(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_that_look_alike_are_equal() {
        for (one, other) in [
            ("Bob", "bOB"),
            ("ÜNÏ", "ünï"),
            ("rene\u{301}", "ren\u{e9}"),
            ("RENE\u{301}", "ren\u{e9}"),
            ("\u{212A}im", "kim"),
            ("STRASSE", "straße"),
            ("ΑΣ", "ας"),
            ("ας", "ασ"),
            ("ﬁn", "FIN"),
            ("ｆｕｌｌ", "full"),
            ("ⅷ", "VIII"),
            ("한", "\u{1112}\u{1161}\u{11AB}"),
            ("a\u{FE0F}b", "ab"),
            ("İ", "i\u{307}"),
            ("ΐ", "ι\u{308}\u{301}"),
            ("ᾳ", "ΑΙ"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        for (one, other) in [("rené", "rene"), ("a", "а"), ("i", "ı"), ("日本", "日夲")] {
            assert_ne!(fold(one), fold(other), "{one} {other}");
        }
    }

    #[test]
    fn folded_text_stays_the_same() {
        for text in ["Ünï", "İıſ", "ᾳ\u{345}", "ﷺ", "ŉ", "\u{1E9E}", "ΐ\u{301}", "Å\u{327}"]
        {
            let folded = fold(text);
            assert_eq!(fold(&folded), folded, "{text}");
        }
    }
}
