//! Searches of many records: the work of one page is bounded, and the pages together have every
//! record once.

use super::*;
use crate::{
    model::{Act, AuditEntry, User},
    store::table,
};

/// More users than a search reads for one page.
const USERS: u64 = 2500;

/// Accounts with many users, of whom every hundredth is blocked.
async fn many_users() -> Writer {
    let store = Arc::new(MemoryStore::new());
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    let mut batch = Batch::new();
    for uid in 10..10 + USERS {
        let user = User {
            uid,
            status: !uid.is_multiple_of(100),
            created: NOW.plus(-(uid as i64 % 7)),
            ..accounts.draft_user(new_user(&format!("user {uid}")))
        };
        batch.put(Table::Names, user.name.clone(), encode(&uid));
        batch.put(Table::Users, table::user(uid), encode(&user));
    }
    store.commit(batch).await.unwrap();
    accounts
}

/// All pages of a search: the uids, and the number of pages.
async fn all_pages(
    accounts: &Writer,
    limit: usize,
    search: impl Fn() -> (Rows, Filter<User>, Option<Sort<User>>),
) -> (Vec<u64>, usize) {
    let (mut uids, mut after) = (Vec::new(), None);
    for pages in 1..1000 {
        let (rows, matches, sort) = search();
        let found = accounts.search(Search { rows, matches, sort, after, limit }).await.unwrap();
        assert!(found.items.len() <= limit);
        uids.extend(found.items.iter().map(|user| user.record.uid));
        match found.next {
            Some(next) => after = Some(next),
            None => return (uids, pages),
        }
    }
    panic!("the pages have no end");
}

fn is_blocked() -> Filter<User> {
    Box::new(|user| Ok(!user.status))
}

#[tokio::test]
async fn pages_of_a_filtered_list_have_every_match_once() {
    let accounts = many_users().await;
    let blocked: Vec<u64> = (1..=25).map(|number| number * 100).collect();
    for limit in [1, 7, 25, 100] {
        let search = || (Rows::Table(Table::Users), is_blocked(), None);
        let (uids, pages) = all_pages(&accounts, limit, search).await;
        assert_eq!(uids, blocked, "{limit}");
        // A page ends after a thousand rows, even if it has fewer records than requested.
        assert!(pages >= 3, "{pages}");
        let by_name = || (Rows::Names("user 2".into()), is_blocked(), None);
        let (mut uids, _) = all_pages(&accounts, limit, by_name).await;
        uids.sort_unstable();
        assert_eq!(uids, [200, 2000, 2100, 2200, 2300, 2400, 2500], "{limit}");
    }
}

#[tokio::test]
async fn sorted_pages_have_every_match_once_and_in_order() {
    let accounts = many_users().await;
    for descending in [false, true] {
        for limit in [3, 25, 1000] {
            let search = || {
                let key = |user: &User| Ok(SortKey::Number(user.created.0));
                let sort = Sort { key: Box::new(key), descending };
                (Rows::Table(Table::Users), is_blocked(), Some(sort))
            };
            let (uids, _) = all_pages(&accounts, limit, search).await;
            let mut expected: Vec<u64> = (1..=25).map(|number| number * 100).collect();
            expected.sort_by_key(|uid| (NOW.0 - (*uid as i64 % 7), *uid));
            if descending {
                expected.reverse();
            }
            assert_eq!(uids, expected, "{descending} {limit}");
        }
    }
}

#[tokio::test]
async fn dropped_search_gives_its_turn_back() {
    let accounts = many_users().await;
    for _ in 0..20 {
        let never: Filter<User> = Box::new(|_| Ok(false));
        let rows = Rows::Table(Table::Users);
        let search = Search { rows, matches: never, sort: None, after: None, limit: 1 };
        let search = accounts.search(search);
        tokio::select! { biased; _ = search => {}, () = std::future::ready(()) => {} }
    }
    let (uids, _) =
        all_pages(&accounts, 100, || (Rows::Table(Table::Users), is_blocked(), None)).await;
    assert_eq!(uids.len(), 25);
}

#[tokio::test]
async fn search_of_the_trail_is_bounded_and_knows_deleted_users() {
    let accounts = accounts().await;
    let ann = accounts.create_user(new_user("ann")).await.unwrap().record.uid;
    let key = accounts.issue_key(ann, NewKey::default()).await.unwrap().key.record.id;
    accounts.revoke_key(key).await.unwrap();
    accounts.delete_user(ann, None).await.unwrap();
    let entry = |number: u64| AuditEntry {
        time: NOW,
        actor: Actor::Program,
        act: Act::other("test", format!("number/{number}"), serde_json::Value::Null),
        operator: None,
    };
    for part in 0..5 {
        let entries = (0..500).map(|number| encode(&entry(part * 500 + number))).collect();
        let audit = Some(accounts.audit_append(entries).unwrap());
        accounts.store().commit(Batch { audit, ..Batch::new() }).await.unwrap();
    }
    assert_eq!(accounts.present_or_former_user("ANN").await.unwrap(), Some(ann));
    assert_eq!(accounts.present_or_former_user("nobody").await.unwrap(), None);
    for (order, expected) in [
        (AuditOrder::Newest, ["user.delete", "key.revoke", "key.create", "user.create"]),
        (AuditOrder::Oldest, ["user.create", "key.create", "key.revoke", "user.delete"]),
    ] {
        let (mut actions, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let filter = AuditFilter { user: Some(ann), ..AuditFilter::default() };
            let found = accounts.search_audit(filter, order, after, 100).await.unwrap();
            pages += 1;
            for entry in &found.items {
                actions.push(entry.entry.act.action.clone());
                assert_eq!(found.names.subject(entry.number), Some((ann, Some("ann"))));
            }
            match found.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(actions, expected);
        assert!(pages >= 3, "{pages}");
    }
}
