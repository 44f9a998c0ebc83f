//! Imports the universal key of another system: the one key of an application, which acts as any
//! user that the client names.

use super::clear_text::key_problem;
use crate::{
    accounts::{
        AccountError, Writer,
        events::NewRecord,
        keys::put_new_key,
        rules::{check_key, ensure_valid},
        writer::{Attempt, PendingCommit},
    },
    model::{Act, Key, KeyId, KeyShape, KeyText, Mode, Scheme, Secret, Violation},
    store::{Batch, Expected, Table, table},
};

impl Writer {
    /// Imports a universal key of an application, which belongs to this user. `false` means that
    /// the key exists already.
    ///
    /// # Errors
    /// The actor is not an administrator, or the text, the user or the application is invalid.
    pub async fn import_universal_key(
        &self,
        application: &str,
        username: &str,
        text: &Secret,
        mode: Mode,
    ) -> Result<bool, AccountError> {
        self.authority().require_keys()?;
        self.admin_only_if(true)?;
        if let Some((message, fix)) = key_problem(text.expose()) {
            return Err(AccountError::Invalid(vec![Violation::new("key", message, fix)]));
        }
        if !matches!(KeyText::shape(text.expose()), KeyShape::Foreign) {
            let fix = "Generate a universal key instead.";
            let violation = Violation::new("key", "This is a key of Keyward.", fix);
            return Err(AccountError::Invalid(vec![violation]));
        }
        let id = KeyId::from_number(u64::from_le_bytes(self.0.entropy.bytes()));
        let attempt = || async move {
            let Some(user) = self.directory().user_by_name(username) else {
                return Err(AccountError::not_found("user", username));
            };
            let key = Key {
                id,
                user: user.uid,
                application: Some(application.to_owned()),
                label: "imported".into(),
                prefix: String::new(),
                last_four: String::new(),
                digest: self.0.pepper.digest_kept(Scheme::Text, text.expose().as_bytes()),
                scheme: Scheme::Text,
                slow: None,
                former_digest: None,
                universal: true,
                scopes: None,
                created: self.0.clock.now(),
                expires: None,
                revoked: None,
                rotated: None,
                networks: Vec::new(),
                rate_limit: None,
                credits: None,
            };
            if self.directory().foreign_key_id(&key.digest).is_some() {
                return Ok(Attempt::Unchanged(false));
            }
            ensure_valid(check_key(self, &key, self.0.clock.now()))?;
            let new = [NewRecord::Key(&key, username)];
            let webhooks = self.approve(&new, mode).await?;
            if mode == Mode::DryRun {
                return Ok(Attempt::Unchanged(true));
            }
            let mut batch = Batch::new();
            batch.expect(Table::Users, table::user(user.uid), Expected::Present);
            put_new_key(&mut batch, &key);
            let act = Act::create("key", key.id, &key);
            Ok(PendingCommit::new(batch, act, |_| true).with_webhooks(webhooks).into())
        };
        self.update_async(attempt).await
    }
}
