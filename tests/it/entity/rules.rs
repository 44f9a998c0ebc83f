//! Tests of the validation rules for field values, with the exact message of each rule.

use serde_json::{Value, json};

use super::{Fixture, fixture, single_value, value};

/// Checks that the value is rejected both in a new user and in a change of a user.
#[track_caller]
fn assert_rejected(fixture: &Fixture, field: &str, given: &Value, violations: &[&str]) {
    let mut body = single_value("name", fixture.unique("ruled"));
    body[field] = given.clone();
    fixture.post(&fixture.admin(), &body).assert_violations(violations);
    let uid = fixture.user(&[]).uid;
    fixture.patch(&fixture.admin(), uid, &json!({ field: given })).assert_violations(violations);
}

#[track_caller]
fn assert_name_rejected(name: &str, message: &str) {
    assert_rejected(
        &fixture(),
        "name",
        &json!([{ "value": name }]),
        &[&format!("name: {message}")],
    );
}

#[test]
fn an_empty_name_is_rejected() {
    let message = "You must enter a username.";
    assert_name_rejected("", message);
    let fixture = fixture();
    let violation = format!("name: {message}");
    for empty in [json!([]), json!({}), json!([{}]), json!([null]), json!([{ "value": null }])] {
        assert_rejected(&fixture, "name", &empty, &[&violation]);
    }
    // A new user without the field is rejected with the same message.
    fixture.post(&fixture.admin(), &json!({})).assert_violations(&[&violation]);
    fixture.post(&fixture.admin(), &single_value("status", true)).assert_violations(&[&violation]);
}

#[test]
fn a_name_must_not_begin_with_a_space() {
    assert_name_rejected(" llama", "The username cannot begin with a space.");
    assert_name_rejected(" ", "The username cannot begin with a space.");
}

#[test]
fn a_name_must_not_end_with_a_space() {
    assert_name_rejected("llama ", "The username cannot end with a space.");
}

#[test]
fn a_name_must_not_have_several_spaces_in_a_row() {
    assert_name_rejected("lla  ma", "The username cannot contain multiple spaces in a row.");
}

#[test]
fn a_name_must_not_have_an_invalid_character() {
    for name in [
        "a:b",
        "a/b",
        "a\"b",
        "a<b",
        "a\0b",
        "a\nb",
        "a\tb",
        "a,b",
        "a;b",
        "a&b",
        "a*b",
        "a!b",
        "a#b",
        "a(b)",
        "a\u{a0}b",
        "a\u{200b}b",
        "\u{feff}a",
        "a\u{202e}b",
        "\u{ff21}",
    ] {
        assert_name_rejected(name, "The username contains an invalid character.");
    }
}

#[test]
fn a_name_may_have_letters_digits_and_some_punctuation() {
    let fixture = fixture();
    for part in
        ["Llama 1", "@llama", "lla+ma", "lla_ma", "lla.ma", "O'Llama", "lla-ma", "Ünï", "日本"]
    {
        let name = format!("{part}{}", fixture.unique(""));
        let entity =
            fixture.post(&fixture.admin(), &single_value("name", name.clone())).entity(201);
        assert_eq!(value(&entity, "name"), &json!(name));
    }
}

#[test]
fn a_name_has_at_most_60_characters() {
    let fixture = fixture();
    for letter in ["x", "é"] {
        let name = format!("{:é<60}", fixture.unique(letter));
        assert_eq!(name.chars().count(), 60);
        assert_eq!(fixture.post(&fixture.admin(), &single_value("name", name.clone())).status, 201);
        let name = format!("{name}{letter}");
        let message = format!("The username {name} is too long: it must be 60 characters or less.");
        assert_name_rejected(&name, &message);
    }
}

#[test]
fn a_name_must_be_unique_in_any_case() {
    let fixture = fixture();
    let (uid, name) = (fixture.user(&[]).uid, fixture.user(&[]).name);
    for name in [name.clone(), name.to_uppercase(), "Admin".into()] {
        let violation = format!("name: The username {name} is already taken.");
        fixture
            .post(&fixture.admin(), &single_value("name", name.clone()))
            .assert_violations(&[&violation]);
        fixture
            .patch(&fixture.admin(), uid, &single_value("name", name))
            .assert_violations(&[&violation]);
    }
    // A user may change the case of their own name.
    let caller = fixture.user(&[]);
    let change = single_value("name", caller.name.to_uppercase());
    let entity = fixture.patch(&fixture.admin(), caller.uid, &change).entity(200);
    assert_eq!(value(&entity, "name"), &json!(caller.name.to_uppercase()));
}

#[test]
fn an_invalid_mail_address_is_rejected() {
    let fixture = fixture();
    let violation = "mail.0.value: This value is not a valid email address.";
    for mail in
        ["x", "@", "x@", "@x", "x y@example.com", "x@example..com", "x@exa mple.com", "x@-a.b"]
    {
        assert_rejected(&fixture, "mail", &json!([{ "value": mail }]), &[violation]);
    }
}

#[test]
fn a_mail_address_must_be_unique_in_any_case() {
    let fixture = fixture();
    let uid = fixture.user(&[]).uid;
    let mail = format!("{}@example.com", fixture.unique("taken"));
    fixture.user_with_record(json!({ "mail": mail }), &[]);
    for mail in [mail.clone(), mail.to_uppercase()] {
        let violation = format!("mail: The email address {mail} is already taken.");
        let mut body = single_value("name", fixture.unique("never"));
        body["mail"] = json!([{ "value": mail }]);
        fixture.post(&fixture.admin(), &body).assert_violations(&[&violation]);
        fixture
            .patch(&fixture.admin(), uid, &single_value("mail", mail))
            .assert_violations(&[&violation]);
    }
    // The mail address of a deleted user can be used again.
    let holder = fixture.user_with_record(json!({ "mail": format!("x{mail}") }), &[]);
    assert_eq!(fixture.delete(&fixture.admin(), holder.uid).status, 204);
    assert_eq!(
        fixture.patch(&fixture.admin(), uid, &single_value("mail", format!("x{mail}"))).status,
        200
    );
}

#[test]
fn an_unknown_role_is_rejected() {
    let fixture = fixture();
    let role = fixture.role(&[]);
    let violation =
        "roles.1.target_id: The referenced entity (user_role: unknown_role) does not exist.";
    let given = json!([{ "target_id": role }, { "target_id": "unknown_role" }]);
    assert_rejected(&fixture, "roles", &given, &[violation]);
    assert_rejected(&fixture, "roles", &json!([role, "unknown_role"]), &[violation]);
    // The index in the message is the index in the request's list, which may contain duplicate and
    // implicit roles.
    let violation = "roles.3.target_id: The referenced entity (user_role: nothing) does not exist.";
    assert_rejected(
        &fixture,
        "roles",
        &json!(["authenticated", role, role, "nothing"]),
        &[violation],
    );
    let violation = "roles.0.target_id: This value should not be null.";
    assert_rejected(&fixture, "roles", &json!([{ "target_id": null }]), &[violation]);
}

#[test]
fn an_unknown_time_zone_or_language_is_rejected() {
    let fixture = fixture();
    for (field, given) in [
        ("timezone", "Europe/Atlantis"),
        ("timezone", "../etc/passwd"),
        ("langcode", "e"),
        ("preferred_langcode", "not a language"),
        ("preferred_admin_langcode", "../"),
    ] {
        let violation = format!("{field}.0.value: The value you selected is not a valid choice.");
        assert_rejected(&fixture, field, &json!([{ "value": given }]), &[&violation]);
    }
}

#[test]
fn a_password_has_at_most_1024_bytes_and_an_empty_password_means_no_password() {
    let fixture = fixture();
    let long = "p".repeat(1025);
    fixture.server.forbid_in_log(&long);
    assert_rejected(
        &fixture,
        "pass",
        &json!([{ "value": long }]),
        &["pass.0.value: A password has 1 to 1,024 bytes."],
    );
    // An empty password means no password.
    let mut body = single_value("name", fixture.unique("empty"));
    body["pass"] = json!([{ "value": "" }]);
    let uid = value(&fixture.post(&fixture.admin(), &body).entity(201), "uid").clone();
    let user = fixture.server.admin_api("GET", &format!("/api/v1/users/{uid}")).send().json();
    assert_eq!(user["has_password"], json!(false));
}

#[test]
fn an_invalid_initial_mail_address_is_rejected() {
    let violation = "init.0.value: This value is not a valid email address.";
    assert_rejected(&fixture(), "init", &json!([{ "value": "nothing" }]), &[violation]);
}

/// One response reports all violations, in the order of the entity's fields.
#[test]
fn all_violations_are_reported_at_once() {
    let fixture = fixture();
    let body = json!({
        "roles": ["nothing"],
        "timezone": [{ "value": "Nowhere" }],
        "status": [{ "value": "maybe" }],
        "mail": [{ "value": "none" }],
        "name": [{ "value": " x" }],
    });
    fixture.post(&fixture.admin(), &body).assert_violations(&[
        "name: The username cannot begin with a space.",
        "mail.0.value: This value is not a valid email address.",
        "timezone.0.value: The value you selected is not a valid choice.",
        "status.0.value: This value should be of the correct primitive type.",
        "roles.0.target_id: The referenced entity (user_role: nothing) does not exist.",
    ]);
}

/// If one field is invalid, the whole request is rejected.
#[test]
fn a_rejected_request_writes_nothing() {
    let fixture = fixture();
    let uid = fixture.user(&[]).uid;
    let before = fixture.get(&fixture.admin(), uid).body;
    let body = json!({ "timezone": ["UTC"], "status": [0], "mail": ["none"] });
    assert_eq!(fixture.patch(&fixture.admin(), uid, &body).status, 422);
    assert_eq!(fixture.get(&fixture.admin(), uid).body, before);
}
