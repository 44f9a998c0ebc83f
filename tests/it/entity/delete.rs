//! `DELETE /user/{uid}`.

use serde_json::json;

use super::{World, one, world};
use crate::harness::Server;

const SAID: &str = "The 'cancel account' permission is required.";

#[test]
fn it_answers_204_without_a_body_and_the_user_is_gone() {
    let world = world();
    let gone = world.person(&["access user profiles"]);
    let answer = world.delete(&world.admin(), gone.uid);
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    for name in ["content-type", "content-length", "transfer-encoding"] {
        assert_eq!(answer.header(name), None);
    }
    let said = "The \"user\" parameter was not converted for the path \"/user/{user}\" (route name: \"rest.entity.user.DELETE\")";
    world.delete(&world.admin(), gone.uid).says(404, said);
    assert_eq!(world.get(&world.admin(), gone.uid).status, 404);
    // Its key went with it, and its name is free.
    let answer = world.get(&gone, 1);
    answer.refuses(404, "USER_DOES_NOT_EXIST", "The user does not exist.");
    let again = world.person_with(json!({ "name": gone.name }), &["access user profiles"]);
    world.get(&gone, 1).refuses(
        401,
        "AUTHENTICATION_FAILED",
        "Sorry, you are using an invalid API Key.",
    );
    assert_eq!(world.get(&again, 1).status, 200);
}

#[test]
fn the_permission_is_required() {
    let world = world();
    let other = world.person(&[]);
    for permissions in [&[][..], &["access user profiles", "change own username"]] {
        let person = world.person(permissions);
        world.delete(&person, other.uid).says(403, SAID);
        world.delete(&person, person.uid).says(403, SAID);
    }
    assert_eq!(world.get(&world.admin(), other.uid).status, 200);
}

#[test]
fn it_is_for_ones_own_account() {
    let world = world();
    let (own, other) = (world.person(&["cancel account"]), world.person(&[]));
    world.delete(&own, other.uid).says(403, SAID);
    assert_eq!(world.get(&world.admin(), other.uid).status, 200);
    assert_eq!(world.delete(&own, own.uid).status, 204);
    assert_eq!(world.get(&world.admin(), own.uid).status, 404);
}

#[test]
fn who_administers_users_deletes_any_but_administrators() {
    let world = world();
    let manager = world.person(&["administer users"]);
    let (other, blocked) = (world.person(&[]), world.person_with(json!({ "active": false }), &[]));
    assert_eq!(world.delete(&manager, other.uid).status, 204);
    assert_eq!(world.delete(&manager, blocked.uid).status, 204);
    let admin = world.person_with(json!({ "roles": ["administrator"] }), &[]);
    let said = "An administrator can be deleted by an administrator alone.";
    world.delete(&manager, admin.uid).says(403, said);
    assert_eq!(world.delete(&world.admin(), admin.uid).status, 204);
}

#[test]
fn the_last_administrator_stays() {
    let world = World::new(Server::new());
    let said = "admin is the last active administrator. Give another active user an administrator's role first.";
    world.delete(&world.admin(), 1).says(403, said);
    for change in [json!({ "roles": [] }), one("status", false)] {
        world.patch(&world.admin(), 1, &change).says(403, said);
    }
    let second = world.person_with(json!({ "roles": ["administrator"] }), &[]);
    assert_eq!(world.delete(&world.admin(), 1).status, 204);
    assert_eq!(world.get(&second, 1).status, 404);
    assert_eq!(world.delete(&second, second.uid).status, 403);
}

/// A body is not asked for, and not looked at.
#[test]
fn a_body_does_not_matter() {
    let world = world();
    let gone = world.person(&[]);
    let asked = world.asks(&world.admin(), "DELETE", &format!("/user/{}", gone.uid));
    assert_eq!(asked.header("Content-Type", "text/xml").body("{").send().status, 204);
}
