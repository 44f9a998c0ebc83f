//! Tests of users, keys, roles and applications, without simultaneous changes.

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
    accounts.directory().user_by_name(name).map(|user| user.uid)
}

#[tokio::test]
async fn user_is_created_changed_and_deleted() {
    let accounts = accounts().await;
    let new = NewUser {
        mail: Some("Bob@Example.com".into()),
        roles: vec!["authenticated".into(), ADMINISTRATOR.into(), ADMINISTRATOR.into()],
        ..new_user("Bob")
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

    // A change without effect is not written.
    let same = rename(&accounts, 2, "Robert").await.unwrap();
    assert_eq!(same.revision, renamed.revision);

    accounts.delete_user(2, None).await.unwrap();
    assert!(accounts.user(2).unwrap().is_none());
    assert_eq!(uid_of(&accounts, "robert"), None);
    let gone = accounts.delete_user(2, None).await.unwrap_err();
    assert_eq!(gone.to_string(), "there is no user 2");
    // The name and the mail address are free again.
    let successor = NewUser { mail: Some("bob@example.com".into()), ..new_user("ROBERT") };
    assert_eq!(accounts.create_user(successor).await.unwrap().record.uid, 3);
}

#[tokio::test]
async fn names_and_addresses_are_unique_regardless_of_case() {
    let accounts = accounts().await;
    let with = |name: &str, mail: &str| NewUser { mail: Some(mail.into()), ..new_user(name) };
    accounts.create_user(with("Jürgen", "j@example.com")).await.unwrap();
    assert_eq!(invalid(accounts.create_user(with("JÜRGEN", "x@example.com")).await), ["name"]);
    assert_eq!(invalid(accounts.create_user(with("other", "J@EXAMPLE.COM")).await), ["mail"]);
    accounts.create_user(with("other", "other@example.com")).await.unwrap();
    let uid = uid_of(&accounts, "other").unwrap();
    assert_eq!(invalid(rename(&accounts, uid, "jürGEN").await), ["name"]);
    assert_eq!(uid_of(&accounts, "other"), Some(uid));
    // A user's name may change to the same name in another case.
    rename(&accounts, uid, "OTHER").await.unwrap();
    assert_eq!(accounts.directory().user_by_name("other").unwrap().name, "OTHER");
    // A former name is free again. The mail address of a refused user is free too.
    rename(&accounts, uid, "third").await.unwrap();
    accounts.create_user(with("other", "x@example.com")).await.unwrap();
}

#[tokio::test]
async fn refusal_of_an_invalid_user_has_the_location_of_the_fault() {
    let accounts = accounts().await;
    let attributes = |count: usize, size: usize| {
        (0..count).map(|number| (number.to_string(), "x".repeat(size))).collect()
    };
    let cases = [
        (NewUser { name: " a".into(), ..new_user("") }, "name"),
        (NewUser { mail: Some("nowhere".into()), ..new_user("a") }, "mail"),
        (NewUser { roles: vec!["nobody".into()], ..new_user("a") }, "roles.0"),
        (NewUser { roles: vec!["anonymous".into()], ..new_user("a") }, "roles.0"),
        (NewUser { timezone: Some("Mars/Base".into()), ..new_user("a") }, "timezone"),
        (NewUser { langcode: Some("?".into()), ..new_user("a") }, "langcode"),
        (NewUser { attributes: attributes(1, 513), ..new_user("a") }, "attributes.0"),
        // Each attribute is valid, but the record is too large.
        (NewUser { attributes: attributes(16, 512), ..new_user("a") }, ""),
    ];
    for (new, location) in cases {
        let found = invalid(accounts.create_user(new).await);
        assert_eq!(found, [location]);
    }
    assert_eq!(accounts.users(None, 9).unwrap().items.len(), 1);
    assert_eq!(accounts.fault(), None);
}

#[tokio::test]
async fn uid_and_uuid_cannot_be_changed() {
    let accounts = accounts().await;
    accounts.create_user(new_user("bob")).await.unwrap();
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
async fn last_administrator_cannot_be_removed() {
    let accounts = accounts().await;
    let message = "admin is the last active administrator.";
    assert_eq!(refusal(block(&accounts, 1).await), message);
    assert_eq!(refusal(set_roles(&accounts, 1, &[]).await), message);
    assert_eq!(refusal(accounts.delete_user(1, None).await), message);
    // A blocked administrator does not count.
    let blocked = NewUser { status: false, ..new_admin("blocked") };
    accounts.create_user(blocked).await.unwrap();
    assert_eq!(refusal(block(&accounts, 1).await), message);
    // Other fields of the last administrator may be changed.
    rename(&accounts, 1, "root").await.unwrap();

    accounts.create_user(new_admin("second")).await.unwrap();
    block(&accounts, 1).await.unwrap();
    assert_eq!(accounts.directory().administrators(), [3]);
    let message = "second is the last active administrator.";
    assert_eq!(refusal(accounts.delete_user(3, None).await), message);
    accounts.delete_user(2, None).await.unwrap();
}

#[tokio::test]
async fn role_of_the_last_administrator_cannot_be_removed() {
    let accounts = accounts().await;
    let message = "All active administrators get their rights from the role administrator.";
    assert_eq!(refusal(set_admin(&accounts, ADMINISTRATOR, false).await), message);
    let deletion = accounts.delete::<Role>(ADMINISTRATOR, None).await;
    assert_eq!(refusal(deletion), "The role administrator is held by users.");

    // An administrator's role without users does not count.
    accounts.create(role("boss", true)).await.unwrap();
    assert_eq!(refusal(set_admin(&accounts, ADMINISTRATOR, false).await), message);
    // An administrator's role of a blocked user does not count.
    let blocked = NewUser { roles: vec!["boss".into()], ..new_user("blocked") };
    accounts.create_user(NewUser { status: false, ..blocked }).await.unwrap();
    assert_eq!(refusal(set_admin(&accounts, ADMINISTRATOR, false).await), message);

    set_roles(&accounts, 1, &["boss"]).await.unwrap();
    set_admin(&accounts, ADMINISTRATOR, false).await.unwrap();
    accounts.delete::<Role>(ADMINISTRATOR, None).await.unwrap();
    assert_eq!(accounts.directory().administrators(), [1]);
    let message = "All active administrators get their rights from the role boss.";
    assert_eq!(refusal(set_admin(&accounts, "boss", false).await), message);
}

#[tokio::test]
async fn every_role_can_be_changed_if_there_is_no_administrator() {
    let accounts = accounts_on(Arc::new(MemoryStore::new()));
    accounts.create(role("boss", true)).await.unwrap();
    set_admin(&accounts, "boss", false).await.unwrap();
    accounts.delete::<Role>("boss", None).await.unwrap();
}

#[tokio::test]
async fn locked_roles_cannot_be_deleted() {
    let accounts = accounts().await;
    for id in ["anonymous", "authenticated"] {
        let message = refusal(accounts.delete::<Role>(id, None).await);
        assert_eq!(message, format!("The role {id} is built in and cannot be deleted."));
        assert_eq!(invalid(set_admin(&accounts, id, true).await), ["is_admin"]);
    }
}

#[tokio::test]
async fn application_named_by_a_resource_cannot_be_deleted() {
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
    let message = refusal(accounts.delete::<Application>("own", None).await);
    assert_eq!(message, "The application own is named by the resource entity.user.");
    accounts.delete::<crate::model::Resource>("entity.user", None).await.unwrap();
    accounts.delete::<Application>("own", None).await.unwrap();
    let message = accounts.delete::<Application>("own", None).await.unwrap_err().to_string();
    assert_eq!(message, "there is no application own");
}

#[tokio::test]
async fn id_cannot_be_changed_and_revision_is_checked() {
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
async fn deleting_a_user_deletes_only_that_users_keys() {
    let accounts = accounts().await;
    let [deleted, other] = ["deleted", "other"].map(|name| accounts.create_user(new_user(name)));
    let (deleted, other) = (deleted.await.unwrap().record.uid, other.await.unwrap().record.uid);
    let mut ids = Vec::new();
    for uid in [deleted, other, deleted, deleted] {
        ids.push(accounts.issue_key(uid, NewKey::default()).await.unwrap().key.record.id);
    }
    assert_eq!(accounts.keys_of(deleted, None, 2).unwrap().items.len(), 2);
    assert!(accounts.keys_of(deleted, None, 2).unwrap().has_more);
    accounts.delete_user(deleted, None).await.unwrap();
    for (index, id) in ids.iter().enumerate() {
        // The second key belongs to the other user.
        let is_kept = index == 1;
        assert_eq!(accounts.key(*id).unwrap().is_some(), is_kept);
        assert_eq!(accounts.directory().key(*id).is_some(), is_kept);
    }
    assert!(accounts.keys_of(deleted, None, 9).unwrap().items.is_empty());
    assert_eq!(accounts.keys_of(other, None, 9).unwrap().items.len(), 1);
}

#[tokio::test]
async fn second_revocation_changes_nothing() {
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
async fn refusal_of_an_invalid_key_has_the_location_of_the_fault() {
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
async fn password_length_is_limited() {
    let accounts = accounts().await;
    for bad in [String::new(), "x".repeat(1025)] {
        let result = accounts.hash_password(crate::model::Secret::new(bad)).await;
        assert_eq!(invalid(result), ["password"]);
    }
    accounts.hash_password(crate::model::Secret::new("x")).await.unwrap();
}
