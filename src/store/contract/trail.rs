//! The audit trail: an entry is written with its batch or not at all, and whatever is done to the trail afterwards is found and named.

use super::{Batch, Bench, JoinSet, State, Store, Table, conflict, contract, dump, encode, put};
use crate::{
    model::{AuditKey, Pepper},
    store::audit_log::{self, AuditAppend, Verdict},
};

contract! {
    an_entry_is_written_with_its_batch_or_not_at_all
    batches_at_the_same_time_make_one_chain
    whatever_is_changed_is_found_and_named
    a_trail_that_was_cut_is_not_whole_again_with_the_next_entry
    a_trail_that_was_shortened_is_as_safe
    many_entries_of_one_batch_are_one_after_another
}

fn key() -> AuditKey {
    Pepper::from_bytes([7; 32]).audit_key()
}

/// A batch that leaves an entry in a trail of `keep` at most.
fn traced(text: &str, keep: u64) -> Batch {
    let mut batch = put(Table::Users, b"a", text);
    batch.trace = Some(AuditAppend { entries: vec![encode(&text)], key: key(), keep });
    batch
}

/// A trail of these many entries.
async fn trail(on: &Bench, entries: u64, keep: u64) {
    for number in 1..=entries {
        on.store().commit(traced(&format!("entry {number}"), keep)).await.unwrap();
    }
}

fn verdict(store: &dyn Store) -> Verdict {
    audit_log::verify(store, &key()).unwrap()
}

fn is_intact(store: &dyn Store) -> bool {
    matches!(verdict(store), Verdict::Intact { .. })
}

/// The number of the entry at which the trail was tampered with.
#[track_caller]
fn tampered(store: &dyn Store) -> u64 {
    match verdict(store) {
        Verdict::Tampered { number, .. } => number,
        intact => panic!("{intact:?}"),
    }
}

/// Writes behind the program's back.
async fn forge(on: &Bench, table: Table, key: &[u8], json: Option<Vec<u8>>) {
    let mut batch = Batch::new();
    match json {
        Some(json) => batch.put(table, key, json),
        None => batch.delete(table, key),
    };
    on.store().commit(batch).await.unwrap();
}

fn held(on: &Bench, table: Table, key: &[u8]) -> Vec<u8> {
    on.store().get(table, key).unwrap().unwrap().json
}

fn place(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

async fn an_entry_is_written_with_its_batch_or_not_at_all(mut on: Bench) {
    assert_eq!(audit_log::extent(&**on.store()).unwrap(), (1, 0));
    assert!(is_intact(&**on.store()));
    trail(&on, 1, 9).await;
    let before = dump(&**on.store());
    let mut refused = traced("never", 9);
    refused.expect(Table::Users, *b"a", State::Missing);
    conflict(on.store().commit(refused).await);
    assert_eq!(dump(&**on.store()), before);
    // One that is too large takes its batch with it.
    on.store().commit(traced(&"x".repeat(7100), 9)).await.unwrap_err();
    assert_eq!(dump(&**on.store()), before);
    trail(&on, 2, 9).await;
    on.now_and_later(|store| {
        let found = audit_log::entries(store, 0, 9).unwrap();
        let texts: Vec<_> = found.iter().map(|one| (one.number, one.json.clone())).collect();
        let text = |number: u64| encode(&format!("entry {number}"));
        assert_eq!(texts, [(1, text(1)), (2, text(1)), (3, text(2))]);
        assert_eq!(audit_log::entries(store, 1, 1).unwrap()[0].number, 2);
        assert_eq!(audit_log::extent(store).unwrap(), (1, 3));
        assert!(is_intact(store));
    });
}

async fn batches_at_the_same_time_make_one_chain(mut on: Bench) {
    let mut tasks = JoinSet::new();
    for number in 0..50 {
        let store = on.store().clone();
        tasks.spawn(async move { store.commit(traced(&number.to_string(), 999)).await.unwrap() });
    }
    tasks.join_all().await;
    on.now_and_later(|store| {
        assert_eq!(audit_log::extent(store).unwrap(), (1, 50));
        assert!(is_intact(store));
    });
}

async fn whatever_is_changed_is_found_and_named(on: Bench) {
    trail(&on, 6, 99).await;
    let entry = |number| held(&on, Table::Audit, &place(number));
    let third = entry(3);
    // Each byte of an entry: of its hash, its text, and what is around them.
    for at in 0..third.len() * 2 {
        let mut changed = third.clone();
        // The second makes a small letter large.
        changed[at / 2] ^= if at % 2 == 0 { 1 } else { 0x20 };
        forge(&on, Table::Audit, &place(3), Some(changed)).await;
        assert_eq!(tampered(&**on.store()), 3, "byte {at}");
    }
    // Another entry in its place, one that is gone, and one too many.
    for json in [Some(entry(2)), Some(entry(4)), Some(b"{}".to_vec()), None] {
        forge(&on, Table::Audit, &place(3), json).await;
        assert_eq!(tampered(&**on.store()), 3);
    }
    forge(&on, Table::Audit, &place(3), Some(third)).await;
    assert!(is_intact(&**on.store()));
    forge(&on, Table::Audit, &place(7), Some(entry(6))).await;
    assert_eq!(tampered(&**on.store()), 7);
    forge(&on, Table::Audit, &place(7), None).await;
    assert!(is_intact(&**on.store()));
    // Somebody else's pepper is no help.
    let other = Pepper::from_bytes([8; 32]).audit_key();
    let found = audit_log::verify(&**on.store(), &other).unwrap();
    assert!(matches!(found, Verdict::Tampered { number: 1, .. }), "{found:?}");
}

async fn a_trail_that_was_cut_is_not_whole_again_with_the_next_entry(on: Bench) {
    trail(&on, 3, 99).await;
    let third = held(&on, Table::Meta, b"audit-end");
    trail(&on, 3, 99).await;
    let sixth = held(&on, Table::Meta, b"audit-end");
    // The last entry goes, and the mark of the end says so: its number and its hash are known, its seal is not.
    let fifth = String::from_utf8(held(&on, Table::Audit, &place(5))).unwrap();
    let hash = &fifth["{\"hash\":\"".len()..][..64];
    let mut forged: serde_json::Value = serde_json::from_slice(&sixth).unwrap();
    forged["number"] = 5.into();
    forged["hash"] = hash.into();
    let gone = held(&on, Table::Audit, &place(6));
    forge(&on, Table::Audit, &place(6), None).await;
    assert_eq!(tampered(&**on.store()), 6);
    forge(&on, Table::Meta, b"audit-end", Some(encode(&forged))).await;
    assert_eq!(tampered(&**on.store()), 5);
    trail(&on, 3, 99).await;
    tampered(&**on.store());
    // With the whole end of a moment before, what came after it stands behind the end.
    for number in 6..9 {
        forge(&on, Table::Audit, &place(number), None).await;
    }
    forge(&on, Table::Audit, &place(6), Some(gone)).await;
    forge(&on, Table::Meta, b"audit-end", Some(sixth)).await;
    assert!(is_intact(&**on.store()));
    forge(&on, Table::Meta, b"audit-end", Some(third)).await;
    assert_eq!(tampered(&**on.store()), 4);
    forge(&on, Table::Meta, b"audit-end", None).await;
    tampered(&**on.store());
}

async fn many_entries_of_one_batch_are_one_after_another(mut on: Bench) {
    trail(&on, 3, 150).await;
    for round in 0..3 {
        let entries = (0..100).map(|number| encode(&format!("{round} {number}"))).collect();
        let trace = Some(AuditAppend { entries, key: key(), keep: 150 });
        on.store().commit(Batch { trace, ..Batch::new() }).await.unwrap();
    }
    on.now_and_later(|store| {
        assert_eq!(audit_log::extent(store).unwrap(), (154, 303));
        assert_eq!(audit_log::entries(store, 302, 9).unwrap()[0].json, encode(&"2 99"));
        assert!(is_intact(store));
    });
    // More than the trail may have: those of the batch itself stay until the next.
    let entries = (0..400).map(|number| encode(&number)).collect();
    let trace = Some(AuditAppend { entries, key: key(), keep: 150 });
    on.store().commit(Batch { trace, ..Batch::new() }).await.unwrap();
    on.now_and_later(|store| {
        assert_eq!(audit_log::extent(store).unwrap(), (304, 703));
        assert!(is_intact(store));
    });
    trail(&on, 9, 150).await;
    assert_eq!(audit_log::extent(&**on.store()).unwrap(), (563, 712));
    assert!(is_intact(&**on.store()));
}

async fn a_trail_that_was_shortened_is_as_safe(mut on: Bench) {
    trail(&on, 20, 4).await;
    on.now_and_later(|store| {
        assert_eq!(audit_log::extent(store).unwrap(), (17, 20));
        assert!(is_intact(store));
    });
    let begin = held(&on, Table::Meta, b"audit-begin");
    let first = held(&on, Table::Audit, &place(17));
    // A beginning that is set forward, to hide an entry.
    let mut forged: serde_json::Value = serde_json::from_slice(&begin).unwrap();
    forged["mark"]["number"] = 17.into();
    let hash = String::from_utf8(first.clone()).unwrap()["{\"hash\":\"".len()..][..64].to_owned();
    forged["mark"]["hash"] = hash.into();
    forge(&on, Table::Audit, &place(17), None).await;
    assert_eq!(tampered(&**on.store()), 17);
    forge(&on, Table::Meta, b"audit-begin", Some(encode(&forged))).await;
    assert_eq!(tampered(&**on.store()), 18);
    // It is not made good by the entries that come.
    trail(&on, 5, 4).await;
    assert_eq!(tampered(&**on.store()), 18);
    forge(&on, Table::Meta, b"audit-begin", None).await;
    assert_eq!(tampered(&**on.store()), 1);
    trail(&on, 5, 4).await;
    tampered(&**on.store());
}
