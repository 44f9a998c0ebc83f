//! What people may do with their own accounts, and what they must prove.

use serde_json::json;

use super::{Person, World, one, value, world};
use crate::harness::{Answer, credential};

const PASSWORD: &str = "correct horse battery";
const NEW: &str = "a staple that is new";
const WRONG: &str = "not the one it has";
const MAIL: &str =
    "mail: Your current password is missing or incorrect; it's required to change the Email.";
const PASS: &str =
    "pass: Your current password is missing or incorrect; it's required to change the Password.";

/// Somebody with a mail address and a password.
fn owner(world: &World, permissions: &[&str]) -> Person {
    for secret in [NEW, WRONG] {
        world.server.hide(secret);
    }
    let mail = format!("{}@example.com", world.fresh("owner"));
    world.person_with(json!({ "mail": mail, "password": PASSWORD }), permissions)
}

/// Logs in with a password.
fn log_in(world: &World, who: &Person, password: &str) -> Answer {
    let known = world.server.manages("GET", "/api/v1/applications/passwords").send();
    if known.status == 404 {
        let application = json!({ "id": "passwords", "name": "Passwords", "type": "basic" });
        // Another test may be faster.
        world.server.manages("POST", "/api/v1/applications").json(&application).send();
    }
    let pair = credential(&who.name, password);
    world.server.hide(&pair);
    let asked = world.server.request("GET", &format!("/user/{}", who.uid));
    asked.header("AUTH-METHOD", "passwords").header("Authorization", format!("Basic {pair}")).send()
}

#[test]
fn a_mail_address_takes_the_current_password() {
    let world = world();
    let own = owner(&world, &[]);
    let mail = format!("{}@example.com", world.fresh("changed"));
    let change = one("mail", mail.clone());
    world.patch(&own, own.uid, &change).finds(&[MAIL]);
    for pass in [
        json!([{ "existing": WRONG }]),
        json!([{ "existing": "" }]),
        json!([{ "existing": null }]),
        json!([]),
        json!([{ "existing": format!("{PASSWORD} ") }]),
    ] {
        let mut change = change.clone();
        change["pass"] = pass;
        world.patch(&own, own.uid, &change).finds(&[MAIL]);
    }
    assert_ne!(value(&world.get(&own, own.uid).entity(200), "mail"), &json!(mail));
    for pass in [json!([{ "existing": PASSWORD }]), json!({ "existing": PASSWORD })] {
        let mut change = one("mail", format!("{}@example.com", world.fresh("changed")));
        change["pass"] = pass;
        let entity = world.patch(&own, own.uid, &change).entity(200);
        assert_eq!(entity["mail"], change["mail"]);
    }
    assert_eq!(log_in(&world, &own, PASSWORD).status, 200);
}

#[test]
fn a_password_takes_the_current_password() {
    let world = world();
    let own = owner(&world, &[]);
    world.patch(&own, own.uid, &one("pass", NEW)).finds(&[PASS]);
    world.patch(&own, own.uid, &json!({ "pass": [NEW] })).finds(&[PASS]);
    let wrong = json!({ "pass": [{ "value": NEW, "existing": WRONG }] });
    world.patch(&own, own.uid, &wrong).finds(&[PASS]);
    // The new one proves nothing.
    let itself = json!({ "pass": [{ "value": NEW, "existing": NEW }] });
    world.patch(&own, own.uid, &itself).finds(&[PASS]);
    assert_eq!(log_in(&world, &own, NEW).status, 401);
    let right = json!({ "pass": [{ "value": NEW, "existing": PASSWORD }] });
    assert!(world.patch(&own, own.uid, &right).entity(200).get("pass").is_none());
    assert_eq!(log_in(&world, &own, NEW).status, 200);
    assert_eq!(log_in(&world, &own, PASSWORD).status, 401);
    // The old one is none any more.
    world.patch(&own, own.uid, &right).finds(&[PASS]);
}

#[test]
fn both_at_once_are_both_told() {
    let world = world();
    let own = owner(&world, &[]);
    let mut change = one("mail", format!("{}@example.com", world.fresh("both")));
    change["pass"] = json!([{ "value": NEW }]);
    world.patch(&own, own.uid, &change).finds(&[PASS, MAIL]);
    change["pass"] = json!([{ "value": NEW, "existing": PASSWORD }]);
    let entity = world.patch(&own, own.uid, &change).entity(200);
    assert_eq!(entity["mail"], change["mail"]);
    assert_eq!(log_in(&world, &own, NEW).status, 200);
}

/// Who has no password can prove nothing.
#[test]
fn an_account_without_a_password() {
    let world = world();
    let own = world.person(&[]);
    world.server.hide(NEW);
    for existing in ["", NEW, "null"] {
        let change = json!({ "pass": [{ "value": NEW, "existing": existing }] });
        world.patch(&own, own.uid, &change).finds(&[PASS]);
    }
}

/// An administrator's own account is as well guarded; other accounts take no proof from those who administer users.
#[test]
fn who_administers_users_proves_it_for_their_own_account_alone() {
    let world = world();
    let own = owner(&world, &["administer users"]);
    let other = owner(&world, &[]);
    world.patch(&own, own.uid, &one("pass", NEW)).finds(&[PASS]);
    assert_eq!(world.patch(&own, other.uid, &one("pass", NEW)).status, 200);
    let mail = one("mail", format!("{}@example.com", world.fresh("given")));
    assert_eq!(world.patch(&own, other.uid, &mail).status, 200);
    assert_eq!(log_in(&world, &other, NEW).status, 200);
}

#[test]
fn a_mail_address_cannot_be_given_up() {
    let world = world();
    let own = owner(&world, &[]);
    let proof = json!([{ "existing": PASSWORD }]);
    for empty in [json!([]), json!([{ "value": "" }]), json!([{ "value": null }]), json!({})] {
        let change = json!({ "mail": empty, "pass": proof });
        world.patch(&own, own.uid, &change).finds(&["mail: Email field is required."]);
        let change = json!({ "mail": empty });
        world.patch(&own, own.uid, &change).finds(&["mail: Email field is required.", MAIL]);
    }
    // It has been there once, so those who administer users cannot take it away either.
    let change = json!({ "mail": [] });
    world.patch(&world.admin(), own.uid, &change).finds(&["mail: Email field is required."]);
}

#[test]
fn a_name_takes_a_permission() {
    let world = world();
    let own = world.person(&[]);
    let change = one("name", world.fresh("renamed"));
    let said = "Access denied on updating field 'name'.";
    world.patch(&own, own.uid, &change).says(403, said);
    let own = world.person(&["change own username"]);
    let entity = world.patch(&own, own.uid, &change).entity(200);
    assert_eq!(entity["name"], change["name"]);
    // The credential names the user.
    world.get(&own, own.uid).refuses(404, "USER_DOES_NOT_EXIST", "The user does not exist.");
    // It is for one's own.
    let (own, other) = (world.person(&["change own username"]), world.person(&[]));
    assert_eq!(world.patch(&own, other.uid, &change).status, 403);
}

#[test]
fn languages_and_the_time_zone_are_ones_own() {
    let world = world();
    let own = world.person(&[]);
    for (field, text) in [
        ("timezone", "America/Lima"),
        ("langcode", "de"),
        ("preferred_langcode", "fr"),
        ("preferred_admin_langcode", "es"),
    ] {
        let entity = world.patch(&own, own.uid, &one(field, text)).entity(200);
        assert_eq!(value(&entity, field), &json!(text));
    }
    let entity = world.patch(&own, own.uid, &json!({ "timezone": [] })).entity(200);
    assert_eq!(entity["timezone"], json!([]));
}

#[test]
fn the_rest_is_not() {
    let world = world();
    let role = world.role(&["administer users"]);
    let own = world.person(&["change own username", "cancel account", "access user profiles"]);
    for (field, given) in [
        ("status", json!([{ "value": false }])),
        ("status", json!([{ "value": true }])),
        ("roles", json!([{ "target_id": role }])),
        ("roles", json!([{ "target_id": "administrator" }])),
        ("roles", json!([])),
        ("created", json!([{ "value": 1 }])),
        ("access", json!([{ "value": 1 }])),
        ("login", json!([{ "value": 1 }])),
        ("init", json!([{ "value": "x@example.com" }])),
        ("uid", json!([{ "value": 1 }])),
        ("uuid", json!([{ "value": "0198c5a0-0000-7000-8000-000000000000" }])),
        ("changed", json!([{ "value": 1 }])),
        ("default_langcode", json!([{ "value": false }])),
    ] {
        let answer = world.patch(&own, own.uid, &json!({ field: given }));
        answer.says(403, &format!("Access denied on updating field '{field}'."));
    }
    let entity = world.get(&world.admin(), own.uid).entity(200);
    assert_eq!(value(&entity, "status"), &json!(true));
}

/// A proof is not written, and one that nothing asks for is not checked.
#[test]
fn a_proof_alone_changes_nothing() {
    let world = world();
    let own = owner(&world, &[]);
    let before = world.get(&own, own.uid).body;
    for existing in [PASSWORD, WRONG] {
        let change = json!({ "pass": [{ "existing": existing }] });
        assert_eq!(world.patch(&own, own.uid, &change).body, before);
    }
    assert_eq!(log_in(&world, &own, PASSWORD).status, 200);
}

/// Guessing somebody's value by sending it and seeing whether it counts as a change.
#[test]
fn what_cannot_be_seen_cannot_be_guessed() {
    let world = world();
    let own = world.person(&[]);
    for (field, guess) in [("status", json!([{ "value": true }])), ("roles", json!([]))] {
        let answer = world.patch(&own, own.uid, &json!({ field: guess }));
        answer.says(403, &format!("Access denied on updating field '{field}'."));
    }
}
