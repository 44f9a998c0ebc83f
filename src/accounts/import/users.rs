//! Imports users with the password digests of other systems. A batch is imported completely or not
//! at all.
//!
//! Importing a batch again changes nothing, because a user who has a password keeps that password.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::{
    accounts::{
        AccountError, DigestFormat, NewUser, Writer,
        events::NewRecord,
        record_list,
        rules::check_user,
        users::claim_name_and_mail,
        writer::{Attempt, PendingCommit},
    },
    model::{Act, Mode, PasswordDigest, Secret, User, Violation, fold},
    store::{Batch, Expected, Table, encode, table},
};

/// A batch of users to import.
#[derive(Debug)]
pub struct UserImport {
    /// The roles of new users.
    pub roles: Vec<String>,
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
    /// The password digest, in the format of the other system.
    pub digest: Secret,
}

/// The result of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ImportedUsers {
    /// The number of new users.
    pub users: usize,
    /// The number of existing users who got a password.
    pub passwords: usize,
    /// The number of existing users who kept their password.
    pub kept: usize,
}

/// The changes of an import while they are collected.
struct UserImportDraft<'a> {
    accounts: &'a Writer,
    import: &'a UserImport,
    batch: Batch,
    seen: HashSet<String>,
    imported: ImportedUsers,
    violations: Vec<Violation>,
    new_users: Vec<User>,
    /// The uid and the name of each existing user who got a password.
    passwords: Vec<Value>,
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
            let (batch, imported, new_users, passwords) = self.draft_users(import)?;
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
            let pending = PendingCommit::new(batch, act, move |_| imported);
            Ok(pending.with_entries(entries).with_webhooks(webhooks).into())
        };
        self.update_async(attempt).await
    }

    /// Returns the writes for the store, the counts of the import, the new users, and the existing
    /// users who got a password.
    fn draft_users(
        &self,
        import: &UserImport,
    ) -> Result<(Batch, ImportedUsers, Vec<User>, Vec<Value>), AccountError> {
        let mut draft = UserImportDraft {
            accounts: self,
            import,
            batch: Batch::new(),
            seen: HashSet::new(),
            imported: ImportedUsers::default(),
            violations: Vec::new(),
            new_users: Vec::new(),
            passwords: Vec::new(),
        };
        for row in &import.rows {
            draft.add(row)?;
        }
        if !draft.violations.is_empty() {
            return Err(AccountError::Invalid(draft.violations));
        }
        Ok((draft.batch, draft.imported, draft.new_users, draft.passwords))
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
        let Some(password) = self.password(row) else { return Ok(()) };
        match self.accounts.directory().user_by_name(&row.username) {
            Some(user) => self.update_existing(row, user.uid, password),
            None => {
                self.create(row, password);
                Ok(())
            }
        }
    }

    /// Parses the digest of a row. `None` means that a violation was added.
    fn password(&mut self, row: &UserRow) -> Option<PasswordDigest> {
        let digest = row.digest.expose();
        let parsed = match DigestFormat::detect(digest) {
            Some(format) => format.parse(digest),
            None => Err("This is not a digest in a supported format."),
        };
        let record = |message| {
            let fix = "bcrypt, Argon2, $5$, $6$, $apr1$ and {SHA} can be imported. Remove the \
                       line, and give the user a new password.";
            self.add_violation(row, "password_digest", message, fix);
        };
        parsed.map_err(record).ok()
    }

    /// Sets the password of an existing user who has none.
    fn update_existing(
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

    fn create(&mut self, row: &UserRow, password: PasswordDigest) {
        let new = NewUser {
            name: row.username.clone(),
            status: true,
            roles: self.import.roles.clone(),
            password: Some(password),
            ..NewUser::default()
        };
        let mut user = self.accounts.draft_user(new);
        let problems = check_user(self.accounts, &user);
        if !problems.is_empty() {
            for problem in problems {
                self.add_violation(row, "username", &problem.message, &problem.fix);
            }
            return;
        }
        if self.import.mode == Mode::Live {
            user.uid = self.accounts.directory().next_uid();
            self.batch.expect(Table::Users, table::user(user.uid), Expected::Missing);
            self.batch.put(Table::Users, table::user(user.uid), encode(&user));
            claim_name_and_mail(&mut self.batch, &user, None);
        }
        self.imported.users += 1;
        self.new_users.push(user);
    }
}
