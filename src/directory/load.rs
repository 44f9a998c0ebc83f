//! How the Directory takes in a whole store: users and keys, which are the many, on all cores.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
};

use super::{
    ByName, ByNumber, CachedKey, Directory, Packed, RoleId, Snapshot, Sources, StoreError, Table,
    UserPart, decode,
};
use crate::{directory::sharded_map::InsertBuffer, limits::Spent, model::KeyId};

/// How many stretches of a table there are for each thread: where one is denser than the others, nobody waits for it for long.
const STRETCHES: usize = 8;
/// How many entries lie on the trays of all threads: hundreds for each part of a shelf, where threads are few.
const ON_TRAYS: usize = 1 << 18;

/// The part of a table that one thread takes in at a time.
#[derive(Debug, PartialEq)]
struct Stretch {
    table: Table,
    /// How many of its table stand before it.
    nth: usize,
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl Directory {
    pub(super) fn load(&self, snapshot: &dyn Snapshot) -> Result<(), StoreError> {
        snapshot.each(Table::Meta, &mut |key, record| self.put_meta(key, record.json))?;
        let mut sources = self.sources();
        for table in [Table::Roles, Table::Applications, Table::Resources] {
            snapshot.each(table, &mut |key, record| sources.put(table, key, Some(record.json)))?;
        }
        drop(sources);
        self.load_many(snapshot)?;
        self.policy.store(Arc::new(self.sources().compile()));
        snapshot.each(Table::Spent, &mut |key, record| self.put_spent(key, record.json))
    }

    fn load_many(&self, snapshot: &dyn Snapshot) -> Result<(), StoreError> {
        // Two at least: one decodes while the other reads.
        let threads = available_parallelism().map_or(2, usize::from).max(2);
        let each = threads * STRETCHES;
        let mut stretches = Vec::new();
        for table in [Table::Users, Table::Keys] {
            let last = snapshot.last(table)?;
            stretches.extend(stretches_of(table, last.as_deref(), each as u64));
        }
        let next = AtomicUsize::new(0);
        let begun = Begun::default();
        let work = || {
            let mut sets = Sets::of(&self.sources);
            let mut trays = Trays::with_room(ON_TRAYS / threads);
            while let Some(stretch) = stretches.get(next.fetch_add(1, Ordering::Relaxed)) {
                let count = self.load_stretch(snapshot, stretch, &mut sets, &mut trays)?;
                if stretch.nth < 2
                    && let Some(least) = begun.least(stretch.table, count)
                {
                    self.expect(stretch.table, least.saturating_mul(each));
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            others.into_iter().try_for_each(|other| {
                other.join().expect("taking users and keys in does not panic")
            })?;
            own
        })
    }

    fn expect(&self, table: Table, total: usize) {
        if table == Table::Keys {
            return self.keys.expect(total);
        }
        self.users.expect(total);
        self.names.expect(total);
    }

    fn load_stretch(
        &self,
        snapshot: &dyn Snapshot,
        Stretch { table, from, to, .. }: &Stretch,
        sets: &mut Sets<'_>,
        trays: &mut Trays,
    ) -> Result<usize, StoreError> {
        let (mut count, mut last_uid) = (0, 0);
        // Each stands once in the store, so what is put takes nobody's place.
        snapshot.within(*table, from, to.as_deref(), &mut |key, record| {
            count += 1;
            if *table == Table::Keys {
                let (number, held) = self.held(key, record.json)?;
                self.keys.lay(&mut trays.keys, Packed::of(number, held));
                return Ok(());
            }
            let user: UserPart<'_> = decode(Table::Users, key, record.json)?;
            let roles = sets.number(&user.roles);
            let member = self.member(user, roles);
            last_uid = last_uid.max(member.uid);
            self.slow.password_came(&member);
            self.names.lay(&mut trays.names, ByName(member.clone()));
            self.users.lay(&mut trays.users, ByNumber(member));
            Ok(())
        })?;
        self.last_uid.fetch_max(last_uid, Ordering::Relaxed);
        trays.clear(self);
        Ok(count)
    }

    /// Takes in what was spent before the start. Afterwards nobody knows it better than the record's own count.
    fn put_spent(&self, key: &[u8], json: &[u8]) -> Result<(), StoreError> {
        let spent: Spent = decode(Table::Spent, key, json)?;
        let number = key.get(1..).and_then(|number| number.try_into().ok());
        let (Some(table), Some(number)) = (key.first(), number.map(u64::from_be_bytes)) else {
            return Ok(());
        };
        let member = self.user(number).filter(|_| *table == Table::Users as u8);
        let held = self.key(KeyId::from_number(number)).filter(|_| *table == Table::Keys as u8);
        let of_user = member.as_ref().and_then(|member| member.bounds());
        let bounds = of_user.or(held.as_ref().and_then(CachedKey::bounds));
        bounds.inspect(|bounds| bounds.restore(spent));
        Ok(())
    }
}

/// What one thread has read and not put yet.
struct Trays {
    names: InsertBuffer<ByName>,
    users: InsertBuffer<ByNumber>,
    keys: InsertBuffer<Box<Packed>>,
}

impl Trays {
    fn with_room(entries: usize) -> Self {
        let (names, users) = (InsertBuffer::with_room(entries), InsertBuffer::with_room(entries));
        Self { names, users, keys: InsertBuffer::with_room(entries) }
    }

    fn clear(&mut self, directory: &Directory) {
        directory.names.put_all(&mut self.names);
        directory.users.put_all(&mut self.users);
        directory.keys.put_all(&mut self.keys);
    }
}

/// A table in stretches of which each takes up as many numbers as the others. All of what is there lies in one of them.
fn stretches_of(table: Table, last: Option<&[u8]>, count: u64) -> Vec<Stretch> {
    let number = |key: &[u8]| key.first_chunk().copied().map_or(u64::MAX, u64::from_be_bytes);
    let width = (last.map_or(0, number) / count).saturating_add(1);
    let starts = (1..count).filter_map(|at| at.checked_mul(width));
    let mut bounds: Vec<_> = starts.map(|start| start.to_be_bytes().to_vec()).collect();
    bounds.insert(0, Vec::new());
    let ends = bounds.iter().skip(1).cloned().map(Some).chain([None]);
    let all = bounds.iter().cloned().zip(ends).enumerate();
    all.map(|(nth, (from, to))| Stretch { table, nth, from, to }).collect()
}

/// What the first two stretches of each table held, of which the smaller is believed: numbers that do not follow one another may all lie in one.
#[derive(Default)]
struct Begun(Mutex<HashMap<Table, usize>>);

impl Begun {
    /// The smaller one, when both are known.
    fn least(&self, table: Table, count: usize) -> Option<usize> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(table, count).map(|other| other.min(count))
    }
}

/// The numbers of combinations of roles, as far as one thread has met them: there are few, and all threads ask for them all the time.
struct Sets<'s> {
    sources: &'s Mutex<Sources>,
    /// By their roles, a line each.
    known: HashMap<String, u32>,
    lines: String,
}

impl<'s> Sets<'s> {
    fn of(sources: &'s Mutex<Sources>) -> Self {
        Self { sources, known: HashMap::new(), lines: String::new() }
    }

    fn number(&mut self, roles: &[RoleId<'_>]) -> u32 {
        self.lines.clear();
        for role in roles {
            self.lines.push_str(&role.0);
            self.lines.push('\n');
        }
        if let Some(number) = self.known.get(&self.lines) {
            return *number;
        }
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, _) = sources.set_number(roles);
        self.known.insert(self.lines.clone(), number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_leave_nothing_out_and_have_nothing_twice() {
        let key = |number: u64| Some(number.to_be_bytes().to_vec());
        for last in
            [None, key(0), key(1), key(15), key(16), key(1_000_003), key(u64::MAX), Some(vec![7])]
        {
            for count in [1, 2, 16] {
                let all = stretches_of(Table::Users, last.as_deref(), count);
                assert!(all.len() as u64 <= count, "{last:?}");
                assert!(all[0].from.is_empty() && all[all.len() - 1].to.is_none(), "{last:?}");
                for pair in all.windows(2) {
                    assert_eq!(pair[0].to.as_ref(), Some(&pair[1].from), "{last:?}");
                    assert!(pair[0].from < pair[1].from, "{last:?}");
                }
            }
        }
        // Alike, as far as that can be told.
        let all = stretches_of(Table::Keys, key(999).as_deref(), 4);
        let starts: Vec<_> = all.into_iter().map(|one| one.from).collect();
        assert_eq!(starts[1..], [250, 500, 750].map(|start: u64| start.to_be_bytes().to_vec()));
    }

    #[test]
    fn what_is_expected_is_what_the_emptier_of_two_stretches_says() {
        let begun = Begun::default();
        assert_eq!(begun.least(Table::Users, 1_000_000), None);
        assert_eq!(begun.least(Table::Keys, 7), None);
        assert_eq!(begun.least(Table::Users, 0), Some(0));
        assert_eq!(begun.least(Table::Keys, 9), Some(7));
    }

    #[test]
    fn combinations_of_roles_have_the_number_that_they_have_elsewhere() {
        let sources = Mutex::new(Sources::new());
        let roles =
            |ids: &[&'static str]| ids.iter().map(|id| RoleId((*id).into())).collect::<Vec<_>>();
        let (mut one, mut other) = (Sets::of(&sources), Sets::of(&sources));
        assert_eq!(one.number(&[]), 0);
        let both = one.number(&roles(&["a", "b"]));
        for _ in 0..2 {
            assert_eq!(other.number(&roles(&["b", "a"])), both);
            assert_eq!(other.number(&roles(&["a", "b"])), both);
            assert_ne!(other.number(&roles(&["ab"])), both);
            assert_ne!(other.number(&roles(&["a"])), both);
            assert_eq!(other.number(&[]), 0);
        }
    }
}
