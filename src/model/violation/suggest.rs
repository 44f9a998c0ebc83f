//! Finds the known word that is most similar to a misspelled word, for the hint "Did you mean …?".

/// The minimum Jaro-Winkler similarity (0 to 1) of a word that is suggested.
const MIN_SIMILARITY: f64 = 0.75;

/// The known word most similar to `word`, ignoring ASCII case. `None` means no word is similar
/// enough.
pub fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_word_is_suggested() {
        let known = ["listen", "workers", "runtime"];
        assert_eq!(suggest("listn", known), Some("listen"));
        assert_eq!(suggest("WORKER", known), Some("workers"));
        assert_eq!(suggest("zzz", known), None);
        assert_eq!(suggest("listen", []), None);
    }
}
