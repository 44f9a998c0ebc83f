//! Imports users with the password digests of other systems. A batch is imported completely or not
//! at all.
//!
//! Importing a batch again changes nothing, because a user who has a password keeps that password.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{
    clear_text::spreadsheet_damage,
    profile::{ExistingUsers, MAX_UID, MovedUser, UserProfile},
};
use crate::{
    accounts::{
        AccountError, DigestFormat, Writer,
        events::NewRecord,
        record_list,
        users::{names::claim_name_and_mail, normalize_mail, normalize_roles},
        writer::{Attempt, PendingCommit},
    },
    model::{Act, Mode, PasswordDigest, Secret, User, Violation, fold},
    store::{Batch, Expected, Table, encode, table},
};

/// A batch of users to import.
#[derive(Debug)]
pub struct UserImport {
    /// The roles of new users, beside those of the rows.
    pub roles: Vec<String>,
    /// The treatment of users who exist already.
    pub existing: ExistingUsers,
    /// A user who cannot keep the uid gets one above this number.
    pub largest_uid: u64,
    /// Whether the import writes the batch or only checks it.
    pub mode: Mode,
    /// The users.
    pub rows: Vec<UserRow>,
}

/// A user of another system.
#[derive(Debug)]
pub struct UserRow {
    /// The line number of the user in the imported file. Each violation of the row contains it.
    pub line: u64,
    /// The user's name.
    pub username: String,
    /// The password digest, in the format of the other system. `None` means that the user has no
    /// password.
    pub digest: Option<Secret>,
    /// The other fields.
    pub profile: UserProfile,
}

/// The result of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ImportedUsers {
    /// The number of new users.
    pub users: usize,
    /// The number of existing users who got a password.
    pub passwords: usize,
    /// The number of existing users who kept their password.
    pub kept: usize,
    /// The number of users whom an earlier import has created, and who stay as they are.
    #[serde(skip_serializing_if = "is_zero")]
    pub known: usize,
    /// The number of existing users who got the fields of their rows.
    #[serde(skip_serializing_if = "is_zero")]
    pub updated: usize,
    /// The lines of users whose names other users have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub existing: Vec<u64>,
    /// The users who could not keep their uids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<MovedUser>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The changes of an import while they are collected.
struct UserImportDraft<'a> {
    accounts: &'a Writer,
    import: &'a UserImport,
    batch: Batch,
    seen: HashSet<String>,
    seen_uids: HashSet<u64>,
    seen_mails: HashSet<String>,
    imported: ImportedUsers,
    violations: Vec<Violation>,
    new_users: Vec<User>,
    /// The uid and the name of each existing user who got a password.
    passwords: Vec<Value>,
    /// The uid and the name of each existing user who was updated.
    updated: Vec<Value>,
}

impl Writer {
    /// Imports users.
    ///
    /// # Errors
    /// A row is invalid. Each violation has the line number of its row, and nothing is imported.
    pub async fn import_users(&self, import: &UserImport) -> Result<ImportedUsers, AccountError> {
        self.require_passwords()?;
        self.admin_only_if(self.has_admin_role(&import.roles))?;
        self.authority().check_granted_roles(0, &[], &import.roles, self)?;
        let attempt = || async move {
            if import.mode == Mode::Live {
                self.directory().reserve_uids(import.largest_uid.min(MAX_UID));
            }
            let draft = self.draft_users(import)?;
            let UserImportDraft { batch, imported, new_users, passwords, updated, .. } = draft;
            let new: Vec<_> = new_users.iter().map(NewRecord::User).collect();
            let webhooks = self.approve(&new, import.mode).await?;
            drop(new);
            if import.mode == Mode::DryRun || batch.writes.is_empty() {
                return Ok(Attempt::Unchanged(imported));
            }
            let details = json!({ "imported": imported, "roles": import.roles });
            let act = Act::other("user.import", "user", details);
            let users = new_users.iter().map(|user| json!([user.uid, user.name])).collect();
            let mut entries = record_list("user.imported", "user", "users", users);
            let given = record_list("user.password_imported", "user", "users", passwords);
            entries.extend(given);
            entries.extend(record_list("user.import_updated", "user", "users", updated));
            let pending = PendingCommit::new(batch, act, move |_| imported);
            Ok(pending.with_entries(entries).with_webhooks(webhooks).into())
        };
        self.update_async(attempt).await
    }

    fn draft_users<'a>(
        &'a self,
        import: &'a UserImport,
    ) -> Result<UserImportDraft<'a>, AccountError> {
        let mut draft = UserImportDraft {
            accounts: self,
            import,
            batch: Batch::new(),
            seen: HashSet::new(),
            seen_uids: HashSet::new(),
            seen_mails: HashSet::new(),
            imported: ImportedUsers::default(),
            violations: Vec::new(),
            new_users: Vec::new(),
            passwords: Vec::new(),
            updated: Vec::new(),
        };
        for row in &import.rows {
            draft.add(row)?;
        }
        if !draft.violations.is_empty() {
            return Err(AccountError::Invalid(draft.violations));
        }
        Ok(draft)
    }
}

impl UserImportDraft<'_> {
    fn add_violation(&mut self, row: &UserRow, field: &str, message: &str, fix: &str) {
        let location = format!("line {}.{field}", row.line);
        self.violations.push(Violation::new(location, message, fix));
    }

    fn add(&mut self, row: &UserRow) -> Result<(), AccountError> {
        if !self.seen.insert(fold(&row.username)) {
            self.add_violation(
                row,
                "username",
                "An earlier line has the same user.",
                "Remove one of the two lines.",
            );
            return Ok(());
        }
        if let Some(uid) = row.profile.uid
            && !self.seen_uids.insert(uid)
        {
            let fix = "Remove one of the two lines.";
            self.add_violation(row, "uid", "An earlier line has the same uid.", fix);
            return Ok(());
        }
        let mail = row.profile.mail.as_deref().map(fold);
        if mail.is_some_and(|mail| !self.seen_mails.insert(mail)) {
            let fix = "Change or remove one of the two addresses.";
            self.add_violation(row, "mail", "An earlier line has the same mail address.", fix);
            return Ok(());
        }
        let password = match &row.digest {
            Some(digest) => match self.password(row, digest.expose()) {
                Some(password) => Some(password),
                None => return Ok(()),
            },
            None => None,
        };
        let existing = self.accounts.directory().user_by_name(&row.username);
        match (existing, self.import.existing) {
            (None, _) => self.create(row, password),
            (Some(user), ExistingUsers::AddPassword) => match password {
                Some(password) => self.add_password(row, user.uid, password),
                None => Ok(()),
            },
            (Some(user), _) => self.keep_or_update(row, user.uid, password),
        }
    }

    /// Parses the digest of a row. `None` means that a violation was added.
    fn password(&mut self, row: &UserRow, digest: &str) -> Option<PasswordDigest> {
        let parsed = match DigestFormat::detect(digest) {
            Some(format) => format.parse(digest),
            None => Err("This is not a digest in a supported format."),
        };
        let record = |message| {
            let fix = "bcrypt, Argon2, $5$, $6$, $apr1$, {SHA}, and Drupal's $S$, $H$ and $P$ can \
                       be imported. Remove the line, and give the user a new password.";
            self.add_violation(row, "password_digest", message, fix);
        };
        parsed.map_err(record).ok()
    }

    /// Sets the password of an existing user who has none.
    fn add_password(
        &mut self,
        row: &UserRow,
        uid: u64,
        password: PasswordDigest,
    ) -> Result<(), AccountError> {
        // `None` means that another writer deleted the user after the look-up by name. If the
        // import is repeated, it creates the user again.
        let Some(before) = self.accounts.user(uid)? else { return Err(AccountError::contended()) };
        if self.accounts.require_change_of(&before.record).is_err() {
            let message = "Only an administrator can import passwords of administrators.";
            self.add_violation(row, "username", message, "Remove the line.");
            return Ok(());
        }
        if before.record.password.is_some() {
            self.imported.kept += 1;
            return Ok(());
        }
        let mut user = before.record;
        user.password = Some(password);
        user.changed = self.accounts.0.clock.now();
        self.batch.expect(Table::Users, table::user(uid), Expected::Revision(before.revision));
        self.batch.put(Table::Users, table::user(uid), encode(&user));
        self.passwords.push(json!([uid, user.name]));
        self.imported.passwords += 1;
        Ok(())
    }

    /// Counts an existing user and, if the import updates users, sets the fields of the row.
    fn keep_or_update(
        &mut self,
        row: &UserRow,
        uid: u64,
        password: Option<PasswordDigest>,
    ) -> Result<(), AccountError> {
        let Some(before) = self.accounts.user(uid)? else { return Err(AccountError::contended()) };
        let is_same = row.profile.is_same(&before.record);
        if self.import.existing == ExistingUsers::Keep {
            if is_same {
                self.imported.known += 1;
            } else {
                self.imported.existing.push(row.line);
            }
            return Ok(());
        }
        let mut user = before.record.clone();
        row.profile.update(&mut user);
        user.password = user.password.or(password);
        normalize_roles(&mut user.roles);
        normalize_mail(&mut user);
        if user == before.record {
            self.imported.known += 1;
            return Ok(());
        }
        if let Err(refused) =
            self.accounts.authority().check_user(Some(&before.record), &user, self.accounts)
        {
            self.add_violation(row, "username", &refused.to_string(), "Remove the line.");
            return Ok(());
        }
        let problems = self.accounts.user_violations(&user)?;
        if self.add_problems(row, &problems) {
            return Ok(());
        }
        let remaining =
            self.accounts.require_remaining_admin(&before.record, Some(&user), &mut self.batch);
        if let Err(refused) = remaining {
            self.add_violation(row, "username", &refused.to_string(), "Remove the line.");
            return Ok(());
        }
        user.changed = self.accounts.0.clock.now();
        self.batch.expect(Table::Users, table::user(uid), Expected::Revision(before.revision));
        self.batch.put(Table::Users, table::user(uid), encode(&user));
        self.accounts.move_name_and_mail(&mut self.batch, &user, &before.record)?;
        self.updated.push(json!([uid, user.name]));
        self.imported.updated += 1;
        Ok(())
    }

    fn create(
        &mut self,
        row: &UserRow,
        password: Option<PasswordDigest>,
    ) -> Result<(), AccountError> {
        if let Some(damage) = spreadsheet_damage(&row.username) {
            self.add_violation(row, "username", damage, "Export the users again.");
            return Ok(());
        }
        let mut new = row.profile.new_user(&row.username);
        new.roles.extend(self.import.roles.iter().cloned());
        new.password = password;
        let mut user = self.accounts.draft_user(new);
        row.profile.complete(&mut user);
        normalize_roles(&mut user.roles);
        normalize_mail(&mut user);
        self.accounts.authority().check_user(None, &user, self.accounts)?;
        let problems = self.accounts.user_violations(&user)?;
        if self.add_problems(row, &problems) {
            return Ok(());
        }
        let kept = match row.profile.uid {
            Some(uid) if self.is_free(uid)? => Some(uid),
            _ => None,
        };
        if self.import.mode == Mode::Live {
            user.uid = kept.unwrap_or_else(|| self.accounts.directory().next_uid());
            self.batch.expect(Table::Users, table::user(user.uid), Expected::Missing);
            self.batch.put(Table::Users, table::user(user.uid), encode(&user));
            claim_name_and_mail(&mut self.batch, &user);
        }
        if let Some(from) = row.profile.uid.filter(|_| kept.is_none()) {
            let to = Some(user.uid).filter(|uid| *uid != 0);
            self.imported.moved.push(MovedUser { line: row.line, from, to });
        }
        self.imported.users += 1;
        self.new_users.push(user);
        Ok(())
    }

    /// Adds the violations of a user's record to those of the import. `true` means that there are
    /// any.
    fn add_problems(&mut self, row: &UserRow, problems: &[Violation]) -> bool {
        for Violation { location, message, fix } in problems {
            let field = if location == "name" { "username" } else { location };
            self.add_violation(row, field, message, fix);
        }
        !problems.is_empty()
    }

    fn is_free(&self, uid: u64) -> Result<bool, AccountError> {
        Ok((1..=MAX_UID).contains(&uid) && self.accounts.user(uid)?.is_none())
    }
}
