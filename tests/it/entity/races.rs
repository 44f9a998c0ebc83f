//! Tests of concurrent requests. Exactly one of several conflicting changes succeeds, and a change
//! that succeeded is not lost.

use std::{sync::Barrier, thread};

use serde_json::json;

use super::{fixture, single_value, value};
use crate::harness::Response;

/// Sends `count` requests at once. `send` gets the number of the request.
fn at_once(count: usize, send: impl Fn(usize) -> Response + Sync) -> Vec<Response> {
    let start = Barrier::new(count);
    thread::scope(|scope| {
        let (start, send) = (&start, &send);
        let threads: Vec<_> = (0..count)
            .map(|number| {
                scope.spawn(move || {
                    start.wait();
                    send(number)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn concurrent_creates_with_one_name_succeed_once() {
    let fixture = fixture();
    for _ in 0..5 {
        let name = fixture.unique("Raced");
        let names = [name.clone(), name.to_uppercase(), name.to_lowercase()];
        let responses = at_once(9, |number| {
            fixture.post(&fixture.admin(), &single_value("name", names[number % 3].clone()))
        });
        let created = responses.iter().filter(|response| response.status == 201);
        assert_eq!(created.count(), 1, "{responses:?}");
        for (number, response) in
            responses.iter().enumerate().filter(|(_, response)| response.status != 201)
        {
            let name = &names[number % 3];
            response.assert_violations(&[&format!("name: The username {name} is already taken.")]);
        }
    }
}

#[test]
fn concurrent_changes_to_one_mail_address_succeed_once() {
    let fixture = fixture();
    let mail = format!("{}@example.com", fixture.unique("raced"));
    let uids: Vec<_> = (0..6).map(|_| fixture.user(&[]).uid).collect();
    let responses = at_once(uids.len(), |number| {
        fixture.patch(&fixture.admin(), uids[number], &single_value("mail", mail.clone()))
    });
    let (changed, rejected): (Vec<_>, Vec<_>) =
        responses.iter().partition(|response| response.status == 200);
    assert_eq!(changed.len(), 1, "{responses:?}");
    for response in rejected {
        response.assert_violations(&[&format!("mail: The email address {mail} is already taken.")]);
    }
}

/// The first change replaces the password, so the other requests no longer have the current
/// password.
#[test]
fn concurrent_password_changes_succeed_once() {
    let fixture = fixture();
    let caller = fixture.user_with_record(json!({ "password": "the one at first" }), &[]);
    for number in 0..4 {
        fixture.server.forbid_in_log(&format!("the one of {number}"));
    }
    let responses = at_once(4, |number| {
        let pass =
            json!({ "value": format!("the one of {number}"), "existing": "the one at first" });
        fixture.patch(&caller, caller.uid, &json!({ "pass": [pass] }))
    });
    let (changed, rejected): (Vec<_>, Vec<_>) =
        responses.iter().partition(|response| response.status == 200);
    assert_eq!(changed.len(), 1, "{responses:?}");
    for response in rejected {
        response.assert_violations(&["pass: Your current password is missing or incorrect; it's required to change the Password."]);
    }
}

#[test]
fn concurrent_deletes_succeed_once() {
    let fixture = fixture();
    for _ in 0..5 {
        let uid = fixture.user(&[]).uid;
        let responses = at_once(6, |_| fixture.delete(&fixture.admin(), uid));
        let deleted = responses.iter().filter(|response| response.status == 204);
        assert_eq!(deleted.count(), 1, "{responses:?}");
        for response in responses.iter().filter(|response| response.status != 204) {
            response.assert_message(404, "The \"user\" parameter was not converted for the path \"/user/{user}\" (route name: \"rest.entity.user.DELETE\")");
        }
    }
}

/// All changes succeed, and no change overwrites another change.
#[test]
fn concurrent_changes_to_different_fields_are_all_kept() {
    let fixture = fixture();
    let uid = fixture.user(&[]).uid;
    let fields = [
        ("timezone", "UTC"),
        ("langcode", "de"),
        ("preferred_langcode", "fr"),
        ("preferred_admin_langcode", "es"),
        ("init", "raced@example.com"),
    ];
    let responses = at_once(fields.len(), |number| {
        let (field, text) = fields[number];
        fixture.patch(&fixture.admin(), uid, &single_value(field, text))
    });
    assert!(responses.iter().all(|response| response.status == 200), "{responses:?}");
    let entity = fixture.get(&fixture.admin(), uid).entity(200);
    for (field, text) in fields {
        assert_eq!(value(&entity, field), &json!(text));
    }
}

/// The server checks a few passwords at the same time, and a limited number of requests waits. All
/// further requests get 503, and clients may retry them.
#[test]
fn too_many_concurrent_password_checks_get_503() {
    let site = crate::harness::Site::new().with_env("KEYWARD_LIMITS__PASSWORD_CHECKS", "1");
    let fixture = super::Fixture::new(site.start());
    let caller = fixture.user_with_record(json!({ "password": "the right one" }), &[]);
    fixture.server.forbid_in_log("the wrong one");
    let change = json!({ "pass": [{ "value": "the wrong one", "existing": "the wrong one" }] });
    let responses = at_once(80, |_| fixture.patch(&caller, caller.uid, &change));
    let (busy, checked): (Vec<_>, Vec<_>) =
        responses.iter().partition(|response| response.status == 503);
    assert!(!busy.is_empty() && !checked.is_empty());
    for response in busy {
        response
            .assert_message(503, "Too many passwords are being checked. Try again in a moment.");
        assert_eq!(response.header("retry-after"), Some("1"));
    }
    for response in checked {
        assert_eq!(response.status, 422, "{}", response.body);
    }
    // A request without a password check is not delayed.
    assert_eq!(fixture.get(&caller, caller.uid).status, 200);
}
