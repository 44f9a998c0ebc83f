//! Users, their keys and their roles, one change after another.

use super::*;
use crate::model::{Application, KeyId, User};

async fn rename(accounts: &Writer, uid: u64, name: &str) -> Result<Versioned<User>, AccountError> {
    let edit = |user: &mut User| {
        user.name = name.into();
        Ok(())
    };
    accounts.change_user(uid, None, edit).await
}

fn uid_of(accounts: &Writer, name: &str) -> Option<u64> {
    accounts.directory().user_by_name(name).map(|member| member.uid)
}

#[tokio::test]
async fn a_user_is_made_changed_and_deleted() {
    let accounts = accounts().await;
    let new = NewUser {
        mail: Some("Bob@Example.com".into()),
        roles: vec!["authenticated".into(), ADMINISTRATOR.into(), ADMINISTRATOR.into()],
        ..named("Bob")
    };
    let made = accounts.create_user(new).await.unwrap();
    let user = &made.record;
    assert_eq!((user.uid, user.created, user.changed), (2, NOW, NOW));
    assert_eq!(user.init.as_deref(), Some("Bob@Example.com"));
    assert_eq!(user.roles, [ADMINISTRATOR]);
    assert_eq!(accounts.user(2).unwrap().unwrap().record, *user);
    assert_eq!(uid_of(&accounts, "bOB"), Some(2));

    let later = NOW.plus(60);
    accounts.clock().set(later);
    let renamed = rename(&accounts, 2, "Robert").await.unwrap();
    assert!(renamed.revision > made.revision);
    assert_eq!((renamed.record.created, renamed.record.changed), (NOW, later));
    assert_eq!((uid_of(&accounts, "bob"), uid_of(&accounts, "robert")), (None, Some(2)));

    // What changes nothing is not written.
    let same = rename(&accounts, 2, "Robert").await.unwrap();
    assert_eq!(same.revision, renamed.revision);

    accounts.delete_user(2, None).await.unwrap();
    assert!(accounts.user(2).unwrap().is_none());
    assert_eq!(uid_of(&accounts, "robert"), None);
    let gone = accounts.delete_user(2, None).await.unwrap_err();
    assert_eq!(gone.to_string(), "there is no user 2");
    // Its name and its address are free again.
    let again = NewUser { mail: Some("bob@example.com".into()), ..named("ROBERT") };
    assert_eq!(accounts.create_user(again).await.unwrap().record.uid, 3);
}

#[tokio::test]
async fn names_and_addresses_are_taken_without_regard_to_case() {
    let accounts = accounts().await;
    let with = |name: &str, mail: &str| NewUser { mail: Some(mail.into()), ..named(name) };
    accounts.create_user(with("Jürgen", "j@example.com")).await.unwrap();
    assert_eq!(invalid(accounts.create_user(with("JÜRGEN", "x@example.com")).await), ["name"]);
    assert_eq!(invalid(accounts.create_user(with("other", "J@EXAMPLE.COM")).await), ["mail"]);
    accounts.create_user(with("other", "other@example.com")).await.unwrap();
    let uid = uid_of(&accounts, "other").unwrap();
    assert_eq!(invalid(rename(&accounts, uid, "jürGEN").await), ["name"]);
    assert_eq!(uid_of(&accounts, "other"), Some(uid));
    // A user may change the case of its own name.
    rename(&accounts, uid, "OTHER").await.unwrap();
    assert_eq!(accounts.directory().user_by_name("other").unwrap().name, "OTHER");
    // A name that was given back is free, and one that was refused was never taken.
    rename(&accounts, uid, "third").await.unwrap();
    accounts.create_user(with("other", "x@example.com")).await.unwrap();
}

#[tokio::test]
async fn what_is_not_in_order_is_refused_with_its_place() {
    let accounts = accounts().await;
    let attributes = |count: usize, size: usize| {
        (0..count).map(|number| (number.to_string(), "x".repeat(size))).collect()
    };
    let cases = [
        (NewUser { name: " a".into(), ..named("") }, "name"),
        (NewUser { mail: Some("nowhere".into()), ..named("a") }, "mail"),
        (NewUser { roles: vec!["nobody".into()], ..named("a") }, "roles.0"),
        (NewUser { roles: vec!["anonymous".into()], ..named("a") }, "roles.0"),
        (NewUser { timezone: Some("Mars/Base".into()), ..named("a") }, "timezone"),
        (NewUser { langcode: Some("?".into()), ..named("a") }, "langcode"),
        (NewUser { attributes: attributes(1, 513), ..named("a") }, "attributes.0"),
        // Each within its bounds, and too much together for one record.
        (NewUser { attributes: attributes(16, 512), ..named("a") }, ""),
    ];
    for (new, location) in cases {
        let found = invalid(accounts.create_user(new).await);
        assert_eq!(found, [location]);
    }
    assert_eq!(accounts.users(None, 9).unwrap().items.len(), 1);
    assert_eq!(accounts.fault(), None);
}

#[tokio::test]
async fn a_user_stays_who_it_is() {
    let accounts = accounts().await;
    accounts.create_user(named("bob")).await.unwrap();
    let before = accounts.user(2).unwrap().unwrap().record;
    let edit = |user: &mut User| {
        user.uid = 1;
        user.uuid = uuid::Uuid::nil();
        Ok(())
    };
    assert_eq!(invalid(accounts.change_user(2, None, edit).await), ["uid", "uuid"]);
    assert_eq!(accounts.user(2).unwrap().unwrap().record, before);
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let accounts = accounts().await;
    let last = "admin is the last active administrator.";
    assert_eq!(refusal(block(&accounts, 1).await), last);
    assert_eq!(refusal(give(&accounts, 1, &[]).await), last);
    assert_eq!(refusal(accounts.delete_user(1, None).await), last);
    // A blocked one does not count.
    let blocked = NewUser { status: false, ..administrator("blocked") };
    accounts.create_user(blocked).await.unwrap();
    assert_eq!(refusal(block(&accounts, 1).await), last);
    // Nor does the rest of the record matter.
    rename(&accounts, 1, "root").await.unwrap();

    accounts.create_user(administrator("second")).await.unwrap();
    block(&accounts, 1).await.unwrap();
    assert_eq!(accounts.directory().administrators(), [3]);
    let last = "second is the last active administrator.";
    assert_eq!(refusal(accounts.delete_user(3, None).await), last);
    accounts.delete_user(2, None).await.unwrap();
}

#[tokio::test]
async fn the_last_administrators_role_stays() {
    let accounts = accounts().await;
    let said = "All active administrators have their standing from the role administrator.";
    assert_eq!(refusal(set_admin(&accounts, ADMINISTRATOR, false).await), said);
    let held = accounts.delete::<Role>(ADMINISTRATOR, None).await;
    assert_eq!(refusal(held), "The role administrator is held by users.");

    // A role that nobody has is no other way.
    accounts.create(role("boss", true)).await.unwrap();
    assert_eq!(refusal(set_admin(&accounts, ADMINISTRATOR, false).await), said);
    // Nor is one of a blocked user.
    let blocked = NewUser { roles: vec!["boss".into()], ..named("blocked") };
    accounts.create_user(NewUser { status: false, ..blocked }).await.unwrap();
    assert_eq!(refusal(set_admin(&accounts, ADMINISTRATOR, false).await), said);

    give(&accounts, 1, &["boss"]).await.unwrap();
    set_admin(&accounts, ADMINISTRATOR, false).await.unwrap();
    accounts.delete::<Role>(ADMINISTRATOR, None).await.unwrap();
    assert_eq!(accounts.directory().administrators(), [1]);
    let said = "All active administrators have their standing from the role boss.";
    assert_eq!(refusal(set_admin(&accounts, "boss", false).await), said);
}

#[tokio::test]
async fn where_nobody_administers_roles_are_free() {
    let accounts = on(Arc::new(MemoryStore::new()));
    accounts.create(role("boss", true)).await.unwrap();
    set_admin(&accounts, "boss", false).await.unwrap();
    accounts.delete::<Role>("boss", None).await.unwrap();
}

#[tokio::test]
async fn the_roles_that_everybody_has_stay() {
    let accounts = accounts().await;
    for id in ["anonymous", "authenticated"] {
        let said = refusal(accounts.delete::<Role>(id, None).await);
        assert_eq!(said, format!("The role {id} belongs to every installation."));
        assert_eq!(invalid(set_admin(&accounts, id, true).await), ["is_admin"]);
    }
}

#[tokio::test]
async fn a_record_that_is_named_by_another_stays() {
    let accounts = accounts().await;
    accounts.create(Application::api_key("own", "Own")).await.unwrap();
    let edit = |resource: &mut crate::model::Resource| {
        let crate::model::Rules::Resource { authentication, .. } = &mut resource.rules else {
            panic!("the shipped resource has one set of rules")
        };
        *authentication = [String::from("own")].into();
        Ok::<_, AccountError>(())
    };
    accounts.change("entity.user", None, edit).await.unwrap();
    let said = refusal(accounts.delete::<Application>("own", None).await);
    assert_eq!(said, "The application own is named by the resource entity.user.");
    accounts.delete::<crate::model::Resource>("entity.user", None).await.unwrap();
    accounts.delete::<Application>("own", None).await.unwrap();
    let said = accounts.delete::<Application>("own", None).await.unwrap_err().to_string();
    assert_eq!(said, "there is no application own");
}

#[tokio::test]
async fn an_id_stays_and_a_revision_is_checked() {
    let accounts = accounts().await;
    let made = accounts.create(role("boss", false)).await.unwrap();
    let to = |id: &'static str| {
        move |role: &mut Role| {
            role.id = id.into();
            role.label.push('!');
            Ok::<_, AccountError>(())
        }
    };
    assert_eq!(invalid(accounts.change("boss", None, to("other")).await), ["id"]);
    let changed = accounts.change("boss", Some(made.revision), to("boss")).await.unwrap();
    assert_eq!(changed.record.label, "boss!");
    let stale = accounts.change("boss", Some(made.revision), to("boss")).await.unwrap_err();
    assert!(matches!(stale, AccountError::Stale { current } if current == changed.revision));
    let stale = accounts.delete::<Role>("boss", Some(made.revision)).await.unwrap_err();
    assert!(matches!(stale, AccountError::Stale { .. }), "{stale}");
    accounts.delete::<Role>("boss", Some(changed.revision)).await.unwrap();
}

#[tokio::test]
async fn deleting_a_user_deletes_its_keys_and_no_others() {
    let accounts = accounts().await;
    // 2 and 258: numbers whose bytes could be taken for one another's.
    let [two, other] = ["two", "other"].map(|name| accounts.create_user(named(name)));
    let (two, other) = (two.await.unwrap().record.uid, other.await.unwrap().record.uid);
    let mut ids = Vec::new();
    for uid in [two, other, two, two] {
        ids.push(accounts.issue_key(uid, NewKey::default()).await.unwrap().key.record.id);
    }
    assert_eq!(accounts.keys_of(two, None, 2).unwrap().items.len(), 2);
    assert!(accounts.keys_of(two, None, 2).unwrap().has_more);
    accounts.delete_user(two, None).await.unwrap();
    for (at, id) in ids.iter().enumerate() {
        let stays = at == 1;
        assert_eq!(accounts.key(*id).unwrap().is_some(), stays);
        assert_eq!(accounts.directory().key(*id).is_some(), stays);
    }
    assert!(accounts.keys_of(two, None, 9).unwrap().items.is_empty());
    assert_eq!(accounts.keys_of(other, None, 9).unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_key_is_revoked_once() {
    let accounts = accounts().await;
    let issued = accounts.issue_key(1, NewKey::default()).await.unwrap();
    let id = issued.key.record.id;
    assert!(!accounts.directory().key(id).unwrap().is_revoked);
    let revoked = accounts.revoke_key(id).await.unwrap();
    assert_eq!(revoked.record.revoked, Some(NOW));
    assert!(accounts.directory().key(id).unwrap().is_revoked);
    accounts.clock().set(NOW.plus(60));
    let again = accounts.revoke_key(id).await.unwrap();
    assert_eq!((again.revision, again.record), (revoked.revision, revoked.record));
    let unknown = accounts.revoke_key(KeyId::from_number(1)).await.unwrap_err();
    assert_eq!(unknown.to_string(), "there is no key 00000001");
}

#[tokio::test]
async fn a_key_is_checked_before_it_is_made() {
    let accounts = accounts().await;
    let with = |change: fn(&mut NewKey)| {
        let mut new = NewKey::default();
        change(&mut new);
        accounts.issue_key(1, new)
    };
    for (change, location) in [
        ((|new| new.label = "x".repeat(129)) as fn(&mut NewKey), "label"),
        (|new| new.label = "two\nlines".into(), "label"),
        (|new| new.expires = Some(NOW), "expires"),
        (|new| new.application = Some("nowhere".into()), "application"),
        (|new| new.networks = vec!["10.0.0.0/8".parse().unwrap(); 33], "networks"),
        (|new| new.scopes = Some(vec![String::new()]), "scopes.0"),
        (|new| new.scopes = Some(vec!["x".repeat(100); 100]), ""),
    ] {
        assert_eq!(invalid(with(change).await), [location]);
    }
    assert_eq!(accounts.keys(None, 9).unwrap().items.len(), 1);
    with(|new| new.expires = Some(NOW.plus(1))).await.unwrap();
    let nobody = accounts.issue_key(99, NewKey::default()).await.unwrap_err();
    assert_eq!(nobody.to_string(), "there is no user 99");
}

#[tokio::test]
async fn a_password_has_a_length() {
    let accounts = accounts().await;
    for bad in [String::new(), "x".repeat(1025)] {
        let result = accounts.hash_password(crate::model::Secret::new(bad)).await;
        assert_eq!(invalid(result), ["password"]);
    }
    accounts.hash_password(crate::model::Secret::new("x")).await.unwrap();
}
