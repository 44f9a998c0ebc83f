//! `PATCH /user/{uid}`.

use serde_json::{Value, json};

use super::{one, value, world};

#[test]
fn it_answers_200_with_the_entity() {
    let world = world();
    let uid = world.person(&[]).uid;
    let name = world.fresh("changed");
    let answer = world.patch(&world.admin(), uid, &one("name", name.clone()));
    let entity = answer.entity(200);
    assert_eq!(value(&entity, "name"), &json!(name));
    assert_eq!(answer.header("location"), None);
    assert_eq!(world.get(&world.admin(), uid).entity(200), entity);
}

/// Each form of a body in which nothing is different. The time of the last change is checked with a user who was made long ago, by the
/// revision that the admin API shows.
#[test]
fn nothing_changed_is_200_too() {
    let world = world();
    let mail = format!("{}@example.com", world.fresh("same"));
    let record = json!({ "mail": mail, "timezone": "UTC", "roles": [world.role(&[])] });
    let uid = world.person_with(record, &[]).uid;
    let before = world.get(&world.admin(), uid);
    let revision = || {
        let answer = world.server.manages("GET", &format!("/api/v1/users/{uid}")).send();
        answer.header("etag").unwrap().to_owned()
    };
    let first = revision();
    let whole = before.json();
    let mut bodies: Vec<Value> =
        whole.as_object().unwrap().iter().map(|(name, items)| json!({ name: items })).collect();
    bodies.push(json!({}));
    bodies.push(whole);
    for body in bodies {
        let answer = world.patch(&world.admin(), uid, &body);
        assert_eq!((answer.status, &answer.body), (200, &before.body), "{body}");
    }
    assert_eq!(revision(), first, "something was written");
}

/// What people read of their own accounts they can send back.
#[test]
fn ones_own_entity_can_be_sent_back() {
    let world = world();
    let mail = format!("{}@example.com", world.fresh("same"));
    let own = world.person_with(json!({ "mail": mail }), &[]);
    let before = world.get(&own, own.uid);
    let answer = world.patch(&own, own.uid, &before.json());
    assert_eq!((answer.status, answer.body), (200, before.body.clone()));
    let mut changed = before.json();
    changed["timezone"] = json!([{ "value": "Asia/Tokyo" }]);
    let entity = world.patch(&own, own.uid, &changed).entity(200);
    assert_eq!(value(&entity, "timezone"), &json!("Asia/Tokyo"));
}

#[test]
fn the_account_is_ones_own_or_the_permission_is_required() {
    let world = world();
    let said = "Users can only update their own account, unless they have the 'administer users' permission.";
    let other = world.person(&[]);
    for permissions in [&[][..], &["access user profiles", "change own username", "cancel account"]]
    {
        let person = world.person(permissions);
        for change in [one("timezone", "UTC"), json!({})] {
            world.patch(&person, other.uid, &change).says(403, said);
        }
    }
    let manager = world.person(&["administer users"]);
    assert_eq!(world.patch(&manager, other.uid, &one("timezone", "UTC")).status, 200);
}

#[test]
fn who_administers_users_sets_nearly_everything() {
    let world = world();
    let manager = world.person(&["administer users"]);
    let (uid, role) = (world.person(&[]).uid, world.role(&[]));
    let mail = format!("{}@example.com", world.fresh("set"));
    let at = json!([{ "value": "1973-11-29T21:33:09+00:00", "format": "Y-m-d\\TH:i:sP" }]);
    let body = json!({
        "langcode": [{ "value": "de" }],
        "preferred_langcode": [{ "value": "fr" }],
        "preferred_admin_langcode": [{ "value": "es" }],
        "name": [{ "value": world.fresh("set") }],
        "mail": [{ "value": mail }],
        "timezone": [{ "value": "Europe/Berlin" }],
        "status": [{ "value": false }],
        "created": at,
        "access": at,
        "login": at,
        "init": [{ "value": "init@example.com" }],
    });
    let entity = world.patch(&manager, uid, &body).entity(200);
    for (field, expected) in body.as_object().unwrap() {
        assert_eq!(&entity[field], expected, "{field}");
    }
    let body = json!({ "roles": [{ "target_id": role }] });
    let entity = world.patch(&manager, uid, &body).entity(200);
    assert_eq!(entity["roles"][0]["target_id"], json!(role));
    let entity = world.patch(&manager, uid, &json!({ "roles": [] })).entity(200);
    assert_eq!(entity["roles"], json!([]));
    let entity = world.patch(&manager, uid, &one("status", "1")).entity(200);
    assert_eq!(value(&entity, "status"), &json!(true));
}

/// What the server sets is nobody's, an administrator's neither.
#[test]
fn some_fields_are_the_servers_own() {
    let world = world();
    let uid = world.person(&[]).uid;
    for (field, given) in [
        ("uid", json!(uid + 1)),
        ("uid", json!(null)),
        ("uuid", json!("0198c5a0-0000-7000-8000-000000000000")),
        ("changed", json!(1)),
        ("default_langcode", json!(false)),
    ] {
        let answer = world.patch(&world.admin(), uid, &one(field, given));
        answer.says(403, &format!("Access denied on updating field '{field}'."));
    }
}

/// Of several fields that may not be set, the first one in the request is told, and nothing is written.
#[test]
fn the_first_refused_field_is_told() {
    let world = world();
    let own = world.person(&[]);
    let body = r#"{"timezone":["UTC"],"login":[1],"status":[0],"access":[1]}"#;
    let asked = world.asks(&own, "PATCH", &format!("/user/{}", own.uid));
    let answer = asked.header("Content-Type", "application/json").body(body).send();
    answer.says(403, "Access denied on updating field 'login'.");
    assert_eq!(world.get(&own, own.uid).json()["timezone"], json!([]));
}

/// Only an administrator touches an administrator, or makes one.
#[test]
fn who_administers_users_is_no_administrator() {
    let world = world();
    let manager = world.person(&["administer users"]);
    let admin = world.person_with(json!({ "roles": ["administrator"] }), &[]);
    world.server.hide("taken over by me");
    for (field, given) in [
        ("name", json!([{ "value": "renamed" }])),
        ("pass", json!([{ "value": "taken over by me" }])),
        ("mail", json!([{ "value": "taken@example.com" }])),
        ("status", json!([{ "value": false }])),
        ("roles", json!([])),
    ] {
        let answer = world.patch(&manager, admin.uid, &json!({ field: given }));
        answer.says(403, &format!("Access denied on updating field '{field}'."));
    }
    assert_eq!(world.patch(&manager, admin.uid, &one("timezone", "UTC")).status, 200);
    let promotion = json!({ "roles": ["administrator"] });
    for uid in [manager.uid, world.person(&[]).uid] {
        let said = "Access denied on updating field 'roles'.";
        world.patch(&manager, uid, &promotion).says(403, said);
    }
    let mut body = one("name", world.fresh("never"));
    body["roles"] = json!(["administrator"]);
    world.post(&manager, &body).says(403, "Access denied on creating field 'roles'.");
    assert_eq!(world.get(&admin, 1).status, 200);
}

#[test]
fn a_blocked_user_is_out_at_once() {
    let world = world();
    let person = world.person(&["access user profiles"]);
    assert_eq!(world.get(&person, 1).status, 200);
    assert_eq!(world.patch(&world.admin(), person.uid, &one("status", false)).status, 200);
    world.get(&person, 1).refuses(403, "USER_BLOCKED", "The user is blocked or inactive.");
    assert_eq!(world.patch(&world.admin(), person.uid, &one("status", true)).status, 200);
    assert_eq!(world.get(&person, 1).status, 200);
    // And a role that is taken away gives nothing any more.
    assert_eq!(world.patch(&world.admin(), person.uid, &json!({ "roles": [] })).status, 200);
    assert_eq!(world.get(&person, 1).status, 403);
}
