//! Tests of the changes that users may make to their own accounts, and of the changes for which
//! users must send their current password.

use serde_json::json;

use super::{Fixture, TestUser, fixture, single_value, value};
use crate::harness::{Response, credential};

const PASSWORD: &str = "correct horse battery";
const NEW_PASSWORD: &str = "a staple that is new";
const WRONG_PASSWORD: &str = "not the current password";
const MAIL_NEEDS_PASSWORD: &str =
    "mail: Your current password is missing or incorrect; it's required to change the Email.";
const PASS_NEEDS_PASSWORD: &str =
    "pass: Your current password is missing or incorrect; it's required to change the Password.";

/// Creates a user with a mail address and a password.
fn user_with_password(fixture: &Fixture, permissions: &[&str]) -> TestUser {
    for secret in [NEW_PASSWORD, WRONG_PASSWORD] {
        fixture.server.forbid_in_log(secret);
    }
    let mail = format!("{}@example.com", fixture.unique("owner"));
    fixture.user_with_record(json!({ "mail": mail, "password": PASSWORD }), permissions)
}

/// Sends a request that is authenticated with a password.
fn log_in(fixture: &Fixture, user: &TestUser, password: &str) -> Response {
    let existing = fixture.server.admin_api("GET", "/api/v1/applications/passwords").send();
    if existing.status == 404 {
        let application = json!({ "id": "passwords", "name": "Passwords", "type": "basic" });
        // This request fails if another test creates the application at the same time. The failure
        // does not matter.
        fixture.server.admin_api("POST", "/api/v1/applications").json(&application).send();
    }
    let pair = credential(&user.name, password);
    fixture.server.forbid_in_log(&pair);
    let request = fixture.server.request("GET", &format!("/user/{}", user.uid));
    request
        .header("AUTH-METHOD", "passwords")
        .header("Authorization", format!("Basic {pair}"))
        .send()
}

#[test]
fn changing_the_mail_address_requires_the_current_password() {
    let fixture = fixture();
    let caller = user_with_password(&fixture, &[]);
    let mail = format!("{}@example.com", fixture.unique("changed"));
    let change = single_value("mail", mail.clone());
    fixture.patch(&caller, caller.uid, &change).assert_violations(&[MAIL_NEEDS_PASSWORD]);
    for pass in [
        json!([{ "existing": WRONG_PASSWORD }]),
        json!([{ "existing": "" }]),
        json!([{ "existing": null }]),
        json!([]),
        json!([{ "existing": format!("{PASSWORD} ") }]),
    ] {
        let mut change = change.clone();
        change["pass"] = pass;
        fixture.patch(&caller, caller.uid, &change).assert_violations(&[MAIL_NEEDS_PASSWORD]);
    }
    assert_ne!(value(&fixture.get(&caller, caller.uid).entity(200), "mail"), &json!(mail));
    for pass in [json!([{ "existing": PASSWORD }]), json!({ "existing": PASSWORD })] {
        let mut change = single_value("mail", format!("{}@example.com", fixture.unique("changed")));
        change["pass"] = pass;
        let entity = fixture.patch(&caller, caller.uid, &change).entity(200);
        assert_eq!(entity["mail"], change["mail"]);
    }
    assert_eq!(log_in(&fixture, &caller, PASSWORD).status, 200);
}

#[test]
fn changing_the_password_requires_the_current_password() {
    let fixture = fixture();
    let caller = user_with_password(&fixture, &[]);
    fixture
        .patch(&caller, caller.uid, &single_value("pass", NEW_PASSWORD))
        .assert_violations(&[PASS_NEEDS_PASSWORD]);
    fixture
        .patch(&caller, caller.uid, &json!({ "pass": [NEW_PASSWORD] }))
        .assert_violations(&[PASS_NEEDS_PASSWORD]);
    let wrong = json!({ "pass": [{ "value": NEW_PASSWORD, "existing": WRONG_PASSWORD }] });
    fixture.patch(&caller, caller.uid, &wrong).assert_violations(&[PASS_NEEDS_PASSWORD]);
    // The new password is not accepted as the current password.
    let new_twice = json!({ "pass": [{ "value": NEW_PASSWORD, "existing": NEW_PASSWORD }] });
    fixture.patch(&caller, caller.uid, &new_twice).assert_violations(&[PASS_NEEDS_PASSWORD]);
    assert_eq!(log_in(&fixture, &caller, NEW_PASSWORD).status, 401);
    let right = json!({ "pass": [{ "value": NEW_PASSWORD, "existing": PASSWORD }] });
    assert!(fixture.patch(&caller, caller.uid, &right).entity(200).get("pass").is_none());
    assert_eq!(log_in(&fixture, &caller, NEW_PASSWORD).status, 200);
    assert_eq!(log_in(&fixture, &caller, PASSWORD).status, 401);
    // The old password is no longer accepted as the current password.
    fixture.patch(&caller, caller.uid, &right).assert_violations(&[PASS_NEEDS_PASSWORD]);
}

#[test]
fn a_missing_current_password_is_reported_for_each_changed_field() {
    let fixture = fixture();
    let caller = user_with_password(&fixture, &[]);
    let mut change = single_value("mail", format!("{}@example.com", fixture.unique("both")));
    change["pass"] = json!([{ "value": NEW_PASSWORD }]);
    fixture
        .patch(&caller, caller.uid, &change)
        .assert_violations(&[PASS_NEEDS_PASSWORD, MAIL_NEEDS_PASSWORD]);
    change["pass"] = json!([{ "value": NEW_PASSWORD, "existing": PASSWORD }]);
    let entity = fixture.patch(&caller, caller.uid, &change).entity(200);
    assert_eq!(entity["mail"], change["mail"]);
    assert_eq!(log_in(&fixture, &caller, NEW_PASSWORD).status, 200);
}

/// A change of the password requires the current password, and these users have none.
#[test]
fn a_user_without_a_password_cannot_set_a_password() {
    let fixture = fixture();
    let caller = fixture.user(&[]);
    fixture.server.forbid_in_log(NEW_PASSWORD);
    for existing in ["", NEW_PASSWORD, "null"] {
        let change = json!({ "pass": [{ "value": NEW_PASSWORD, "existing": existing }] });
        fixture.patch(&caller, caller.uid, &change).assert_violations(&[PASS_NEEDS_PASSWORD]);
    }
}

/// A user manager has the permission `administer users`.
#[test]
fn a_user_manager_needs_the_current_password_only_for_their_own_account() {
    let fixture = fixture();
    let caller = user_with_password(&fixture, &["administer users"]);
    let other = user_with_password(&fixture, &[]);
    fixture
        .patch(&caller, caller.uid, &single_value("pass", NEW_PASSWORD))
        .assert_violations(&[PASS_NEEDS_PASSWORD]);
    assert_eq!(fixture.patch(&caller, other.uid, &single_value("pass", NEW_PASSWORD)).status, 200);
    let mail = single_value("mail", format!("{}@example.com", fixture.unique("given")));
    assert_eq!(fixture.patch(&caller, other.uid, &mail).status, 200);
    assert_eq!(log_in(&fixture, &other, NEW_PASSWORD).status, 200);
}

#[test]
fn a_mail_address_cannot_be_removed() {
    let fixture = fixture();
    let caller = user_with_password(&fixture, &[]);
    let current_password = json!([{ "existing": PASSWORD }]);
    for empty in [json!([]), json!([{ "value": "" }]), json!([{ "value": null }]), json!({})] {
        let change = json!({ "mail": empty, "pass": current_password });
        fixture
            .patch(&caller, caller.uid, &change)
            .assert_violations(&["mail: Email field is required."]);
        let change = json!({ "mail": empty });
        fixture
            .patch(&caller, caller.uid, &change)
            .assert_violations(&["mail: Email field is required.", MAIL_NEEDS_PASSWORD]);
    }
    // An administrator cannot remove the mail address either.
    let change = json!({ "mail": [] });
    fixture
        .patch(&fixture.admin(), caller.uid, &change)
        .assert_violations(&["mail: Email field is required."]);
}

#[test]
fn changing_the_own_name_requires_the_permission() {
    let fixture = fixture();
    let caller = fixture.user(&[]);
    let change = single_value("name", fixture.unique("renamed"));
    let message = "Access denied on updating field 'name'.";
    fixture.patch(&caller, caller.uid, &change).assert_message(403, message);
    let caller = fixture.user(&["change own username"]);
    let entity = fixture.patch(&caller, caller.uid, &change).entity(200);
    assert_eq!(entity["name"], change["name"]);
    // The credential is rejected, because it contains the old user name.
    fixture.get(&caller, caller.uid).assert_error(
        404,
        "USER_DOES_NOT_EXIST",
        "The user does not exist.",
    );
    // The permission does not allow a user to change the name of another user.
    let (caller, other) = (fixture.user(&["change own username"]), fixture.user(&[]));
    assert_eq!(fixture.patch(&caller, other.uid, &change).status, 403);
}

#[test]
fn a_user_may_change_their_own_languages_and_time_zone() {
    let fixture = fixture();
    let caller = fixture.user(&[]);
    for (field, text) in [
        ("timezone", "America/Lima"),
        ("langcode", "de"),
        ("preferred_langcode", "fr"),
        ("preferred_admin_langcode", "es"),
    ] {
        let entity = fixture.patch(&caller, caller.uid, &single_value(field, text)).entity(200);
        assert_eq!(value(&entity, field), &json!(text));
    }
    let entity = fixture.patch(&caller, caller.uid, &json!({ "timezone": [] })).entity(200);
    assert_eq!(entity["timezone"], json!([]));
}

#[test]
fn a_user_may_not_change_the_other_fields_of_their_own_account() {
    let fixture = fixture();
    let role = fixture.role(&["administer users"]);
    let caller = fixture.user(&["change own username", "cancel account", "access user profiles"]);
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
        let response = fixture.patch(&caller, caller.uid, &json!({ field: given }));
        response.assert_message(403, &format!("Access denied on updating field '{field}'."));
    }
    let entity = fixture.get(&fixture.admin(), caller.uid).entity(200);
    assert_eq!(value(&entity, "status"), &json!(true));
}

/// A request that has only a current password changes nothing. The server checks this password only
/// if a changed field requires the check.
#[test]
fn a_current_password_without_a_change_has_no_effect() {
    let fixture = fixture();
    let caller = user_with_password(&fixture, &[]);
    let before = fixture.get(&caller, caller.uid).body;
    for existing in [PASSWORD, WRONG_PASSWORD] {
        let change = json!({ "pass": [{ "existing": existing }] });
        assert_eq!(fixture.patch(&caller, caller.uid, &change).body, before);
    }
    assert_eq!(log_in(&fixture, &caller, PASSWORD).status, 200);
}

/// A hidden field is rejected even if the request contains the field's current value. Otherwise a
/// user could find out the value by trying which value the server accepts.
#[test]
fn hidden_values_cannot_be_guessed() {
    let fixture = fixture();
    let caller = fixture.user(&[]);
    for (field, guess) in [("status", json!([{ "value": true }])), ("roles", json!([]))] {
        let response = fixture.patch(&caller, caller.uid, &json!({ field: guess }));
        response.assert_message(403, &format!("Access denied on updating field '{field}'."));
    }
}
