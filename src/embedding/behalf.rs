//! Changes on behalf of a caller: the permissions and bounds of the caller's credential hold, as in
//! the admin API.

use crate::{
    accounts::{
        AccountError, Accounts, Issued, NewKey, Page, RotateOptions, Rotated, Versioned, Writer,
    },
    layer::Identity,
    model::{Key, KeyId},
};

/// The permission for one's own keys.
const OWN_KEYS: &str = "generate own api key";
/// The permission for all users and keys.
const USERS: &str = "administer users";

/// A handle for changes that a caller asks for. [`Keyward::on_behalf_of`](super::Keyward) makes it.
///
/// The permissions are checked at the time of the change: a caller whose key was revoked after the
/// request changes nothing any more. A new key never may more, and never lasts longer, than the
/// credential of the caller. Every change is in the audit trail with the caller as its actor.
#[derive(Clone)]
pub struct OnBehalf {
    accounts: Accounts,
    caller: Identity,
}

impl OnBehalf {
    pub(super) fn new(accounts: Accounts, caller: Identity) -> Self {
        Self { accounts, caller }
    }

    /// Issues a key to the caller. Needs the permission `generate own api key`.
    ///
    /// # Errors
    /// [`AccountError::Forbidden`] if the caller lacks the permission, or if the key would be wider
    /// than the credential of the caller.
    pub async fn issue_key(&self, new: NewKey) -> Result<Issued, AccountError> {
        let (uid, writer) = self.owner()?;
        writer.issue_key(uid, new).await
    }

    /// A page of the caller's keys, sorted by id. The page begins after the key `after`, or with
    /// the first key. Needs the permission `generate own api key`.
    ///
    /// # Errors
    /// [`AccountError::Forbidden`] if the caller lacks the permission.
    pub fn keys(&self, after: Option<KeyId>, limit: usize) -> Result<Page<Key>, AccountError> {
        let (uid, writer) = self.owner()?;
        writer.keys_of(uid, after, limit)
    }

    /// Revokes a key of the caller. Needs the permission `generate own api key`.
    ///
    /// # Errors
    /// [`AccountError::NotFound`] if the caller has no such key, even if another user has it;
    /// [`AccountError::Forbidden`] if the caller lacks the permission.
    pub async fn revoke_key(&self, id: KeyId) -> Result<Versioned<Key>, AccountError> {
        self.own_key(id)?.revoke_key(id).await
    }

    /// Replaces a key of the caller by a new one. Needs the permission `generate own api key`.
    ///
    /// # Errors
    /// Those of [`OnBehalf::revoke_key`].
    pub async fn rotate_key(
        &self,
        id: KeyId,
        options: RotateOptions,
    ) -> Result<Rotated, AccountError> {
        self.own_key(id)?.rotate_key(id, options).await
    }

    /// A writer for all users and their keys, which signs each change with the caller. Needs the
    /// permission `administer users`. Accounts, roles and keys of administrators stay closed to a
    /// caller who is no administrator, and no new key may more than the caller's credential.
    ///
    /// # Errors
    /// [`AccountError::Forbidden`] if the caller lacks the permission.
    pub fn users(&self) -> Result<Writer, AccountError> {
        self.writer(USERS)
    }

    /// The caller's uid, and a writer for the caller's own keys.
    fn owner(&self) -> Result<(u64, Writer), AccountError> {
        let writer = self.writer(OWN_KEYS)?;
        // The operator has the uid 0, and is not a user.
        let uid = self.caller.uid().filter(|uid| *uid != 0).ok_or_else(|| {
            AccountError::Forbidden { rule: "An anonymous caller has no keys.".into() }
        })?;
        Ok((uid, writer))
    }

    fn own_key(&self, id: KeyId) -> Result<Writer, AccountError> {
        let (uid, writer) = self.owner()?;
        if writer.key(id)?.is_some_and(|key| key.record.user == uid) {
            return Ok(writer);
        }
        Err(AccountError::NotFound { what: "key", id: id.to_string() })
    }

    fn writer(&self, permission: &str) -> Result<Writer, AccountError> {
        let actor = (&self.caller).into();
        let writer = if self.is_admin() {
            self.accounts.as_admin(actor)
        } else {
            self.accounts.as_actor(actor)
        };
        let writer = writer.with_scopes(self.caller.all_scopes());
        writer.require_permission(permission)?;
        Ok(writer)
    }

    /// Whether the caller was an administrator at the request, and is one now.
    fn is_admin(&self) -> bool {
        let directory = self.accounts.directory();
        let Some(user) = self.caller.uid().and_then(|uid| directory.user(uid)) else {
            return false;
        };
        self.caller.is_admin() && user.roles(&directory.policy().roles).is_admin
    }
}

impl std::fmt::Debug for OnBehalf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OnBehalf({:?})", self.caller)
    }
}
