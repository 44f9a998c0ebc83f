//! Attacks on the audit trail by somebody who can change every record of the store and has every
//! former copy of it, but not the pepper.

use std::sync::Arc;

use super::{
    Batch, Store, Table, TestEngine,
    audit::{
        append, audited_in, entries, first_and_last, forge, id, is_intact, key, stored, tampered,
        verdict,
    },
    contract, put,
};
use crate::store::{
    CommitFuture, Lagged, Sequence, Snapshot, StoreError, Stored, Subscriber,
    audit_log::{
        self, AuditVerdict, ChainPage, Generation, TrailError, Verification, newest_first,
        oldest_first,
    },
    table,
};

contract! {
    new_store_is_intact_and_its_first_entry_begins_a_generation
    removed_trail_is_detected_and_stays_detected
    lost_trail_grows_after_all_rows_that_are_left
    misplaced_rows_are_detected
    end_that_was_set_back_is_detected
    old_end_with_a_later_beginning_is_detected
    changed_generation_of_an_entry_is_detected_and_located
    forged_old_entry_is_not_trimmed_away
    entries_of_another_generation_are_detected
    pages_end_before_a_broken_entry
    export_of_a_truncated_or_removed_trail_is_an_error
    entry_that_only_a_listing_or_only_a_look_up_finds_is_detected
    verification_in_steps_is_not_disturbed_by_appends
}

const END: &[u8] = b"audit-end";
const BEGIN: &[u8] = b"audit-begin";

/// The record, or `None` if it is missing.
fn record(engine: &TestEngine, table: Table, key: &[u8]) -> Option<Vec<u8>> {
    engine.store().get(table, key).unwrap().map(|stored| stored.json)
}

fn oldest(store: &dyn Store, after: Option<u64>, limit: usize) -> Result<ChainPage, TrailError> {
    oldest_first(store, &key(), after, limit)
}

/// Exports the trail in pages. Returns the numbers, and the entry at which the export failed.
fn export(store: &dyn Store) -> (Vec<u64>, Option<u64>) {
    let (mut numbers, mut after) = (Vec::new(), None);
    loop {
        let page = match oldest(store, after, 3) {
            Ok(page) => page,
            Err(TrailError::Broken(problem)) => return (numbers, Some(problem.number)),
            Err(problem) => panic!("{problem}"),
        };
        numbers.extend(page.entries.iter().map(|entry| entry.number));
        after = numbers.last().copied();
        if !page.has_more {
            return (numbers, None);
        }
    }
}

/// A copy of the trail: both marks and all rows.
struct Copy {
    marks: [Option<Vec<u8>>; 2],
    rows: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Copy {
    fn of(engine: &TestEngine) -> Self {
        let rows = engine.store().scan(Table::Audit, &[], None, usize::MAX).unwrap();
        Self {
            marks: [END, BEGIN].map(|mark| record(engine, Table::Meta, mark)),
            rows: rows.into_iter().map(|(key, stored)| (key, stored.json)).collect(),
        }
    }

    /// Puts the copy in the place of the trail.
    async fn replace(&self, engine: &TestEngine) {
        for (row, _) in engine.store().scan(Table::Audit, &[], None, usize::MAX).unwrap() {
            forge(engine, Table::Audit, &row, None).await;
        }
        for (row, json) in &self.rows {
            forge(engine, Table::Audit, row, Some(json.clone())).await;
        }
        for (mark, json) in [END, BEGIN].into_iter().zip(&self.marks) {
            forge(engine, Table::Meta, mark, json.clone()).await;
        }
    }
}

async fn new_store_is_intact_and_its_first_entry_begins_a_generation(mut engine: TestEngine) {
    engine.check_and_recheck(|store| {
        assert_eq!(first_and_last(store), (1, 0));
        assert_eq!(export(store), (vec![], None));
        let generation = audit_log::generation_for_append(store, &key(), || id(1)).unwrap();
        assert_eq!(generation, Generation::First(id(1)));
    });
    append(&engine, 2, 9).await;
    engine.check_and_recheck(|store| {
        let found = entries(store, 0, 9);
        assert_eq!(
            found.iter().map(|entry| entry.generation).collect::<Vec<_>>(),
            [Some(id(1)), None]
        );
        let generation = audit_log::generation_for_append(store, &key(), || id(2)).unwrap();
        assert_eq!(generation, Generation::Current);
        let AuditVerdict::Intact { end, .. } = verdict(store) else { panic!() };
        assert_eq!((end.number, end.generation), (2, id(1)));
    });
}

async fn removed_trail_is_detected_and_stays_detected(mut engine: TestEngine) {
    // A user, a key or the pepper's fingerprint is enough: the store is not new.
    for (table, row) in
        [(Table::Users, &b"a"[..]), (Table::Keys, b"k"), (Table::Meta, table::PEPPER)]
    {
        let engine = TestEngine::memory();
        engine.store().commit(put(table, row, "x")).await.unwrap();
        assert_eq!(tampered(&**engine.store()), 1);
        assert_eq!(export(&**engine.store()), (vec![], Some(1)));
    }
    append(&engine, 8, 4).await;
    assert!(is_intact(&**engine.store()));
    for number in 1..9 {
        forge(&engine, Table::Audit, &table::audit(number), None).await;
    }
    forge(&engine, Table::Meta, END, None).await;
    forge(&engine, Table::Meta, BEGIN, None).await;
    engine.check_and_recheck(|store| {
        assert_eq!(tampered(store), 1);
        assert_eq!(export(store), (vec![], Some(1)));
        assert!(newest_first(store, &key(), None, 9).is_err());
    });
    // The store still accepts changes. The trail is never intact again, and its new entries are
    // not trimmed.
    append(&engine, 9, 4).await;
    engine.check_and_recheck(|store| {
        assert_eq!(tampered(store), 1);
        assert_eq!(export(store), (vec![], Some(1)));
        assert_eq!(newest_first(store, &key(), None, 3).unwrap().entries.len(), 3);
    });
}

async fn lost_trail_grows_after_all_rows_that_are_left(engine: TestEngine) {
    // No row is left, but the beginning: the new entries follow it.
    append(&engine, 6, 3).await;
    for number in 4..7 {
        forge(&engine, Table::Audit, &table::audit(number), None).await;
    }
    forge(&engine, Table::Meta, END, None).await;
    append(&engine, 5, 3).await;
    assert_eq!(tampered(&**engine.store()), 4);
    assert_eq!(newest_first(&**engine.store(), &key(), None, 9).unwrap().entries.len(), 5);
    let engine = TestEngine::memory();
    append(&engine, 5, 99).await;
    forge(&engine, Table::Meta, END, None).await;
    append(&engine, 2, 99).await;
    // The rows are as they were: the new entries have not replaced them.
    let rows: Vec<_> = Copy::of(&engine).rows.into_iter().map(|(row, _)| row).collect();
    assert_eq!(rows, (1..8).map(|number| table::audit(number).to_vec()).collect::<Vec<_>>());
    assert_eq!(tampered(&**engine.store()), 6);
    assert_eq!(export(&**engine.store()), ((1..6).collect(), Some(6)));
    let newest = |before| newest_first(&**engine.store(), &key(), before, 99);
    let page = newest(None).unwrap();
    assert_eq!(page.entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [7, 6]);
    assert!(page.has_more && newest(Some(6)).is_err());
    // A row with the greatest number leaves numbers for the entries.
    forge(&engine, Table::Audit, &[0xff; 8], Some(b"{}".to_vec())).await;
    forge(&engine, Table::Meta, END, Some(b"{}".to_vec())).await;
    append(&engine, 2, 99).await;
    assert_eq!(tampered(&**engine.store()), 6);
}

async fn misplaced_rows_are_detected(engine: TestEngine) {
    append(&engine, 9, 5).await;
    assert_eq!(first_and_last(&**engine.store()), (5, 9));
    let json = stored(&engine, Table::Audit, &table::audit(9));
    let long = |number: u64| [&table::audit(number)[..], b"\0"].concat();
    for (row, number) in [
        // Before the beginning.
        (table::audit(0).to_vec(), 0),
        (table::audit(4).to_vec(), 4),
        (Vec::new(), 5),
        (b"\0".to_vec(), 5),
        (long(4), 5),
        // Between two entries.
        (long(5), 6),
        (long(8), 9),
        // After the end.
        (long(9), 10),
        (table::audit(10).to_vec(), 10),
        (table::audit(u64::MAX).to_vec(), u64::MAX),
        (b"zz".to_vec(), 10),
        (vec![0xff; 9], 10),
    ] {
        forge(&engine, Table::Audit, &row, Some(json.clone())).await;
        assert_eq!(tampered(&**engine.store()), number, "{row:?}");
        assert_eq!(export(&**engine.store()).1, Some(number), "{row:?}");
        forge(&engine, Table::Audit, &row, None).await;
        assert!(is_intact(&**engine.store()), "{row:?}");
        assert_eq!(export(&**engine.store()), ((5..10).collect(), None));
    }
}

async fn end_that_was_set_back_is_detected(engine: TestEngine) {
    append(&engine, 3, 99).await;
    let old = Copy::of(&engine);
    append(&engine, 5, 2).await;
    assert_eq!(first_and_last(&**engine.store()), (7, 8));
    let new = Copy::of(&engine);
    let set = async |mark: &[u8], json: &Option<Vec<u8>>| {
        forge(&engine, Table::Meta, mark, json.clone()).await;
    };
    // The old end is authentic, but before the beginning. So are the old beginning and the end, but
    // the entries between them are missing.
    set(END, &old.marks[0]).await;
    assert_eq!(tampered(&**engine.store()), 4);
    assert_eq!(export(&**engine.store()).1, Some(4));
    set(BEGIN, &old.marks[1]).await;
    assert_eq!(tampered(&**engine.store()), 1);
    set(END, &new.marks[0]).await;
    assert_eq!(tampered(&**engine.store()), 1);
    // The old entries, with the old beginning and the new end.
    for (row, json) in &old.rows {
        forge(&engine, Table::Audit, row, Some(json.clone())).await;
    }
    assert_eq!(tampered(&**engine.store()), 1);
    // The limit of what a keyed mark can tell: the whole trail as it was.
    old.replace(&engine).await;
    assert!(is_intact(&**engine.store()));
    new.replace(&engine).await;
    assert!(is_intact(&**engine.store()));
}

async fn old_end_with_a_later_beginning_is_detected(engine: TestEngine) {
    append(&engine, 7, 5).await;
    let old = Copy::of(&engine);
    append(&engine, 5, 5).await;
    assert_eq!(first_and_last(&**engine.store()), (8, 12));
    let new = Copy::of(&engine);
    // The beginning is 9 then. The old ends are 7 and 12: one before it, one behind it.
    append(&engine, 2, 5).await;
    let late = Copy::of(&engine);
    for (end, last) in [(&old, 7), (&new, 12)] {
        late.replace(&engine).await;
        forge(&engine, Table::Meta, END, end.marks[0].clone()).await;
        for number in last + 1..=14 {
            forge(&engine, Table::Audit, &table::audit(number), None).await;
        }
        tampered(&**engine.store());
        assert!(export(&**engine.store()).1.is_some());
        // The next entry does not bring the two marks together.
        append(&engine, 3, 5).await;
        tampered(&**engine.store());
        assert!(export(&**engine.store()).1.is_some());
    }
    // The beginning was moved to the end: no entry is left.
    old.replace(&engine).await;
    forge(&engine, Table::Meta, BEGIN, new.marks[1].clone()).await;
    for number in 1..=14 {
        forge(&engine, Table::Audit, &table::audit(number), None).await;
    }
    tampered(&**engine.store());
    assert!(export(&**engine.store()).1.is_some());
}

async fn changed_generation_of_an_entry_is_detected_and_located(engine: TestEngine) {
    append(&engine, 4, 99).await;
    let first = String::from_utf8(stored(&engine, Table::Audit, &table::audit(1))).unwrap();
    let third = String::from_utf8(stored(&engine, Table::Audit, &table::audit(3))).unwrap();
    let field = |id| format!("\",\"generation\":\"{}", crate::model::Digest::to_hex(&id));
    assert!(first.contains(&field(id(1))), "{first}");
    for (number, forged) in [
        (1, first.replace(&field(id(1)), &field(id(2)))),
        (1, first.replace(&field(id(1)), "")),
        (3, third.replace("\",\"entry\"", &format!("{}\",\"entry\"", field(id(1))))),
    ] {
        let entry = stored(&engine, Table::Audit, &table::audit(number));
        assert_ne!(forged.as_bytes(), entry);
        forge(&engine, Table::Audit, &table::audit(number), Some(forged.into_bytes())).await;
        assert_eq!(tampered(&**engine.store()), number);
        assert_eq!(export(&**engine.store()).1, Some(number));
        forge(&engine, Table::Audit, &table::audit(number), Some(entry)).await;
    }
    assert!(is_intact(&**engine.store()));
}

async fn forged_old_entry_is_not_trimmed_away(engine: TestEngine) {
    append(&engine, 4, 4).await;
    let forged = String::from_utf8(stored(&engine, Table::Audit, &table::audit(2))).unwrap();
    let forged = forged.replace("entry 2", "entry X").into_bytes();
    forge(&engine, Table::Audit, &table::audit(2), Some(forged)).await;
    append(&engine, 9, 4).await;
    assert_eq!(tampered(&**engine.store()), 2);
    assert_eq!(export(&**engine.store()), (vec![], Some(2)));
}

async fn entries_of_another_generation_are_detected(engine: TestEngine) {
    append(&engine, 3, 99).await;
    let backup = Copy::of(&engine);
    // The store goes on after the backup, and so does a restored copy.
    append(&engine, 3, 99).await;
    let first = Copy::of(&engine);
    backup.replace(&engine).await;
    let restored = audited_in(Generation::Next(id(2)), "restore", 99);
    engine.store().commit(restored).await.unwrap();
    append(&engine, 2, 99).await;
    assert!(is_intact(&**engine.store()));
    let AuditVerdict::Intact { end, .. } = verdict(&**engine.store()) else { panic!() };
    assert_eq!((end.number, end.generation), (6, id(2)));
    let second = Copy::of(&engine);
    // Each entry of one fork in the place of its counterpart, then the whole tail.
    for (own, other) in [(&second, &first), (&first, &second)] {
        own.replace(&engine).await;
        for at in 3..6 {
            let (row, json) = &other.rows[at];
            forge(&engine, Table::Audit, row, Some(json.clone())).await;
            // Either fork's first entry follows the backup. The entry after it does not follow.
            let number = (at as u64 + 1).max(5);
            assert_eq!(tampered(&**engine.store()), number);
            assert_eq!(export(&**engine.store()).1, Some(number));
            forge(&engine, Table::Audit, row, Some(own.rows[at].1.clone())).await;
        }
        for (row, json) in &other.rows {
            forge(&engine, Table::Audit, row, Some(json.clone())).await;
        }
        assert_eq!(tampered(&**engine.store()), 6);
        assert_eq!(export(&**engine.store()).1, Some(6));
        own.replace(&engine).await;
        assert!(is_intact(&**engine.store()));
    }
    // A restore of the same backup a second time makes a third fork, although its entry is equal.
    backup.replace(&engine).await;
    engine.store().commit(audited_in(Generation::Next(id(3)), "restore", 99)).await.unwrap();
    assert_ne!(Copy::of(&engine).rows[3].1, second.rows[3].1);
    let (row, json) = &second.rows[3];
    forge(&engine, Table::Audit, row, Some(json.clone())).await;
    assert_eq!(tampered(&**engine.store()), 4);
}

async fn pages_end_before_a_broken_entry(engine: TestEngine) {
    append(&engine, 9, 99).await;
    let (row, entry) = (table::audit(5), stored(&engine, Table::Audit, &table::audit(5)));
    let store = engine.store();
    let numbers = |page: ChainPage| page.entries.iter().map(|e| e.number).collect::<Vec<_>>();
    for broken in
        [None, Some(b"{}".to_vec()), Some(stored(&engine, Table::Audit, &table::audit(6)))]
    {
        forge(&engine, Table::Audit, &row, broken).await;
        assert_eq!(export(&**store), (vec![1, 2, 3, 4], Some(5)));
        let newest = |before, limit| newest_first(&**store, &key(), before, limit);
        assert_eq!(numbers(newest(None, 99).unwrap()), [9, 8, 7, 6]);
        let problem = newest(Some(6), 99).unwrap_err().to_string();
        assert!(problem.contains("broken at entry 5"), "{problem}");
        // The rest can be read from the other side.
        assert_eq!(numbers(newest(Some(5), 99).unwrap()), [4, 3, 2, 1]);
        assert_eq!(numbers(oldest(&**store, Some(6), 99).unwrap()), [7, 8, 9]);
    }
    forge(&engine, Table::Audit, &row, Some(entry)).await;
    assert_eq!(export(&**store), ((1..10).collect(), None));
}

async fn export_of_a_truncated_or_removed_trail_is_an_error(engine: TestEngine) {
    append(&engine, 9, 99).await;
    let trail = Copy::of(&engine);
    for last in 0..9 {
        trail.replace(&engine).await;
        for number in last + 1..=9 {
            forge(&engine, Table::Audit, &table::audit(number), None).await;
        }
        assert_eq!(export(&**engine.store()), ((1..=last).collect(), Some(last + 1)));
        forge(&engine, Table::Meta, END, None).await;
        assert_eq!(export(&**engine.store()).1, Some(1));
    }
}

async fn entry_that_only_a_listing_or_only_a_look_up_finds_is_detected(engine: TestEngine) {
    append(&engine, 9, 99).await;
    for number in 1..=9 {
        for hidden_in in [Hidden::InListings, Hidden::InLookUps] {
            let store = Partial { store: engine.store().clone(), number, hidden_in };
            let AuditVerdict::Tampered { number: found, problem } = verdict(&store) else {
                panic!("{number} {hidden_in:?}")
            };
            assert_eq!(found, number, "{hidden_in:?}");
            assert!(problem.contains("although"), "{problem}");
            if hidden_in == Hidden::InListings {
                assert_eq!(export(&store), ((1..number).collect(), Some(number)));
            }
        }
    }
}

async fn verification_in_steps_is_not_disturbed_by_appends(engine: TestEngine) {
    // The trail is full: each append removes the oldest entry.
    append(&engine, 40, 20).await;
    let mut verification = Verification::default();
    let mut steps = 0;
    let found = loop {
        if let Some(found) = verification.step(&**engine.store(), &key(), 5).unwrap() {
            break found;
        }
        steps += 1;
        if steps < 30 {
            append(&engine, 3, 20).await;
        }
    };
    assert!(matches!(found, AuditVerdict::Intact { end, .. } if end.number == 127), "{found:?}");
    // A change behind the verified entries is found by the next verification.
    forge(&engine, Table::Audit, &table::audit(127), None).await;
    assert_eq!(tampered(&**engine.store()), 127);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hidden {
    InListings,
    InLookUps,
}

/// A damaged engine: one audit entry is missing in listings, or in look-ups.
struct Partial {
    store: Arc<dyn Store>,
    number: u64,
    hidden_in: Hidden,
}

impl Partial {
    fn hides(&self, hidden_in: Hidden, table: Table, row: &[u8]) -> bool {
        self.hidden_in == hidden_in && table == Table::Audit && row == table::audit(self.number)
    }
}

impl Store for Partial {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        if self.hides(Hidden::InLookUps, table, key) {
            return Ok(None);
        }
        self.store.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Stored)>, StoreError> {
        let mut found = self.store.scan(table, prefix, after, limit)?;
        found.retain(|(row, _)| !self.hides(Hidden::InListings, table, row));
        Ok(found)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        self.store.snapshot()
    }

    fn commit(&self, batch: Batch) -> CommitFuture<'_> {
        self.store.commit(batch)
    }

    fn subscribe(&self, after: Sequence, subscriber: Arc<dyn Subscriber>) -> Result<(), Lagged> {
        self.store.subscribe(after, subscriber)
    }

    fn fault(&self) -> Option<String> {
        self.store.fault()
    }
}
