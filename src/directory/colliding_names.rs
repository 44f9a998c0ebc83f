//! Users of old stores whose names differ only in their spelling: names that were different before
//! Keyward compared them in the form NFKC_Casefold, and that are equal now.
//!
//! The user with the lowest number is found by every spelling of the name. The others are found
//! only by the exact spelling in their records.

use std::sync::Arc;

use super::{CachedUser, Directory, case_fold::Folded, entries::UserByName};

impl Directory {
    /// The user with this name, compared case-insensitively.
    pub fn user_by_name(&self, name: &str) -> Option<Arc<CachedUser>> {
        if !self.colliding.is_empty()
            && let Some(user) = self.colliding.pin().get(name)
        {
            return Some(user.clone());
        }
        self.names.get(Folded(name), |user| user.0.clone())
    }

    /// The users who are found only by the exact spelling of their names, by their numbers.
    pub fn colliding_users(&self) -> Vec<Arc<CachedUser>> {
        let mut users: Vec<_> = self.colliding.pin().values().cloned().collect();
        users.sort_by_key(|user| user.uid);
        users
    }

    /// Makes a user known by name. The name may belong to another user for a moment, while users
    /// exchange their names.
    pub(super) fn put_name(&self, user: &Arc<CachedUser>) {
        let holder = self.names.get(Folded(&user.name), |held| held.0.uid);
        if holder.is_some_and(|uid| uid < user.uid) {
            self.colliding.pin().insert(user.name.to_string(), user.clone());
            return;
        }
        if let Some(UserByName(held)) = self.names.insert(UserByName(user.clone()))
            && held.uid != user.uid
        {
            self.colliding.pin().insert(held.name.to_string(), held);
        }
    }

    /// Removes the name that a user had, unless another user has this name by now.
    pub(super) fn remove_name(&self, user: &CachedUser) {
        let removed = self.names.remove_if(Folded(&user.name), |entry| entry.0.uid == user.uid);
        if self.colliding.is_empty() {
            return;
        }
        self.forget_spelling(user);
        if removed.is_some()
            && let Some(next) = self.first_colliding(&user.name)
        {
            self.names.insert(UserByName(next.clone()));
            self.colliding.pin().remove(&*next.name);
        }
    }

    /// Forgets the exact spelling that a user's name had.
    pub(super) fn forget_spelling(&self, user: &CachedUser) {
        let colliding = self.colliding.pin();
        if colliding.get(&*user.name).is_some_and(|held| held.uid == user.uid) {
            colliding.remove(&*user.name);
        }
    }

    /// The user with the lowest number of those who are found only by the exact spelling of this
    /// name.
    pub fn first_colliding(&self, name: &str) -> Option<Arc<CachedUser>> {
        if self.colliding.is_empty() {
            return None;
        }
        self.colliding_users().into_iter().find(|user| Folded(&user.name) == Folded(name))
    }

    /// Finds the users whose names collide after all users were loaded.
    pub(super) fn separate_colliding_names(&self) {
        if self.names.len() == self.users.len() {
            return;
        }
        let mut hidden = Vec::new();
        self.users.each(|user| {
            let holder = self.names.get(Folded(&user.0.name), |held| held.0.uid);
            if holder.is_some_and(|uid| uid != user.0.uid) {
                hidden.push(user.0.clone());
            }
        });
        for user in hidden {
            self.put_name(&user);
        }
    }
}
