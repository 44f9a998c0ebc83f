//! The person at the machine: whoever can read the store's folder may administer, through the same Gate as everybody else.
//!
//! At each start the program makes a key that is kept in memory alone, bound to an application that only the admin listener knows. The command
//! line reads it from a file beside the store that only the owner can read.

use super::Accounts;
use crate::model::{Application, Entropy, KeyText, Secret};

/// The operator's key, for as long as this process lives.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The text of the key, presented as `Authorization: Bearer …` with `AUTH-METHOD: keyward.operator`.
    pub key: Secret,
}

impl Accounts {
    /// Lets the person at the machine in.
    pub fn admit_operator(&self) -> Operator {
        let application = Application::operator();
        let text = KeyText::generate(&application.key_prefix, &Entropy::system());
        let digest = self.0.pepper.digest(text.text.expose());
        self.0.directory.admit_operator(&application.id, text.id, digest);
        Operator { key: text.text }
    }
}
