//! Checks of state documents with any input, for the fuzz targets.

use std::sync::{Arc, OnceLock};

use super::{TomlDocument, read};
use crate::{
    accounts::{AccountError, Accounts, Passwords, Writer},
    model::{Actor, Clock, Entropy, Pepper},
    store::MemoryStore,
};

/// Checks a document.
///
/// # Panics
/// The reader panics, names a line that the document does not have, or repeats a digest.
pub fn state_document(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let violations = match TomlDocument::parse(text) {
        Err(problem) => vec![problem],
        Ok(toml) => match read(&toml, accounts(), false) {
            Ok(_) => return,
            Err(AccountError::Invalid(found)) => {
                found.into_iter().map(|found| toml.with_line(found)).collect()
            }
            Err(problem) => panic!("{problem}"),
        },
    };
    let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
    assert!(!violations.is_empty());
    for violation in violations {
        let number = violation.location.strip_prefix("line ").map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse::<usize>().expect("a line is a number")
        });
        assert!(number.is_none_or(|number| (1..=lines).contains(&number)), "{violation:?}");
    }
}

fn accounts() -> &'static Writer {
    static ACCOUNTS: OnceLock<Writer> = OnceLock::new();
    ACCOUNTS.get_or_init(|| {
        let (store, pepper) = (Arc::new(MemoryStore::new()), Pepper::from_bytes([7; 32]));
        let (clock, entropy) = (Clock::system(), Entropy::seeded(1));
        let accounts = Accounts::with(store, pepper, Passwords::new(1), clock, entropy);
        accounts.expect("accounts open").as_actor(Actor::Program)
    })
}
