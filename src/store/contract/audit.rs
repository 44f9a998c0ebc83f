//! The contract of the audit trail as tests: an entry is written with its batch or not at all, and
//! any later change of the trail is detected and located.

use super::{
    Batch, Expected, JoinSet, Store, Table, TestEngine, conflict, contract, dump, encode, put,
};
use crate::{
    model::{AuditKey, Digest, Pepper},
    store::{
        Cancel,
        audit_log::{self, AuditAppend, AuditVerdict, Generation},
        table,
    },
};

contract! {
    entry_is_written_with_its_batch_or_not_at_all
    concurrent_batches_form_one_chain
    every_change_of_an_entry_is_detected_and_located
    truncated_trail_stays_detectable_after_further_entries
    trail_with_removed_old_entries_is_still_tamper_evident
    batch_with_many_entries_appends_them_in_order
}

pub(super) fn key() -> AuditKey {
    Pepper::from_bytes([7; 32]).audit_key()
}

/// A batch with one audit entry, for a trail of at most `keep` entries.
fn audited(text: &str, keep: u64) -> Batch {
    audited_in(Generation::First(id(1)), text, keep)
}

pub(super) fn audited_in(generation: Generation, text: &str, keep: u64) -> Batch {
    let mut batch = put(Table::Users, b"a", text);
    let entries = vec![encode(&text)];
    batch.audit = Some(AuditAppend { entries, key: key(), keep, generation });
    batch
}

/// The id of a generation.
pub(super) fn id(number: u8) -> Digest {
    Digest::from_bytes([number; 32])
}

/// Appends this many entries.
pub(super) async fn append(engine: &TestEngine, entries: u64, keep: u64) {
    for number in 1..=entries {
        let store = engine.store();
        let generation = audit_log::generation_for_append(&**store, &key(), || id(1)).unwrap();
        let text = format!("entry {number}");
        store.commit(audited_in(generation, &text, keep)).await.unwrap();
    }
}

/// The numbers of the first and the last entry. The first is greater if the trail is empty.
pub(super) fn first_and_last(store: &dyn Store) -> (u64, u64) {
    match verdict(store) {
        AuditVerdict::Intact { first, end } => (first, end.number),
        tampered => panic!("{tampered:?}"),
    }
}

/// The entries after one of them.
pub(super) fn entries(store: &dyn Store, after: u64, limit: usize) -> Vec<audit_log::ChainEntry> {
    audit_log::oldest_first(store, &key(), Some(after), limit).unwrap().entries
}

pub(super) fn verdict(store: &dyn Store) -> AuditVerdict {
    audit_log::verify(store, &key(), &Cancel::default()).unwrap()
}

pub(super) fn is_intact(store: &dyn Store) -> bool {
    matches!(verdict(store), AuditVerdict::Intact { .. })
}

/// The number of the entry at which the verification detects a change.
#[track_caller]
pub(super) fn tampered(store: &dyn Store) -> u64 {
    match verdict(store) {
        AuditVerdict::Tampered { number, .. } => number,
        intact => panic!("{intact:?}"),
    }
}

/// Writes without an audit entry, as an attacker with access to the store can.
pub(super) async fn forge(engine: &TestEngine, table: Table, key: &[u8], json: Option<Vec<u8>>) {
    let mut batch = Batch::new();
    match json {
        Some(json) => batch.put(table, key, json),
        None => batch.delete(table, key),
    };
    engine.store().commit(batch).await.unwrap();
}

pub(super) fn stored(engine: &TestEngine, table: Table, key: &[u8]) -> Vec<u8> {
    engine.store().get(table, key).unwrap().unwrap().json
}

async fn entry_is_written_with_its_batch_or_not_at_all(mut engine: TestEngine) {
    assert_eq!(first_and_last(&**engine.store()), (1, 0));
    assert!(is_intact(&**engine.store()));
    append(&engine, 1, 9).await;
    let before = dump(&**engine.store());
    let mut rejected = audited("never", 9);
    rejected.expect(Table::Users, *b"a", Expected::Missing);
    conflict(engine.store().commit(rejected).await);
    assert_eq!(dump(&**engine.store()), before);
    // If the entry is too large, its batch is not written either.
    engine.store().commit(audited(&"x".repeat(7100), 9)).await.unwrap_err();
    assert_eq!(dump(&**engine.store()), before);
    append(&engine, 2, 9).await;
    engine.check_and_recheck(|store| {
        let found = entries(store, 0, 9);
        let texts: Vec<_> = found.iter().map(|entry| (entry.number, entry.json.clone())).collect();
        let text = |number: u64| encode(&format!("entry {number}"));
        assert_eq!(texts, [(1, text(1)), (2, text(1)), (3, text(2))]);
        assert_eq!(entries(store, 1, 1)[0].number, 2);
        assert_eq!(first_and_last(store), (1, 3));
        assert!(is_intact(store));
    });
}

async fn concurrent_batches_form_one_chain(mut engine: TestEngine) {
    let mut tasks = JoinSet::new();
    for number in 0..50 {
        let store = engine.store().clone();
        tasks.spawn(async move { store.commit(audited(&number.to_string(), 999)).await.unwrap() });
    }
    tasks.join_all().await;
    engine.check_and_recheck(|store| {
        assert_eq!(first_and_last(store), (1, 50));
        assert!(is_intact(store));
    });
}

async fn every_change_of_an_entry_is_detected_and_located(engine: TestEngine) {
    append(&engine, 6, 99).await;
    let entry = |number| stored(&engine, Table::Audit, &table::audit(number));
    let third = entry(3);
    // Each byte of an entry: of its hash, its JSON, and the JSON around them.
    for at in 0..third.len() * 2 {
        let mut changed = third.clone();
        // The second change of a byte turns lower case into upper case.
        changed[at / 2] ^= if at % 2 == 0 { 1 } else { 0x20 };
        forge(&engine, Table::Audit, &table::audit(3), Some(changed)).await;
        assert_eq!(tampered(&**engine.store()), 3, "byte {at}");
    }
    // Another entry in its place, and a missing entry. Then an additional entry.
    for json in [Some(entry(2)), Some(entry(4)), Some(b"{}".to_vec()), None] {
        forge(&engine, Table::Audit, &table::audit(3), json).await;
        assert_eq!(tampered(&**engine.store()), 3);
    }
    forge(&engine, Table::Audit, &table::audit(3), Some(third)).await;
    assert!(is_intact(&**engine.store()));
    forge(&engine, Table::Audit, &table::audit(7), Some(entry(6))).await;
    assert_eq!(tampered(&**engine.store()), 7);
    forge(&engine, Table::Audit, &table::audit(7), None).await;
    assert!(is_intact(&**engine.store()));
    // The trail is not intact for another pepper.
    let other = Pepper::from_bytes([8; 32]).audit_key();
    let found = audit_log::verify(&**engine.store(), &other, &Cancel::default()).unwrap();
    assert!(matches!(found, AuditVerdict::Tampered { number: 1, .. }), "{found:?}");
}

async fn truncated_trail_stays_detectable_after_further_entries(engine: TestEngine) {
    append(&engine, 3, 99).await;
    let third = stored(&engine, Table::Meta, b"audit-end");
    append(&engine, 3, 99).await;
    let sixth = stored(&engine, Table::Meta, b"audit-end");
    // The last entry is removed, and the end is set to the entry before: the attacker knows its
    // number and hash, but not its seal.
    let fifth = String::from_utf8(stored(&engine, Table::Audit, &table::audit(5))).unwrap();
    let hash = &fifth["{\"hash\":\"".len()..][..64];
    let mut forged: serde_json::Value = serde_json::from_slice(&sixth).unwrap();
    forged["mark"]["number"] = 5.into();
    forged["mark"]["hash"] = hash.into();
    let removed = stored(&engine, Table::Audit, &table::audit(6));
    forge(&engine, Table::Audit, &table::audit(6), None).await;
    assert_eq!(tampered(&**engine.store()), 6);
    forge(&engine, Table::Meta, b"audit-end", Some(encode(&forged))).await;
    assert_eq!(tampered(&**engine.store()), 1, "the number in a forged end is not believed");
    append(&engine, 3, 99).await;
    assert_eq!(tampered(&**engine.store()), 6);
    // If an old end is restored completely, the later entries are after the end. The entries that
    // followed the forged end are in the lost generation.
    for number in 6..10 {
        forge(&engine, Table::Audit, &table::audit(number), None).await;
    }
    forge(&engine, Table::Audit, &table::audit(6), Some(removed)).await;
    forge(&engine, Table::Meta, b"audit-end", Some(sixth)).await;
    assert!(is_intact(&**engine.store()));
    forge(&engine, Table::Meta, b"audit-end", Some(third)).await;
    assert_eq!(tampered(&**engine.store()), 4);
    forge(&engine, Table::Meta, b"audit-end", None).await;
    tampered(&**engine.store());
}

async fn batch_with_many_entries_appends_them_in_order(mut engine: TestEngine) {
    append(&engine, 3, 150).await;
    for round in 0..3 {
        let entries = (0..100).map(|number| encode(&format!("{round} {number}"))).collect();
        let audit =
            Some(AuditAppend { entries, key: key(), keep: 150, generation: Generation::Current });
        engine.store().commit(Batch { audit, ..Batch::new() }).await.unwrap();
    }
    engine.check_and_recheck(|store| {
        assert_eq!(first_and_last(store), (154, 303));
        assert_eq!(entries(store, 302, 9)[0].json, encode(&"2 99"));
        assert!(is_intact(store));
    });
    // A batch with more entries than the maximum: its own entries stay until the next batch.
    let entries = (0..400).map(|number| encode(&number)).collect();
    let audit =
        Some(AuditAppend { entries, key: key(), keep: 150, generation: Generation::Current });
    engine.store().commit(Batch { audit, ..Batch::new() }).await.unwrap();
    engine.check_and_recheck(|store| {
        assert_eq!(first_and_last(store), (304, 703));
        assert!(is_intact(store));
    });
    append(&engine, 9, 150).await;
    assert_eq!(first_and_last(&**engine.store()), (563, 712));
    assert!(is_intact(&**engine.store()));
}

async fn trail_with_removed_old_entries_is_still_tamper_evident(mut engine: TestEngine) {
    append(&engine, 20, 4).await;
    engine.check_and_recheck(|store| {
        assert_eq!(first_and_last(store), (17, 20));
        assert!(is_intact(store));
    });
    let begin = stored(&engine, Table::Meta, b"audit-begin");
    let first = stored(&engine, Table::Audit, &table::audit(17));
    // The beginning is moved forward to hide an entry.
    let mut forged: serde_json::Value = serde_json::from_slice(&begin).unwrap();
    forged["mark"]["number"] = 17.into();
    let hash = String::from_utf8(first.clone()).unwrap()["{\"hash\":\"".len()..][..64].to_owned();
    forged["mark"]["hash"] = hash.into();
    forge(&engine, Table::Audit, &table::audit(17), None).await;
    assert_eq!(tampered(&**engine.store()), 17);
    forge(&engine, Table::Meta, b"audit-begin", Some(encode(&forged))).await;
    assert_eq!(tampered(&**engine.store()), 1, "the number in a forged beginning is not believed");
    // Further entries do not repair the trail.
    append(&engine, 5, 4).await;
    assert_eq!(tampered(&**engine.store()), 1);
    forge(&engine, Table::Meta, b"audit-begin", None).await;
    assert_eq!(tampered(&**engine.store()), 1);
    append(&engine, 5, 4).await;
    tampered(&**engine.store());
}
