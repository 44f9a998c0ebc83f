//! The person at the machine: whoever can read the store's folder may administer, through the same Gate as everybody else.
//!
//! At each start the program makes a key that is kept in memory alone, bound to an application that only the admin listener knows. The command
//! line reads it from a file beside the store that only the owner can read.

use super::Accounts;
use crate::model::{Entropy, KeyText, Secret};

/// The id of the operator's application. People cannot take ids with this beginning.
pub const OPERATOR: &str = "keyward.operator";

/// The operator's key, for as long as this process lives.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The text of the key, presented as `Authorization: Bearer …` with `AUTH-METHOD: keyward.operator`.
    pub key: Secret,
}

impl Accounts {
    /// Lets the person at the machine in.
    pub fn admit_operator(&self) -> Operator {
        let text = KeyText::generate("kwop", &Entropy::system());
        let digest = self.0.pepper.digest(text.text.expose());
        self.0.directory.admit_operator(OPERATOR, text.id, digest);
        Operator { key: text.text }
    }
}
