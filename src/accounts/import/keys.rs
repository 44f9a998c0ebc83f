//! Keys of other systems, some hundreds at a time: all of a part are imported, or none.
//!
//! A part that is imported again changes nothing, so an import that was broken off is simply repeated.

use std::collections::{HashMap, HashSet};

use crate::{
    accounts::{
        AccountError, Accounts, DigestFormat, Writer,
        events::NewRecord,
        keys::put_new_key,
        rules::{check_key, check_scopes, check_user},
        users::claim_name_and_mail,
        writer::{Attempt, PendingCommit},
    },
    model::{
        Act, Key, KeyId, KeyShape, KeyText, MOST_SLOW_KEYS, Mode, PasswordDigest, Scheme, Secret,
        Timestamp, User, Violation, fold,
    },
    store::{Batch, Expected, Table, encode, table},
};

/// The shortest text that is a key and not a guess.
const SHORTEST: usize = 8;
/// The longest text.
const LONGEST: usize = 512;
/// Of a text this long, the last four characters may be shown.
const SHOWN: usize = 20;

/// What is to be imported.
#[derive(Debug)]
pub struct Import {
    /// What the rows have of each key.
    pub digest: ImportDigest,
    /// What becomes of users that are not there.
    pub strangers: Strangers,
    /// Whether it is written, or only looked at.
    pub mode: Mode,
    /// The keys.
    pub rows: Vec<ImportRow>,
}

/// What becomes of users that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strangers {
    /// They are made.
    Made,
    /// Their rows are wrong.
    Refused,
}

/// What another system has of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportDigest {
    /// Their texts.
    Clear,
    /// Digests of this scheme, in hexadecimal digits.
    Fast(Scheme),
    /// Digests that are slow to check, in the words of those who made them.
    Slow(DigestFormat),
}

/// A key of another system.
#[derive(Debug)]
pub struct ImportRow {
    /// Where it stood, for whoever has to mend it.
    pub line: u64,
    /// The user's name.
    pub username: String,
    /// The text or the digest.
    pub key: Secret,
    /// What people call it.
    pub label: String,
    /// The first second in which it is refused.
    pub expires: Option<Timestamp>,
    /// The permissions that it may use; none: all of its user's.
    pub scopes: Option<Vec<String>>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Imported {
    /// Keys that are new.
    pub keys: usize,
    /// Users that are new.
    pub users: usize,
    /// Keys that were there already.
    pub known: usize,
}

/// A part on its way into a batch.
struct Draft<'a> {
    accounts: &'a Writer,
    import: &'a Import,
    batch: Batch,
    strangers: HashMap<String, User>,
    stranger_numbers: HashSet<u64>,
    /// The first of the ids that keys get here: neighbours lie together in the store, which makes writing many of them cheap.
    base: u64,
    /// How many keys each user has, with those of this part.
    held: HashMap<u64, usize>,
    /// How many keys each user has that are slow to check, with those of this part.
    slow: HashMap<u64, usize>,
    /// Whose key has this digest, in this part.
    owners: HashMap<[u8; 32], u64>,
    done: Imported,
    violations: Vec<Violation>,
    /// The keys that are new, each with its user's name.
    made: Vec<(Key, String)>,
}

/// What is known of a row's key.
struct Found {
    id: KeyId,
    scheme: Scheme,
    /// What the pepper goes over.
    kept: Vec<u8>,
    slow: Option<PasswordDigest>,
    last_four: String,
}

impl Found {
    fn new(id: KeyId, scheme: Scheme) -> Self {
        Self { id, scheme, kept: Vec::new(), slow: None, last_four: String::new() }
    }
}

impl Writer {
    /// Imports keys.
    ///
    /// # Errors
    /// Rows are not in order: each is named by its line. Then nothing is imported.
    pub async fn import_keys(&self, import: &Import) -> Result<Imported, AccountError> {
        let attempt = || async move {
            let mut draft = Draft::new(self, import);
            for row in &import.rows {
                draft.add(row)?;
            }
            if !draft.violations.is_empty() {
                return Err(AccountError::Invalid(draft.violations));
            }
            let users = draft.strangers.values().map(NewRecord::User);
            let keys = draft.made.iter().map(|(key, owner)| NewRecord::Key(key, owner));
            let new: Vec<_> = users.chain(keys).collect();
            let webhooks = self.approve(&new, import.mode).await?;
            drop(new);
            let Draft { batch, done, .. } = draft;
            if import.mode == Mode::DryRun || batch.writes.is_empty() {
                return Ok(Attempt::Unchanged(done));
            }
            let scheme = match import.digest {
                ImportDigest::Clear => Scheme::Text,
                ImportDigest::Fast(scheme) => scheme,
                ImportDigest::Slow(_) => Scheme::Slow,
            };
            let known = serde_json::json!({ "imported": done, "digest": scheme });
            let act = Act::other("key.import", "key", known);
            Ok(PendingCommit::new(batch, act, move |_| done).with_webhooks(webhooks).into())
        };
        self.update_async(attempt).await
    }
}

impl<'a> Draft<'a> {
    fn new(accounts: &'a Writer, import: &'a Import) -> Self {
        Self {
            accounts,
            import,
            batch: Batch::new(),
            strangers: HashMap::new(),
            stranger_numbers: HashSet::new(),
            base: u64::from_le_bytes(accounts.0.entropy.bytes()),
            held: HashMap::new(),
            slow: HashMap::new(),
            owners: HashMap::new(),
            done: Imported::default(),
            violations: Vec::new(),
            made: Vec::new(),
        }
    }

    fn wrong(&mut self, row: &ImportRow, field: &str, message: &str, fix: &str) {
        let location = format!("line {}.{field}", row.line);
        self.violations.push(Violation::new(location, message, fix));
    }

    fn add(&mut self, row: &ImportRow) -> Result<(), AccountError> {
        let Some(key) = self.key(row) else { return Ok(()) };
        let Some(uid) = self.owner(row) else { return Ok(()) };
        let key = Key { user: uid, ..key };
        match self.holder(&key)? {
            Some(user) if user == uid => self.done.known += 1,
            Some(_) => {
                let fix = "A key is one user's. Take one of the two rows out.";
                self.wrong(row, "key", "Another user has this key.", fix);
            }
            None => self.put(row, &key)?,
        }
        Ok(())
    }

    /// The key's record, without its user. None: what is wrong is told.
    fn key(&mut self, row: &ImportRow) -> Option<Key> {
        let found = match self.import.digest {
            ImportDigest::Clear => self.of_text(row),
            ImportDigest::Fast(scheme) => self.of_digest(row, scheme),
            ImportDigest::Slow(format) => self.of_slow(row, format),
        };
        let Found { id, scheme, kept, slow, last_four } = found?;
        Some(Key {
            id,
            user: 0,
            application: None,
            label: row.label.clone(),
            prefix: String::new(),
            last_four,
            digest: self.accounts.0.pepper.digest_kept(scheme, &kept),
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

    fn of_digest(&mut self, row: &ImportRow, scheme: Scheme) -> Option<Found> {
        if scheme == Scheme::HmacSha256 && !self.accounts.0.pepper.has_hmac_key() {
            let said = "Keyward has no key that these digests could be checked with.";
            let fix = "Put the other system's HMAC key into a file, and name it as store.hmac_key_file in the configuration.";
            self.wrong(row, "key", said, fix);
            return None;
        }
        let kept = unhex(row.key.expose());
        if kept.is_none() {
            let fix = "Give the digest's 64 hexadecimal digits, or name another --digest.";
            self.wrong(row, "key", "This is not a digest of this kind.", fix);
        }
        kept.map(|kept| Found { kept, ..Found::new(self.new_id(), scheme) })
    }

    fn of_slow(&mut self, row: &ImportRow, format: DigestFormat) -> Option<Found> {
        match format.parse(row.key.expose()) {
            Ok(digest) => {
                let kept = digest.phc().as_bytes().to_vec();
                Some(Found { kept, slow: Some(digest), ..Found::new(self.new_id(), Scheme::Slow) })
            }
            Err(said) => {
                self.wrong(
                    row,
                    "key",
                    said,
                    "Give the digest as it was made, or take the row out.",
                );
                None
            }
        }
    }

    fn of_text(&mut self, row: &ImportRow) -> Option<Found> {
        let text = row.key.expose();
        if !(SHORTEST..=LONGEST).contains(&text.len()) || text.chars().any(char::is_control) {
            let said = format!("A key has {SHORTEST} to {LONGEST} bytes of text on one line.");
            self.wrong(row, "key", &said, "Take the row out, and give the user a new key.");
            return None;
        }
        // One of ours keeps its id, by which it is found.
        let (id, scheme) = match KeyText::shape(text) {
            KeyShape::Ours(id) => (id, Scheme::Own),
            KeyShape::Foreign => (self.new_id(), Scheme::Text),
            KeyShape::Damaged => {
                let fix = "Was it cut or mistyped? Take the row out, and give the user a new key.";
                self.wrong(row, "key", "This key of Keyward's is not whole.", fix);
                return None;
            }
        };
        let is_long = text.len() >= SHOWN && text.is_ascii();
        let last_four = if is_long { text[text.len() - 4..].to_owned() } else { String::new() };
        Some(Found { kept: text.as_bytes().to_vec(), last_four, ..Found::new(id, scheme) })
    }

    fn new_id(&mut self) -> KeyId {
        self.base = self.base.wrapping_add(1);
        KeyId::from_number(self.base)
    }

    /// The number of the row's user, who may only just come to be. None: what is wrong is told.
    fn owner(&mut self, row: &ImportRow) -> Option<u64> {
        if let Some(member) = self.accounts.directory().user_by_name(&row.username) {
            let policy = self.accounts.directory().policy();
            let is_admin = member.roles(&policy.roles).is_admin;
            if self.accounts.admin_only_if(is_admin).is_err() {
                let said = "Only an administrator can import keys of administrators.";
                self.wrong(row, "username", said, "Take the row out.");
                return None;
            }
            return Some(member.uid);
        }
        let folded = fold(&row.username);
        if let Some(user) = self.strangers.get(&folded) {
            return Some(user.uid);
        }
        if self.import.strangers == Strangers::Refused {
            let fix = "Make the user first, or add --create-users.";
            self.wrong(row, "username", "There is no such user.", fix);
            return None;
        }
        self.stranger(row, folded)
    }

    fn stranger(&mut self, row: &ImportRow, folded: String) -> Option<u64> {
        let new = crate::accounts::NewUser {
            name: row.username.clone(),
            status: true,
            ..crate::accounts::NewUser::default()
        };
        let mut user = self.accounts.draft_user(new);
        let problems = check_user(self.accounts, &user);
        if !problems.is_empty() {
            for problem in problems {
                self.wrong(row, "username", &problem.message, &problem.fix);
            }
            return None;
        }
        user.uid = match self.import.mode {
            Mode::Live => self.accounts.directory().next_uid(),
            // Nobody gets this number.
            Mode::DryRun => u64::MAX - self.strangers.len() as u64,
        };
        self.batch.expect(Table::Users, table::user(user.uid), Expected::Missing);
        self.batch.put(Table::Users, table::user(user.uid), encode(&user));
        claim_name_and_mail(&mut self.batch, &user, None);
        self.done.users += 1;
        let uid = user.uid;
        self.strangers.insert(folded, user);
        self.stranger_numbers.insert(uid);
        Some(uid)
    }

    /// The user who has this key already, in the store or in this part.
    fn holder(&self, key: &Key) -> Result<Option<u64>, AccountError> {
        if let Some(uid) = self.owners.get(key.digest.as_bytes()) {
            return Ok(Some(*uid));
        }
        let id = match key.scheme {
            Scheme::Own => Some(key.id),
            // Whether it is still there when this part is written, the write looks.
            scheme if scheme != Scheme::Slow => {
                let found = self.accounts.directory().foreign_key_id(&key.digest);
                let key = found.and_then(|id| self.accounts.directory().key(id));
                return Ok(key.map(|key| key.user));
            }
            _ => {
                let at = key.digest.as_bytes();
                let stored = self.accounts.store().get(Table::Foreign, at)?;
                stored.map(|stored| stored.read::<KeyId>(Table::Foreign, at)).transpose()?
            }
        };
        let Some(id) = id else { return Ok(None) };
        Ok(self.accounts.key(id)?.map(|held| held.record.user))
    }

    fn put(&mut self, row: &ImportRow, key: &Key) -> Result<(), AccountError> {
        let now = self.accounts.0.clock.now();
        let mut problems = check_key(self.accounts, key, now);
        problems.extend(check_scopes(self.accounts, key));
        for problem in problems {
            self.wrong(row, &problem.location, &problem.message, &problem.fix);
        }
        let held = match self.held.get(&key.user) {
            Some(held) => *held,
            // Who comes with this part has none, and is expected not to be there.
            None if self.stranger_numbers.contains(&key.user) => 0,
            None => {
                let (held, newest) = self.accounts.keys_in_force(key.user)?;
                let expected = Expected::Newest(newest);
                self.batch.expect(Table::Owners, table::user(key.user), expected);
                self.batch.expect(Table::Users, table::user(key.user), Expected::Present);
                held
            }
        };
        if held >= self.accounts.0.keys_per_user {
            let said = "The user would have more keys than there may be.";
            self.wrong(row, "username", said, "Raise limits.keys_per_user in the configuration.");
        }
        self.held.insert(key.user, held + usize::from(key.is_in_force(now)));
        self.count_slow(row, key);
        self.owners.insert(*key.digest.as_bytes(), key.user);
        put_new_key(&mut self.batch, key);
        self.made.push((key.clone(), row.username.clone()));
        self.done.keys += 1;
        Ok(())
    }
}

impl Draft<'_> {
    /// Each of a user's keys that are slow to check is checked at each use of any.
    fn count_slow(&mut self, row: &ImportRow, key: &Key) {
        if key.scheme != Scheme::Slow {
            return;
        }
        let accounts = self.accounts;
        let count = self.slow.entry(key.user).or_insert_with(|| accounts.slow_in_force(key.user));
        *count += 1;
        if *count > MOST_SLOW_KEYS {
            let said = format!("A user has at most {MOST_SLOW_KEYS} keys that are slow to check.");
            self.wrong(row, "key", &said, "Give the user a new key, which is fast.");
        }
    }
}

impl Accounts {
    /// How many keys in force a user has that are slow to check.
    pub(in crate::accounts) fn slow_in_force(&self, uid: u64) -> usize {
        let (directory, now) = (&self.0.directory, self.0.clock.now());
        let ids = directory.slow_keys(Some(uid)).map(|slow| slow.ids).unwrap_or_default();
        let keys = ids.into_iter().filter_map(|id| directory.key(id));
        keys.filter(|key| !key.is_revoked && !key.is_expired(now)).count()
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    crate::model::Digest::from_hex(text.as_bytes()).map(|digest| digest.as_bytes().to_vec())
}
