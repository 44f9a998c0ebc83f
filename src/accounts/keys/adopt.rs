//! Keys of other systems that a script has checked become their users' own, one by one, as they are used.

use super::put_new_key;
use crate::{
    accounts::{AccountError, Writer, events::New, users::uid_key},
    model::{Act, Key, KeyId, Mode, Scheme, Secret},
    store::{Batch, CommitError, State, Table},
};

/// The fewest bytes: a digest without stretching is right only for what was drawn at random.
const SHORTEST: usize = 16;
/// The most.
const LONGEST: usize = 512;

impl Writer {
    /// Makes a key of another system one of a user's own, for this application. Its text stays what it is; only its digest is kept. One that was
    /// taken over before stays as it is, revoked ones above all.
    ///
    /// # Errors
    /// The user is gone, the text cannot be a random key, or the store failed.
    pub async fn adopt_key(
        &self,
        uid: u64,
        application: &str,
        text: &Secret,
    ) -> Result<(), AccountError> {
        if !may_be_random(text) {
            let length = text.expose().len();
            return Err(AccountError::refused(
                format!("A text of {length} bytes is no random key, and is not taken over."),
                "Give the user a key of Keyward's own.",
            ));
        }
        let key = Key {
            id: KeyId::from_number(u64::from_le_bytes(self.0.entropy.bytes())),
            user: uid,
            application: Some(application.to_owned()),
            label: "taken over".into(),
            prefix: String::new(),
            last_four: String::new(),
            digest: self.0.pepper.digest_kept(Scheme::Text, text.expose().as_bytes()),
            scheme: Scheme::Text,
            slow: None,
            former_digest: None,
            universal: false,
            scopes: None,
            created: self.0.clock.now(),
            expires: None,
            revoked: None,
            rotated: None,
            networks: Vec::new(),
            rate_limit: None,
            credits: None,
        };
        let mut batch = Batch::new();
        batch.expect(Table::Users, uid_key(uid), State::Present);
        put_new_key(&mut batch, &key);
        let owner = self.name_of(uid);
        let webhooks = self.ask(&[New::Key(&key, &owner)], Mode::Live).await?;
        match self.commit_telling(batch, Act::create("key", key.id, &key), webhooks).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict(on)) if on.table == Table::Foreign => Ok(()),
            Err(CommitError::Store(problem)) => Err(problem.into()),
            Err(_) => Err(AccountError::not_found("user", uid)),
        }
    }
}

/// Whether a text may have been drawn at random, as far as its length says.
pub(in crate::accounts) fn may_be_random(text: &Secret) -> bool {
    let text = text.expose();
    (SHORTEST..=LONGEST).contains(&text.len()) && !text.chars().any(char::is_control)
}
