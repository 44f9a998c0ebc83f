//! Shares of the tables behind `once` and `rate_limit`. All scripts use the same tables, so each
//! script has a share, and each client has a part of its script's share.

use std::{cell::RefCell, collections::HashMap, net::IpAddr};

use crate::model::client_network;

/// A script may use one table entry in so many.
const SCRIPT_SHARE: usize = 4;
/// A client may use one entry of its script's share in so many.
const CLIENT_SHARE: usize = 2;

/// The script and the client whose call makes an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(in crate::scripting) struct Owner {
    /// A hash of the script's file, which stays the same when the script is reloaded.
    pub script: u64,
    /// The network of the client's address; `None` means that the client is not known.
    pub client: Option<u128>,
}

impl Owner {
    pub fn new(script: u64, client: Option<IpAddr>) -> Self {
        let client = client.filter(|client| !client.is_unspecified()).map(client_network);
        Self { script, client }
    }
}

/// Counts the entries of a table by owner.
pub(super) struct Quotas {
    capacity: usize,
    entries: usize,
    scripts: HashMap<u64, usize>,
    clients: HashMap<Owner, usize>,
}

impl Quotas {
    pub fn new(capacity: usize) -> Self {
        Self { capacity, entries: 0, scripts: HashMap::new(), clients: HashMap::new() }
    }

    /// Whether this owner may make no more entries.
    pub fn is_full(&self, owner: Owner) -> bool {
        let of_script = (self.capacity / SCRIPT_SHARE).max(1);
        let of_client = (of_script / CLIENT_SHARE).max(1);
        let has = |count: Option<&usize>, max| count.is_some_and(|count| *count >= max);
        self.entries >= self.capacity
            || has(self.scripts.get(&owner.script), of_script)
            || owner.client.is_some() && has(self.clients.get(&owner), of_client)
    }

    pub fn add(&mut self, owner: Owner) {
        self.entries += 1;
        *self.scripts.entry(owner.script).or_default() += 1;
        if owner.client.is_some() {
            *self.clients.entry(owner).or_default() += 1;
        }
    }

    pub fn remove(&mut self, owner: Owner) {
        self.entries = self.entries.saturating_sub(1);
        take_one(&mut self.scripts, &owner.script);
        if owner.client.is_some() {
            take_one(&mut self.clients, &owner);
        }
    }
}

/// Decrements a count. A count of zero is removed, so that the table of counts stays as small as
/// the counted table.
fn take_one<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// The call that runs on this thread, and the ids that the call has entered with `once`.
#[derive(Default)]
struct CallEntries {
    owner: Owner,
    ids: Vec<[u8; 16]>,
}

thread_local! {
    static CALL: RefCell<CallEntries> = RefCell::default();
}

/// Runs a call of this owner. Returns the result, and the ids that the call has entered. Calls nest
/// when a test calls `decide()`.
pub(in crate::scripting) fn run_as<T>(
    owner: Owner,
    call: impl FnOnce() -> T,
) -> (T, Vec<[u8; 16]>) {
    struct RestoreOuter(CallEntries);
    impl Drop for RestoreOuter {
        fn drop(&mut self) {
            CALL.replace(std::mem::take(&mut self.0));
        }
    }
    let _restore = RestoreOuter(CALL.replace(CallEntries { owner, ids: Vec::new() }));
    let result = call();
    (result, CALL.with_borrow_mut(|call| std::mem::take(&mut call.ids)))
}

/// The owner of the call that runs on this thread.
pub(in crate::scripting) fn owner() -> Owner {
    CALL.with_borrow(|call| call.owner)
}

/// Notes that the call has entered this id.
pub(in crate::scripting) fn note_entered(id: [u8; 16]) {
    CALL.with_borrow_mut(|call| call.ids.push(id));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(script: u64, client: u8) -> Owner {
        Owner::new(script, Some([192, 0, 2, client].into()))
    }

    #[test]
    fn script_has_a_quarter_and_its_client_half_of_the_quarter() {
        let mut quotas = Quotas::new(80);
        let mut fill = |owner: Owner| {
            let mut added = 0;
            while !quotas.is_full(owner) {
                quotas.add(owner);
                added += 1;
            }
            added
        };
        assert_eq!([fill(owner(1, 1)), fill(owner(1, 2)), fill(owner(1, 3))], [10, 10, 0]);
        assert_eq!(fill(Owner::new(2, None)), 20, "a client that is not known has no part");
        quotas.remove(owner(1, 2));
        assert!(quotas.is_full(owner(1, 1)) && !quotas.is_full(owner(1, 3)));
    }

    #[test]
    fn counts_are_as_many_as_entries() {
        let mut quotas = Quotas::new(1000);
        for number in 0..200 {
            quotas.add(owner(number, 1));
            quotas.remove(owner(number, 1));
        }
        assert_eq!((quotas.scripts.len(), quotas.clients.len(), quotas.entries), (0, 0, 0));
    }
}
