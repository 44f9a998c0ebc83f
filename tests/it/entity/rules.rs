//! The rules for values, each with its message.

use serde_json::{Value, json};

use super::{World, one, value, world};

/// Both a new user and one that is there are refused.
#[track_caller]
fn refuses(world: &World, field: &str, given: &Value, faults: &[&str]) {
    let mut body = one("name", world.fresh("ruled"));
    body[field] = given.clone();
    world.post(&world.admin(), &body).finds(faults);
    let uid = world.person(&[]).uid;
    world.patch(&world.admin(), uid, &json!({ field: given })).finds(faults);
}

#[track_caller]
fn refuses_name(name: &str, said: &str) {
    refuses(&world(), "name", &json!([{ "value": name }]), &[&format!("name: {said}")]);
}

#[test]
fn an_empty_name() {
    let said = "You must enter a username.";
    refuses_name("", said);
    let world = world();
    let fault = format!("name: {said}");
    for empty in [json!([]), json!({}), json!([{}]), json!([null]), json!([{ "value": null }])] {
        refuses(&world, "name", &empty, &[&fault]);
    }
    // None at all.
    world.post(&world.admin(), &json!({})).finds(&[&fault]);
    world.post(&world.admin(), &one("status", true)).finds(&[&fault]);
}

#[test]
fn a_name_that_begins_with_a_space() {
    refuses_name(" llama", "The username cannot begin with a space.");
    refuses_name(" ", "The username cannot begin with a space.");
}

#[test]
fn a_name_that_ends_with_a_space() {
    refuses_name("llama ", "The username cannot end with a space.");
}

#[test]
fn a_name_with_several_spaces_in_a_row() {
    refuses_name("lla  ma", "The username cannot contain multiple spaces in a row.");
}

#[test]
fn a_name_with_an_invalid_character() {
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
        refuses_name(name, "The username contains an invalid character.");
    }
}

#[test]
fn what_a_name_may_hold() {
    let world = world();
    for part in
        ["Llama 1", "@llama", "lla+ma", "lla_ma", "lla.ma", "O'Llama", "lla-ma", "Ünï", "日本"]
    {
        let name = format!("{part}{}", world.fresh(""));
        let entity = world.post(&world.admin(), &one("name", name.clone())).entity(201);
        assert_eq!(value(&entity, "name"), &json!(name));
    }
}

#[test]
fn a_name_that_is_too_long() {
    let world = world();
    for letter in ["x", "é"] {
        let name = format!("{:é<60}", world.fresh(letter));
        assert_eq!(name.chars().count(), 60);
        assert_eq!(world.post(&world.admin(), &one("name", name.clone())).status, 201);
        let name = format!("{name}{letter}");
        let said = format!("The username {name} is too long: it must be 60 characters or less.");
        refuses_name(&name, &said);
    }
}

#[test]
fn a_name_that_is_taken() {
    let world = world();
    let (uid, name) = (world.person(&[]).uid, world.person(&[]).name);
    for name in [name.clone(), name.to_uppercase(), "Admin".into()] {
        let fault = format!("name: The username {name} is already taken.");
        world.post(&world.admin(), &one("name", name.clone())).finds(&[&fault]);
        world.patch(&world.admin(), uid, &one("name", name)).finds(&[&fault]);
    }
    // One's own name in other letters is not.
    let own = world.person(&[]);
    let change = one("name", own.name.to_uppercase());
    let entity = world.patch(&world.admin(), own.uid, &change).entity(200);
    assert_eq!(value(&entity, "name"), &json!(own.name.to_uppercase()));
}

#[test]
fn a_mail_address_that_is_none() {
    let world = world();
    let fault = "mail.0.value: This value is not a valid email address.";
    for mail in
        ["x", "@", "x@", "@x", "x y@example.com", "x@example..com", "x@exa mple.com", "x@-a.b"]
    {
        refuses(&world, "mail", &json!([{ "value": mail }]), &[fault]);
    }
}

#[test]
fn a_mail_address_that_is_taken() {
    let world = world();
    let uid = world.person(&[]).uid;
    let mail = format!("{}@example.com", world.fresh("taken"));
    world.person_with(json!({ "mail": mail }), &[]);
    for mail in [mail.clone(), mail.to_uppercase()] {
        let fault = format!("mail: The email address {mail} is already taken.");
        let mut body = one("name", world.fresh("never"));
        body["mail"] = json!([{ "value": mail }]);
        world.post(&world.admin(), &body).finds(&[&fault]);
        world.patch(&world.admin(), uid, &one("mail", mail)).finds(&[&fault]);
    }
    // Given back, it is free.
    let holder = world.person_with(json!({ "mail": format!("x{mail}") }), &[]);
    assert_eq!(world.delete(&world.admin(), holder.uid).status, 204);
    assert_eq!(world.patch(&world.admin(), uid, &one("mail", format!("x{mail}"))).status, 200);
}

#[test]
fn a_role_that_does_not_exist() {
    let world = world();
    let role = world.role(&[]);
    let fault =
        "roles.1.target_id: The referenced entity (user_role: unknown_role) does not exist.";
    let given = json!([{ "target_id": role }, { "target_id": "unknown_role" }]);
    refuses(&world, "roles", &given, &[fault]);
    refuses(&world, "roles", &json!([role, "unknown_role"]), &[fault]);
    // The place is the one in the request, whatever else stands there.
    let fault = "roles.3.target_id: The referenced entity (user_role: nothing) does not exist.";
    refuses(&world, "roles", &json!(["authenticated", role, role, "nothing"]), &[fault]);
    let fault = "roles.0.target_id: This value should not be null.";
    refuses(&world, "roles", &json!([{ "target_id": null }]), &[fault]);
}

#[test]
fn a_choice_that_there_is_not() {
    let world = world();
    for (field, given) in [
        ("timezone", "Europe/Atlantis"),
        ("timezone", "../etc/passwd"),
        ("langcode", "e"),
        ("preferred_langcode", "not a language"),
        ("preferred_admin_langcode", "../"),
    ] {
        let fault = format!("{field}.0.value: The value you selected is not a valid choice.");
        refuses(&world, field, &json!([{ "value": given }]), &[&fault]);
    }
}

#[test]
fn a_password_that_is_too_long() {
    let world = world();
    let long = "p".repeat(1025);
    world.server.hide(&long);
    refuses(
        &world,
        "pass",
        &json!([{ "value": long }]),
        &["pass.0.value: A password has 1 to 1,024 bytes."],
    );
    // An empty one is none.
    let mut body = one("name", world.fresh("empty"));
    body["pass"] = json!([{ "value": "" }]);
    let uid = value(&world.post(&world.admin(), &body).entity(201), "uid").clone();
    let user = world.server.manages("GET", &format!("/api/v1/users/{uid}")).send().json();
    assert_eq!(user["has_password"], json!(false));
}

#[test]
fn an_initial_mail_address_that_is_none() {
    let fault = "init.0.value: This value is not a valid email address.";
    refuses(&world(), "init", &json!([{ "value": "nothing" }]), &[fault]);
}

/// All that is wrong is told at once, in the order of the fields.
#[test]
fn several_faults() {
    let world = world();
    let body = json!({
        "roles": ["nothing"],
        "timezone": [{ "value": "Nowhere" }],
        "status": [{ "value": "maybe" }],
        "mail": [{ "value": "none" }],
        "name": [{ "value": " x" }],
    });
    world.post(&world.admin(), &body).finds(&[
        "name: The username cannot begin with a space.",
        "mail.0.value: This value is not a valid email address.",
        "timezone.0.value: The value you selected is not a valid choice.",
        "status.0.value: This value should be of the correct primitive type.",
        "roles.0.target_id: The referenced entity (user_role: nothing) does not exist.",
    ]);
}

/// A request that is refused in part is refused as a whole.
#[test]
fn nothing_is_written_of_a_request_that_is_refused() {
    let world = world();
    let uid = world.person(&[]).uid;
    let before = world.get(&world.admin(), uid).body;
    let body = json!({ "timezone": ["UTC"], "status": [0], "mail": ["none"] });
    assert_eq!(world.patch(&world.admin(), uid, &body).status, 422);
    assert_eq!(world.get(&world.admin(), uid).body, before);
}
