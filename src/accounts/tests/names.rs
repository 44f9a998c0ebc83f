//! Tests of stores whose names and mail addresses were compared in lower case, by older versions.

use super::*;
use crate::{
    accounts::users::names::NAME_FORM,
    model::User,
    store::{Store, table},
};

/// Turns the index entries of all users into those of older versions.
async fn make_old(store: &MemoryStore, users: &[User]) {
    let mut batch = Batch::new();
    batch.delete(Table::Meta, NAME_FORM);
    for user in users {
        batch.delete(Table::Names, crate::model::fold(&user.name));
        batch.delete(Table::Mails, crate::model::fold(user.mail.as_deref().unwrap_or("none")));
    }
    for user in users {
        batch.put(Table::Users, table::user(user.uid), encode(user));
        batch.put(Table::Names, user.name.to_lowercase(), encode(&user.uid));
        if let Some(mail) = &user.mail {
            batch.put(Table::Mails, mail.to_lowercase(), encode(&user.uid));
        }
    }
    store.commit(batch).await.unwrap();
}

fn uid_of(accounts: &Writer, name: &str) -> Option<u64> {
    accounts.directory().user_by_name(name).map(|user| user.uid)
}

/// The uid in the index of names.
fn indexed(accounts: &Writer, name: &str) -> Option<u64> {
    let key = crate::model::fold(name);
    let stored = accounts.store().get(Table::Names, key.as_bytes()).unwrap();
    stored.map(|stored| stored.read(Table::Names, key.as_bytes()).unwrap())
}

/// Accounts with users who have these names and the uids 2, 3 and so on, in a store of an older
/// version that was opened again.
async fn old_accounts(names: &[&str]) -> Writer {
    let store = Arc::new(MemoryStore::new());
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    let mut users = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let new = accounts.create_user(new_user(&format!("user{index}"))).await.unwrap();
        let mail = Some(format!("{name}@example.com").replace(' ', "."));
        users.push(User { name: (*name).into(), mail, ..new.record });
    }
    make_old(&store, &users).await;
    let accounts = accounts_on(store);
    assert!(accounts.first_start().await.unwrap().is_none());
    accounts
}

async fn rename(accounts: &Writer, uid: u64, name: &str) -> Result<Versioned<User>, AccountError> {
    let edit = |user: &mut User| {
        user.name = name.into();
        Ok(())
    };
    accounts.change_user(uid, None, edit).await
}

#[tokio::test]
async fn index_of_an_old_store_is_brought_into_the_new_form() {
    let accounts = old_accounts(&["Rene\u{301}", "straße"]).await;
    for (name, uid) in [("REN\u{c9}", 2), ("ren\u{e9}", 2), ("STRASSE", 3), ("straße", 3)] {
        assert_eq!(
            (uid_of(&accounts, name), indexed(&accounts, name)),
            (Some(uid), Some(uid)),
            "{name}"
        );
    }
    assert_eq!(invalid(accounts.create_user(new_user("ren\u{e9}")).await), ["name"]);
    let mail = NewUser { mail: Some("ren\u{e9}@example.com".into()), ..new_user("other") };
    assert_eq!(invalid(accounts.create_user(mail).await), ["mail"]);
    accounts.delete_user(2, None).await.unwrap();
    assert_eq!(indexed(&accounts, "ren\u{e9}"), None);
    accounts.create_user(new_user("ren\u{e9}")).await.unwrap();
}

#[tokio::test]
async fn users_whose_names_are_equal_now_keep_working() {
    let accounts = old_accounts(&["strasse", "straße", "other"]).await;
    let by_name = |name: &str| uid_of(&accounts, name);
    assert_eq!(["strasse", "STRASSE", "straße", "STRAßE"].map(by_name), [2, 2, 3, 2].map(Some));
    assert_eq!(indexed(&accounts, "straße"), Some(2));
    let hidden: Vec<u64> =
        accounts.directory().colliding_users().iter().map(|user| user.uid).collect();
    assert_eq!(hidden, [3]);
    // Both can be changed, but no third user gets the name, and neither takes the other's spelling.
    block(&accounts, 3).await.unwrap();
    assert_eq!(by_name("straße"), Some(3));
    let violations = accounts.user_violations(&accounts.user(3).unwrap().unwrap().record).unwrap();
    assert_eq!(violations, []);
    for name in ["Strasse", "STRAßE"] {
        assert_eq!(invalid(accounts.create_user(new_user(name)).await), ["name"], "{name}");
        assert_eq!(invalid(rename(&accounts, 4, name).await), ["name"], "{name}");
    }
    assert_eq!(invalid(rename(&accounts, 3, "strasse").await), ["name"]);
}

#[tokio::test]
async fn name_that_becomes_free_goes_to_the_other_user_who_has_it() {
    for ends in ["delete", "rename"] {
        let accounts = old_accounts(&["strasse", "straße"]).await;
        match ends {
            "delete" => accounts.delete_user(2, None).await.unwrap(),
            _ => drop(rename(&accounts, 2, "street").await.unwrap()),
        }
        assert_eq!(uid_of(&accounts, "STRASSE"), Some(3), "{ends}");
        assert_eq!(indexed(&accounts, "strasse"), Some(3), "{ends}");
        assert_eq!(invalid(accounts.create_user(new_user("strasse")).await), ["name"], "{ends}");
        // The end of a user who is found by the exact name leaves the other's entry.
        let accounts = old_accounts(&["strasse", "straße"]).await;
        match ends {
            "delete" => accounts.delete_user(3, None).await.unwrap(),
            _ => drop(rename(&accounts, 3, "street").await.unwrap()),
        }
        assert_eq!(
            ["straße", "strasse"].map(|name| uid_of(&accounts, name)),
            [Some(2); 2],
            "{ends}"
        );
        assert_eq!(indexed(&accounts, "strasse"), Some(2), "{ends}");
    }
}
