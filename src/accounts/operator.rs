//! The operator's key. It authorizes a person who can read the store's folder to administer the
//! server. Requests with this key pass the same checks as all other requests.
//!
//! At each start the program creates a new key and keeps the record of the key in memory only. The
//! key is bound to an application that only the admin listener accepts. The command line reads the
//! text of the key from a file next to the store, which only the file's owner can read.

use super::Accounts;
use crate::model::{Application, Entropy, KeyText, Secret};

/// The operator's key, which is valid until this process ends.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The text of the key. A client sends it as `Authorization: Bearer …` with
    /// `AUTH-METHOD: keyward.operator`.
    pub key: Secret,
}

impl Accounts {
    /// Creates the operator's key and adds it to the Directory.
    pub fn create_operator_key(&self) -> Operator {
        let application = Application::operator();
        let text = KeyText::generate(&application.key_prefix, &Entropy::system());
        let digest = self.0.pepper.digest(text.text.expose());
        self.0.directory.add_operator_key(&application.id, text.id, digest);
        Operator { key: text.text }
    }
}
