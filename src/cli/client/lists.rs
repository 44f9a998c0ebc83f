//! Changes single elements of the lists and maps of a record, and keeps the other elements.

use serde_json::{Map, Value};

use crate::cli::{CliError, Exit};

/// A change of one list of a record, from the options of an `edit` command.
#[derive(Debug, Clone, Copy)]
pub struct ListEdit<'a> {
    /// The name of the option that replaces the whole list, such as `--scope`. The options
    /// `--add-scope` and `--remove-scope` change the list.
    pub option: &'static str,
    /// The whole new list. Empty means that the list is not replaced.
    pub set: &'a [String],
    /// The elements to add.
    pub add: &'a [String],
    /// The elements to remove.
    pub remove: &'a [String],
    /// The meaning of a list that is not set. `None` means that such a list has no elements.
    pub unset: Option<Unset>,
    /// The normal spelling of an element, as records have it.
    pub spelling: fn(&str) -> String,
}

/// The meaning of a list that is not set.
#[derive(Debug, Clone, Copy)]
pub struct Unset {
    /// The meaning, as the end of a sentence.
    pub meaning: &'static str,
    /// The option that says so. `None` means that there is no such option.
    pub option: Option<&'static str>,
    /// Whether an empty list means that the list is not set.
    pub is_empty_list: bool,
}

/// The element as it is.
pub fn unchanged(element: &str) -> String {
    element.to_owned()
}

impl ListEdit<'_> {
    /// Whether the command changes the list.
    pub fn is_given(&self) -> bool {
        ![self.set, self.add, self.remove].into_iter().all(<[String]>::is_empty)
    }

    /// Changes the list in a record. `notes` gets a sentence for each element that cannot be
    /// removed because the list does not have it.
    ///
    /// # Errors
    /// The list is not set, so that an added or removed element would change its meaning.
    pub fn put(
        &self,
        record: &mut Map<String, Value>,
        field: &str,
        notes: &mut Vec<String>,
    ) -> Result<(), CliError> {
        if !self.is_given() {
            return Ok(());
        }
        let mut words = self.current(record.get(field))?;
        for word in self.add.iter().map(|word| (self.spelling)(word)) {
            if !words.contains(&word) {
                words.push(word);
            }
        }
        for word in self.remove.iter().map(|word| (self.spelling)(word)) {
            let before = words.len();
            words.retain(|other| (self.spelling)(other) != word);
            if words.len() == before {
                notes.push(format!("{field} does not contain {word}: nothing was removed."));
            }
        }
        if let Some(unset) = self.unset.filter(|unset| unset.is_empty_list)
            && words.is_empty()
        {
            let no_option =
                unset.option.map_or_else(String::new, |o| format!(". Use {o} for that"));
            let text = format!(
                "no element of {field} would be left, which means {}{no_option}",
                unset.meaning
            );
            return Err(CliError::new(Exit::Usage, text));
        }
        record.insert(field.to_owned(), words.into());
        Ok(())
    }

    /// The list before single elements are added and removed.
    fn current(&self, value: Option<&Value>) -> Result<Vec<String>, CliError> {
        if !self.set.is_empty() {
            return Ok(self.set.iter().map(|word| (self.spelling)(word)).collect());
        }
        let listed = value.and_then(Value::as_array);
        let is_unset = |unset: &Unset| match listed {
            None => true,
            Some(words) => unset.is_empty_list && words.is_empty(),
        };
        if let Some(unset) = self.unset.filter(is_unset) {
            let Self { option, .. } = self;
            let text = format!(
                "the list is not set, which means {}: an element cannot be added or removed. Give \
                 the whole list with {option}",
                unset.meaning
            );
            return Err(CliError::new(Exit::Usage, text));
        }
        let words = listed.into_iter().flatten().filter_map(Value::as_str);
        Ok(words.map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALL: Unset = Unset { meaning: "all", option: None, is_empty_list: false };
    const ANY: Unset = Unset { meaning: "any", option: Some("--no-words"), is_empty_list: true };

    /// The list after the edit, or the error, and the notes.
    fn edited(
        before: Value,
        unset: Option<Unset>,
        [set, add, remove]: [&[&str]; 3],
    ) -> (Result<Value, String>, Vec<String>) {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let [set, add, remove] = [set, add, remove].map(owned);
        let mut record = Map::from_iter([("words".to_owned(), before)]);
        let edit = ListEdit {
            option: "--word",
            set: &set,
            add: &add,
            remove: &remove,
            unset,
            spelling: |word| word.to_ascii_uppercase(),
        };
        let mut notes = Vec::new();
        let result = edit.put(&mut record, "words", &mut notes);
        (result.map(|()| record["words"].take()).map_err(|e| e.to_string()), notes)
    }

    #[test]
    fn elements_are_added_and_removed_and_the_others_stay() {
        for (before, edit, after) in [
            (json!(["B", "A"]), [&[][..], &[][..], &[][..]], json!(["B", "A"])),
            (json!(["B", "A"]), [&[], &["c", "a"], &["b"]], json!(["A", "C"])),
            (json!(["B"]), [&["x"], &["y"], &[]], json!(["X", "Y"])),
            (json!(null), [&[], &["x"], &[]], json!(["X"])),
            (json!(["B"]), [&[], &[], &["b"]], json!([])),
        ] {
            assert_eq!(edited(before, None, edit), (Ok(after), Vec::new()), "{edit:?}");
        }
        let (_, notes) = edited(json!(["B"]), None, [&[], &[], &["z"]]);
        assert_eq!(notes, ["words does not contain Z: nothing was removed."]);
    }

    #[test]
    fn list_that_means_everything_is_not_narrowed_or_widened_by_one_element() {
        for (before, unset) in [(json!(null), ALL), (json!(null), ANY), (json!([]), ANY)] {
            for edit in [[&[][..], &["x"][..], &[][..]], [&[], &[], &["x"]]] {
                let (result, _) = edited(before.clone(), Some(unset), edit);
                let text = result.unwrap_err();
                assert!(text.contains("Give the whole list with --word"), "{text}");
            }
            let (result, _) = edited(before, Some(unset), [&["x"], &[], &[]]);
            assert_eq!(result, Ok(json!(["X"])));
        }
        let (result, _) = edited(json!(["A"]), Some(ANY), [&[], &[], &["a"]]);
        assert!(result.unwrap_err().contains("means any. Use --no-words"), "the last element");
        // An empty list of scopes means no permission, so the last scope can be removed.
        assert_eq!(edited(json!(["A"]), Some(ALL), [&[], &[], &["a"]]).0, Ok(json!([])));
    }
}
