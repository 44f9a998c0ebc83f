//! Users of other systems with their passwords' digests, some hundreds at a time: all of a part are imported, or none.
//!
//! A part that is imported again changes nothing: whoever has a password keeps it.

use std::collections::HashSet;

use crate::{
    accounts::{
        AccountError, DigestFormat, NewUser, Writer,
        events::NewRecord,
        rules::check_user,
        users::claim_name_and_mail,
        writer::{Attempt, PendingCommit},
    },
    model::{Act, Mode, PasswordDigest, Secret, User, Violation, fold},
    store::{Batch, Expected, Table, encode, table},
};

/// What is to be imported.
#[derive(Debug)]
pub struct ImportUsers {
    /// The roles of users that are new.
    pub roles: Vec<String>,
    /// Whether it is written, or only looked at.
    pub mode: Mode,
    /// The users.
    pub rows: Vec<UserRow>,
}

/// A user of another system.
#[derive(Debug)]
pub struct UserRow {
    /// Where it stood, for whoever has to mend it.
    pub line: u64,
    /// The user's name.
    pub username: String,
    /// The password's digest, in the words of those who made it.
    pub digest: Secret,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ImportedUsers {
    /// Users that are new.
    pub users: usize,
    /// Users who were there, and have a password now.
    pub passwords: usize,
    /// Users who had a password, and keep it.
    pub kept: usize,
}

/// A part on its way into a batch.
struct Draft<'a> {
    accounts: &'a Writer,
    import: &'a ImportUsers,
    batch: Batch,
    seen: HashSet<String>,
    done: ImportedUsers,
    violations: Vec<Violation>,
    made: Vec<User>,
}

impl Writer {
    /// Imports users.
    ///
    /// # Errors
    /// Rows are not in order: each is named by its line. Then nobody is imported.
    pub async fn import_users(&self, import: &ImportUsers) -> Result<ImportedUsers, AccountError> {
        self.admin_only_if(self.has_admin_role(&import.roles))?;
        let attempt = || async move {
            let (batch, done, made) = self.draft_users(import)?;
            let new: Vec<_> = made.iter().map(NewRecord::User).collect();
            let webhooks = self.approve(&new, import.mode).await?;
            drop(new);
            if import.mode == Mode::DryRun || batch.writes.is_empty() {
                return Ok(Attempt::Unchanged(done));
            }
            let known = serde_json::json!({ "imported": done, "roles": import.roles });
            let act = Act::other("user.import", "user", known);
            Ok(PendingCommit::new(batch, act, move |_| done).with_webhooks(webhooks).into())
        };
        self.update_async(attempt).await
    }

    /// What is to be written, how much it is, and the users who are new.
    fn draft_users(
        &self,
        import: &ImportUsers,
    ) -> Result<(Batch, ImportedUsers, Vec<User>), AccountError> {
        let mut draft = Draft {
            accounts: self,
            import,
            batch: Batch::new(),
            seen: HashSet::new(),
            done: ImportedUsers::default(),
            violations: Vec::new(),
            made: Vec::new(),
        };
        for row in &import.rows {
            draft.add(row)?;
        }
        match draft.violations.is_empty() {
            true => Ok((draft.batch, draft.done, draft.made)),
            false => Err(AccountError::Invalid(draft.violations)),
        }
    }
}

impl Draft<'_> {
    fn wrong(&mut self, row: &UserRow, field: &str, message: &str, fix: &str) {
        let location = format!("line {}.{field}", row.line);
        self.violations.push(Violation::new(location, message, fix));
    }

    fn add(&mut self, row: &UserRow) -> Result<(), AccountError> {
        if !self.seen.insert(fold(&row.username)) {
            self.wrong(
                row,
                "username",
                "This user has another line above.",
                "Take one of them out.",
            );
            return Ok(());
        }
        let Some(password) = self.password(row) else { return Ok(()) };
        match self.accounts.directory().user_by_name(&row.username) {
            Some(member) => self.meet(row, member.uid, password),
            None => {
                self.make(row, password);
                Ok(())
            }
        }
    }

    fn password(&mut self, row: &UserRow) -> Option<PasswordDigest> {
        let digest = row.digest.expose();
        let taken = match DigestFormat::detect(digest) {
            Some(format) => format.parse(digest),
            None => Err("This is no digest of a kind that can be checked."),
        };
        taken.map_err(|said| {
            let fix = "bcrypt, Argon2, $5$, $6$, $apr1$ and {SHA} can be imported. Take the line out, and give the user a new password.";
            self.wrong(row, "password_digest", said, fix);
        }).ok()
    }

    /// A user who is there.
    fn meet(
        &mut self,
        row: &UserRow,
        uid: u64,
        password: PasswordDigest,
    ) -> Result<(), AccountError> {
        // One that has just gone is made anew at the next try.
        let Some(before) = self.accounts.user(uid)? else { return Err(AccountError::contended()) };
        let is_admin = self.accounts.has_admin_role(&before.record.roles);
        if self.accounts.admin_only_if(is_admin).is_err() {
            let said = "Only an administrator can import passwords of administrators.";
            self.wrong(row, "username", said, "Take the line out.");
            return Ok(());
        }
        if before.record.password.is_some() {
            self.done.kept += 1;
            return Ok(());
        }
        let mut user = before.record;
        user.password = Some(password);
        user.changed = self.accounts.0.clock.now();
        self.batch.expect(Table::Users, table::user(uid), Expected::Revision(before.revision));
        self.batch.put(Table::Users, table::user(uid), encode(&user));
        self.done.passwords += 1;
        Ok(())
    }

    fn make(&mut self, row: &UserRow, password: PasswordDigest) {
        let new = NewUser {
            name: row.username.clone(),
            status: true,
            roles: self.import.roles.clone(),
            password: Some(password),
            ..NewUser::default()
        };
        let mut user: User = self.accounts.draft_user(new);
        let problems = check_user(self.accounts, &user);
        if !problems.is_empty() {
            for problem in problems {
                self.wrong(row, "username", &problem.message, &problem.fix);
            }
            return;
        }
        if self.import.mode == Mode::Live {
            user.uid = self.accounts.directory().next_uid();
            self.batch.expect(Table::Users, table::user(user.uid), Expected::Missing);
            self.batch.put(Table::Users, table::user(user.uid), encode(&user));
            claim_name_and_mail(&mut self.batch, &user, None);
        }
        self.done.users += 1;
        self.made.push(user);
    }
}
