//! Requests at the same moment: whoever comes second is told so, and nothing is done twice.

use std::{sync::Barrier, thread};

use serde_json::json;

use super::{one, value, world};
use crate::harness::Answer;

/// Sends `count` requests at once; each is made by its number.
fn at_once(count: usize, send: impl Fn(usize) -> Answer + Sync) -> Vec<Answer> {
    let start = Barrier::new(count);
    thread::scope(|scope| {
        let (start, send) = (&start, &send);
        let all: Vec<_> = (0..count)
            .map(|number| {
                scope.spawn(move || {
                    start.wait();
                    send(number)
                })
            })
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn a_name_is_taken_once() {
    let world = world();
    for _ in 0..5 {
        let name = world.fresh("Raced");
        let names = [name.clone(), name.to_uppercase(), name.to_lowercase()];
        let answers = at_once(9, |number| {
            world.post(&world.admin(), &one("name", names[number % 3].clone()))
        });
        let made = answers.iter().filter(|answer| answer.status == 201);
        assert_eq!(made.count(), 1, "{answers:?}");
        for (number, answer) in answers.iter().enumerate().filter(|(_, one)| one.status != 201) {
            let name = &names[number % 3];
            answer.finds(&[&format!("name: The username {name} is already taken.")]);
        }
    }
}

#[test]
fn a_mail_address_is_taken_once() {
    let world = world();
    let mail = format!("{}@example.com", world.fresh("raced"));
    let people: Vec<_> = (0..6).map(|_| world.person(&[]).uid).collect();
    let answers = at_once(people.len(), |number| {
        world.patch(&world.admin(), people[number], &one("mail", mail.clone()))
    });
    let (changed, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(changed.len(), 1, "{answers:?}");
    for answer in refused {
        answer.finds(&[&format!("mail: The email address {mail} is already taken.")]);
    }
}

/// A current password proves one change: it is not the current one any more when the next is written.
#[test]
fn a_proof_is_good_for_one_password() {
    let world = world();
    let own = world.person_with(json!({ "password": "the one at first" }), &[]);
    for number in 0..4 {
        world.server.hide(&format!("the one of {number}"));
    }
    let answers = at_once(4, |number| {
        let pass =
            json!({ "value": format!("the one of {number}"), "existing": "the one at first" });
        world.patch(&own, own.uid, &json!({ "pass": [pass] }))
    });
    let (changed, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(changed.len(), 1, "{answers:?}");
    for answer in refused {
        answer.finds(&["pass: Your current password is missing or incorrect; it's required to change the Password."]);
    }
}

#[test]
fn a_user_is_deleted_once() {
    let world = world();
    for _ in 0..5 {
        let uid = world.person(&[]).uid;
        let answers = at_once(6, |_| world.delete(&world.admin(), uid));
        let gone = answers.iter().filter(|answer| answer.status == 204);
        assert_eq!(gone.count(), 1, "{answers:?}");
        for answer in answers.iter().filter(|answer| answer.status != 204) {
            answer.says(404, "The \"user\" parameter was not converted for the path \"/user/{user}\" (route name: \"rest.entity.user.DELETE\")");
        }
    }
}

/// Changes of different fields at the same moment are all made: none is written over by another.
#[test]
fn no_change_is_lost() {
    let world = world();
    let uid = world.person(&[]).uid;
    let fields = [
        ("timezone", "UTC"),
        ("langcode", "de"),
        ("preferred_langcode", "fr"),
        ("preferred_admin_langcode", "es"),
        ("init", "raced@example.com"),
    ];
    let answers = at_once(fields.len(), |number| {
        let (field, text) = fields[number];
        world.patch(&world.admin(), uid, &one(field, text))
    });
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let entity = world.get(&world.admin(), uid).entity(200);
    for (field, text) in fields {
        assert_eq!(value(&entity, field), &json!(text));
    }
}

/// Passwords are checked a few at a time, and only so many wait: the others are told to come back.
#[test]
fn too_many_passwords_at_once() {
    let site = crate::harness::Site::new().with("KEYWARD_LIMITS__PASSWORD_CHECKS", "1");
    let world = super::World::new(site.start());
    let own = world.person_with(json!({ "password": "the right one" }), &[]);
    world.server.hide("the wrong one");
    let change = json!({ "pass": [{ "value": "the wrong one", "existing": "the wrong one" }] });
    let answers = at_once(80, |_| world.patch(&own, own.uid, &change));
    let (busy, heard): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 503);
    assert!(!busy.is_empty() && !heard.is_empty());
    for answer in busy {
        answer.says(503, "Too many passwords are being checked. Try again in a moment.");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    for answer in heard {
        assert_eq!(answer.status, 422, "{}", answer.body);
    }
    // What needs no password is not held up.
    assert_eq!(world.get(&own, own.uid).status, 200);
}
