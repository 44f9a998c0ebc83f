//! Imports keys of other systems. A batch is imported completely or not at all.
//!
//! Importing a batch again changes nothing, so an aborted import can be repeated.

use std::collections::{HashMap, HashSet};

use serde_json::json;

use super::clear_text::{key_problem, spreadsheet_damage};
use crate::{
    accounts::{
        AccountError, Accounts, DigestFormat, Writer,
        authority::RequestedBounds,
        events::NewRecord,
        keys::put_new_key,
        record_list,
        rules::{check_key, check_scopes, check_user},
        users::names::claim_name_and_mail,
        writer::{Attempt, PendingCommit},
    },
    model::{
        Act, Key, KeyId, KeyShape, KeyText, MOST_SLOW_KEYS, Mode, PasswordDigest, Scheme, Secret,
        Timestamp, User, Violation, fold,
    },
    store::{Batch, Expected, Table, encode, table},
};

/// The minimum length of a text whose last four characters are shown, in bytes. In a shorter text
/// these four characters would reveal too much.
const MIN_LENGTH_FOR_LAST_FOUR: usize = 20;

/// A batch of keys to import.
#[derive(Debug)]
pub struct KeyImport {
    /// The form of the keys in the rows.
    pub digest: ImportDigest,
    /// The treatment of rows with unknown users.
    pub unknown_users: UnknownUsers,
    /// Whether the import writes the batch or only checks it.
    pub mode: Mode,
    /// The keys.
    pub rows: Vec<KeyRow>,
}

/// The treatment of rows with unknown users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownUsers {
    /// The users are created.
    Create,
    /// The rows are rejected.
    Reject,
}

/// The form in which another system stores its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportDigest {
    /// The texts of the keys, without hashing.
    Clear,
    /// Digests of this scheme, in hexadecimal digits.
    Fast(Scheme),
    /// Digests that are slow to check, in the format of the other system.
    Slow(DigestFormat),
}

/// A key of another system.
#[derive(Debug)]
pub struct KeyRow {
    /// The line number of the key in the imported file. Messages name it.
    pub line: u64,
    /// The user's name.
    pub username: String,
    /// The text or the digest of the key.
    pub key: Secret,
    /// The label.
    pub label: String,
    /// The first second in which the key is rejected. `None` means that the key does not expire.
    pub expires: Option<Timestamp>,
    /// The permissions that the key may use. `None` means all permissions of its user.
    pub scopes: Option<Vec<String>>,
}

/// The result of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ImportedKeys {
    /// The number of new keys.
    pub keys: usize,
    /// The number of new users.
    pub users: usize,
    /// The number of rows whose key exists for the same user.
    pub known: usize,
}

/// The changes of an import while they are collected.
struct KeyImportDraft<'a> {
    accounts: &'a Writer,
    import: &'a KeyImport,
    batch: Batch,
    /// The new users, by case-folded name.
    new_users: HashMap<String, User>,
    new_uids: HashSet<u64>,
    /// The id of the previous new key. New keys get consecutive ids, because writing adjacent
    /// records is cheap.
    last_id: u64,
    /// The number of keys in force of each user, including those of this batch.
    key_counts: HashMap<u64, usize>,
    /// The number of slow keys of each user, including those of this batch.
    slow_counts: HashMap<u64, usize>,
    /// The uid of the user of each new key, by the key's digest.
    owners: HashMap<[u8; 32], u64>,
    imported: ImportedKeys,
    violations: Vec<Violation>,
    /// The new keys, each with its user's name.
    new_keys: Vec<(Key, String)>,
}

/// A parsed key of a row.
struct ParsedKey {
    id: KeyId,
    scheme: Scheme,
    /// The bytes from which the digest with the pepper is made: the key's text, or the digest of
    /// the other system.
    material: Vec<u8>,
    slow: Option<PasswordDigest>,
    last_four: String,
}

impl ParsedKey {
    fn new(id: KeyId, scheme: Scheme) -> Self {
        Self { id, scheme, material: Vec::new(), slow: None, last_four: String::new() }
    }
}

impl Writer {
    /// Imports keys.
    ///
    /// # Errors
    /// A row is invalid. Each violation has the line number of its row, and nothing is imported.
    pub async fn import_keys(&self, import: &KeyImport) -> Result<ImportedKeys, AccountError> {
        self.authority().require_keys()?;
        for row in &import.rows {
            let (scopes, expires) = (row.scopes.as_deref(), row.expires);
            let bounds = RequestedBounds { scopes, expires, ..RequestedBounds::default() };
            self.authority().check_key(bounds)?;
        }
        let attempt = || async move {
            let mut draft = KeyImportDraft::new(self, import);
            for row in &import.rows {
                draft.add(row)?;
            }
            if !draft.violations.is_empty() {
                return Err(AccountError::Invalid(draft.violations));
            }
            let users = draft.new_users.values().map(NewRecord::User);
            let keys = draft.new_keys.iter().map(|(key, owner)| NewRecord::Key(key, owner));
            let new: Vec<_> = users.chain(keys).collect();
            let webhooks = self.approve(&new, import.mode).await?;
            drop(new);
            let KeyImportDraft { batch, imported, new_users, new_keys, .. } = draft;
            if import.mode == Mode::DryRun || batch.writes.is_empty() {
                return Ok(Attempt::Unchanged(imported));
            }
            let scheme = match import.digest {
                ImportDigest::Clear => Scheme::Text,
                ImportDigest::Fast(scheme) => scheme,
                ImportDigest::Slow(_) => Scheme::Slow,
            };
            let details = json!({ "imported": imported, "digest": scheme });
            let act = Act::other("key.import", "key", details);
            let users = new_users.values().map(|user| json!([user.uid, user.name])).collect();
            let keys = new_keys.iter().map(|(key, _)| json!([key.id, key.user])).collect();
            let mut entries = record_list("user.imported", "user", "users", users);
            entries.extend(record_list("key.imported", "key", "keys", keys));
            let pending = PendingCommit::new(batch, act, move |_| imported);
            Ok(pending.with_entries(entries).with_webhooks(webhooks).into())
        };
        self.update_async(attempt).await
    }
}

impl<'a> KeyImportDraft<'a> {
    fn new(accounts: &'a Writer, import: &'a KeyImport) -> Self {
        Self {
            accounts,
            import,
            batch: Batch::new(),
            new_users: HashMap::new(),
            new_uids: HashSet::new(),
            last_id: u64::from_le_bytes(accounts.0.entropy.bytes()),
            key_counts: HashMap::new(),
            slow_counts: HashMap::new(),
            owners: HashMap::new(),
            imported: ImportedKeys::default(),
            violations: Vec::new(),
            new_keys: Vec::new(),
        }
    }

    fn add_violation(&mut self, row: &KeyRow, field: &str, message: &str, fix: &str) {
        let location = format!("line {}.{field}", row.line);
        self.violations.push(Violation::new(location, message, fix));
    }

    fn add(&mut self, row: &KeyRow) -> Result<(), AccountError> {
        let Some(key) = self.parse_key(row) else { return Ok(()) };
        let Some(uid) = self.owner(row) else { return Ok(()) };
        let key = Key { user: uid, ..key };
        match self.existing_owner(&key)? {
            Some(user) if user == uid => self.imported.known += 1,
            Some(_) => {
                let fix = "A key belongs to one user. Remove one of the two rows.";
                self.add_violation(row, "key", "Another user has this key.", fix);
            }
            None => self.put(row, &key)?,
        }
        Ok(())
    }

    /// Parses the key of a row into a record whose user is not set yet. `None` means that a
    /// violation was added.
    fn parse_key(&mut self, row: &KeyRow) -> Option<Key> {
        let parsed = match self.import.digest {
            ImportDigest::Clear => self.parse_text(row),
            ImportDigest::Fast(scheme) => self.parse_digest(row, scheme),
            ImportDigest::Slow(format) => self.parse_slow_digest(row, format),
        };
        let ParsedKey { id, scheme, material, slow, last_four } = parsed?;
        Some(Key {
            id,
            user: 0,
            application: None,
            label: row.label.clone(),
            prefix: String::new(),
            last_four,
            digest: self.accounts.0.pepper.digest_kept(scheme, &material),
            scheme,
            slow,
            former_digest: None,
            universal: false,
            scopes: row.scopes.clone(),
            created: self.accounts.0.clock.now(),
            expires: row.expires,
            revoked: None,
            rotated: None,
            networks: Vec::new(),
            rate_limit: None,
            credits: None,
        })
    }

    fn parse_digest(&mut self, row: &KeyRow, scheme: Scheme) -> Option<ParsedKey> {
        if scheme == Scheme::HmacSha256 && !self.accounts.0.pepper.has_hmac_key() {
            let message = "Keyward has no HMAC key to check these digests with.";
            let fix = "Write the other system's HMAC key to a file, and set store.hmac_key_file in \
                       the configuration.";
            self.add_violation(row, "key", message, fix);
            return None;
        }
        let material = parse_hex(row.key.expose());
        if material.is_none() {
            let fix = "Write the digest's 64 hexadecimal digits, or choose another --digest.";
            self.add_violation(row, "key", "This is not a digest in the chosen format.", fix);
        }
        material.map(|material| ParsedKey { material, ..ParsedKey::new(self.new_id(), scheme) })
    }

    fn parse_slow_digest(&mut self, row: &KeyRow, format: DigestFormat) -> Option<ParsedKey> {
        match format.parse(row.key.expose()) {
            Ok(digest) => {
                let material = digest.phc().as_bytes().to_vec();
                Some(ParsedKey {
                    material,
                    slow: Some(digest),
                    ..ParsedKey::new(self.new_id(), Scheme::Slow)
                })
            }
            Err(message) => {
                self.add_violation(
                    row,
                    "key",
                    message,
                    "Copy the unchanged digest, or remove the row.",
                );
                None
            }
        }
    }

    fn parse_text(&mut self, row: &KeyRow) -> Option<ParsedKey> {
        let text = row.key.expose();
        if let Some((message, fix)) = key_problem(text) {
            self.add_violation(row, "key", &message, fix);
            return None;
        }
        // A key of Keyward keeps its id, because its text contains the id.
        let (id, scheme) = match KeyText::shape(text) {
            KeyShape::Ours(id) => (id, Scheme::Own),
            KeyShape::Foreign => (self.new_id(), Scheme::Text),
            KeyShape::Damaged => {
                let fix = "The key may be cut off or mistyped. Remove the row, and give the user a \
                           new key.";
                self.add_violation(row, "key", "This is a damaged key of Keyward.", fix);
                return None;
            }
        };
        let is_long = text.len() >= MIN_LENGTH_FOR_LAST_FOUR && text.is_ascii();
        let last_four = if is_long { text[text.len() - 4..].to_owned() } else { String::new() };
        Some(ParsedKey {
            material: text.as_bytes().to_vec(),
            last_four,
            ..ParsedKey::new(id, scheme)
        })
    }

    fn new_id(&mut self) -> KeyId {
        self.last_id = self.last_id.wrapping_add(1);
        KeyId::from_number(self.last_id)
    }

    /// The uid of the row's user. An unknown user is created if the import allows it. `None` means
    /// that a violation was added.
    fn owner(&mut self, row: &KeyRow) -> Option<u64> {
        if let Some(user) = self.accounts.directory().user_by_name(&row.username) {
            let policy = self.accounts.directory().policy();
            let is_admin = user.roles(&policy.roles).is_admin;
            if self.accounts.admin_only_if(is_admin).is_err() {
                let message = "Only an administrator can import keys of administrators.";
                self.add_violation(row, "username", message, "Remove the row.");
                return None;
            }
            return Some(user.uid);
        }
        let folded = fold(&row.username);
        if let Some(user) = self.new_users.get(&folded) {
            return Some(user.uid);
        }
        if self.import.unknown_users == UnknownUsers::Reject {
            let fix = "Create the user first, or add --create-users.";
            self.add_violation(row, "username", "There is no user with this name.", fix);
            return None;
        }
        self.create_user(row, folded)
    }

    fn create_user(&mut self, row: &KeyRow, folded: String) -> Option<u64> {
        if let Some(damage) = spreadsheet_damage(&row.username) {
            self.add_violation(row, "username", damage, "Export the users again.");
            return None;
        }
        let new = crate::accounts::NewUser {
            name: row.username.clone(),
            status: true,
            ..crate::accounts::NewUser::default()
        };
        let mut user = self.accounts.draft_user(new);
        let problems = check_user(self.accounts, &user);
        if !problems.is_empty() {
            for problem in problems {
                self.add_violation(row, "username", &problem.message, &problem.fix);
            }
            return None;
        }
        user.uid = match self.import.mode {
            Mode::Live => self.accounts.directory().next_uid(),
            // A dry run must not use up a uid, so it takes the largest numbers.
            Mode::DryRun => u64::MAX - self.new_users.len() as u64,
        };
        self.batch.expect(Table::Users, table::user(user.uid), Expected::Missing);
        self.batch.put(Table::Users, table::user(user.uid), encode(&user));
        claim_name_and_mail(&mut self.batch, &user);
        self.imported.users += 1;
        let uid = user.uid;
        self.new_users.insert(folded, user);
        self.new_uids.insert(uid);
        Some(uid)
    }

    /// The uid of the user who has this key in the store or in this batch. `None` means that the
    /// key is new.
    fn existing_owner(&self, key: &Key) -> Result<Option<u64>, AccountError> {
        if let Some(uid) = self.owners.get(key.digest.as_bytes()) {
            return Ok(Some(*uid));
        }
        let id = match key.scheme {
            Scheme::Own => Some(key.id),
            // The Directory, which is updated after each commit, may not have the newest keys. That
            // is safe, because the commit checks again that no other key has the digest.
            scheme if scheme != Scheme::Slow => {
                let id = self.accounts.directory().foreign_key_id(&key.digest);
                let key = id.and_then(|id| self.accounts.directory().key(id));
                return Ok(key.map(|key| key.user));
            }
            _ => {
                let digest = key.digest.as_bytes();
                let stored = self.accounts.store().get(Table::Foreign, digest)?;
                stored.map(|stored| stored.read::<KeyId>(Table::Foreign, digest)).transpose()?
            }
        };
        let Some(id) = id else { return Ok(None) };
        Ok(self.accounts.key(id)?.map(|existing| existing.record.user))
    }

    fn put(&mut self, row: &KeyRow, key: &Key) -> Result<(), AccountError> {
        let now = self.accounts.0.clock.now();
        let mut problems = check_key(self.accounts, key, now);
        problems.extend(check_scopes(self.accounts, key));
        for problem in problems {
            self.add_violation(row, &problem.location, &problem.message, &problem.fix);
        }
        let count = match self.key_counts.get(&key.user) {
            Some(count) => *count,
            // A new user has no keys in the store. The commit expects that the user does not exist.
            None if self.new_uids.contains(&key.user) => 0,
            None => {
                let (count, newest) = self.accounts.keys_in_force(key.user)?;
                let expected = Expected::Newest(newest);
                self.batch.expect(Table::Owners, table::user(key.user), expected);
                self.batch.expect(Table::Users, table::user(key.user), Expected::Present);
                count
            }
        };
        if count >= self.accounts.0.keys_per_user {
            let message = "The user would have too many keys.";
            self.add_violation(
                row,
                "username",
                message,
                "Raise limits.keys_per_user in the configuration.",
            );
        }
        self.key_counts.insert(key.user, count + usize::from(key.is_in_force(now)));
        self.count_slow(row, key);
        self.owners.insert(*key.digest.as_bytes(), key.user);
        put_new_key(&mut self.batch, key);
        self.new_keys.push((key.clone(), row.username.clone()));
        self.imported.keys += 1;
        Ok(())
    }
}

impl KeyImportDraft<'_> {
    /// Limits the number of a user's keys that are slow to check, because a request with such a key
    /// checks all of the user's slow keys.
    fn count_slow(&mut self, row: &KeyRow, key: &Key) {
        if key.scheme != Scheme::Slow {
            return;
        }
        let accounts = self.accounts;
        let count =
            self.slow_counts.entry(key.user).or_insert_with(|| accounts.slow_in_force(key.user));
        *count += 1;
        if *count > MOST_SLOW_KEYS {
            let message =
                format!("A user may have at most {MOST_SLOW_KEYS} keys that are slow to check.");
            self.add_violation(row, "key", &message, "Give the user a new key of Keyward instead.");
        }
    }
}

impl Accounts {
    /// The number of a user's slow keys that are neither revoked nor expired.
    pub(in crate::accounts) fn slow_in_force(&self, uid: u64) -> usize {
        let (directory, now) = (&self.0.directory, self.0.clock.now());
        let ids = directory.slow_keys(Some(uid)).map(|slow| slow.ids).unwrap_or_default();
        let keys = ids.into_iter().filter_map(|id| directory.key(id));
        keys.filter(|key| !key.is_revoked && !key.is_expired(now)).count()
    }
}

/// The 32 bytes of a digest in 64 hexadecimal digits.
fn parse_hex(text: &str) -> Option<Vec<u8>> {
    crate::model::Digest::from_hex(text.as_bytes()).map(|digest| digest.as_bytes().to_vec())
}
