//! The names of all users of a snapshot, in little memory.

use crate::store::{Snapshot, StoreError, Table, decode};

/// The names by uid. A user takes some 12 bytes and the name.
#[derive(Default)]
pub(super) struct NamesByUid {
    /// Sorted.
    uids: Vec<u64>,
    /// Where the name of each user ends in `names`.
    ends: Vec<u32>,
    names: String,
}

#[derive(serde::Deserialize)]
struct Fields {
    uid: u64,
    name: String,
}

impl NamesByUid {
    /// Reads the names. The keys of the table are in the order of the uids.
    pub fn read(snapshot: &dyn Snapshot) -> Result<Self, StoreError> {
        let mut names = Self::default();
        snapshot.each(Table::Users, &mut |key, record| {
            let Fields { uid, name } = decode(Table::Users, key, record.json)?;
            names.push(uid, &name)
        })?;
        Ok(names)
    }

    fn push(&mut self, uid: u64, name: &str) -> Result<(), StoreError> {
        let problem = "the names of all users have more than 4 GiB";
        let end = u32::try_from(self.names.len() + name.len());
        self.ends.push(end.map_err(|_| StoreError::Failed(problem.into()))?);
        self.uids.push(uid);
        self.names.push_str(name);
        Ok(())
    }

    /// The name of a user. `None` means that there is no such user.
    pub fn get(&self, uid: u64) -> Option<&str> {
        let index = self.uids.binary_search(&uid).ok()?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.names.get(start..self.ends[index] as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_uid() {
        let mut names = NamesByUid::default();
        for (uid, name) in [(1, "admin"), (3, "é"), (9, "x y")] {
            names.push(uid, name).unwrap();
        }
        let found = |uid| names.get(uid);
        assert_eq!([1, 3, 9].map(found), [Some("admin"), Some("é"), Some("x y")]);
        assert_eq!([0, 2, 4, 10].map(found), [None; 4]);
    }
}
