//! Tests of `DELETE /user/{uid}`: deleting users.

use serde_json::json;

use super::{Fixture, fixture, single_value};
use crate::harness::Server;

const MESSAGE: &str = "The 'cancel account' permission is required.";

#[test]
fn a_delete_responds_204_without_a_body_and_removes_the_user() {
    let fixture = fixture();
    let deleted = fixture.user(&["access user profiles"]);
    let response = fixture.delete(&fixture.admin(), deleted.uid);
    assert_eq!((response.status, response.body.as_str()), (204, ""));
    for name in ["content-type", "content-length", "transfer-encoding"] {
        assert_eq!(response.header(name), None);
    }
    let message = "The \"user\" parameter was not converted for the path \"/user/{user}\" (route name: \"rest.entity.user.DELETE\")";
    fixture.delete(&fixture.admin(), deleted.uid).assert_message(404, message);
    assert_eq!(fixture.get(&fixture.admin(), deleted.uid).status, 404);
    // The user's key was deleted too, and a new user may have the name.
    let response = fixture.get(&deleted, 1);
    response.assert_error(404, "USER_DOES_NOT_EXIST", "The user does not exist.");
    let namesake =
        fixture.user_with_record(json!({ "name": deleted.name }), &["access user profiles"]);
    fixture.get(&deleted, 1).assert_error(
        401,
        "AUTHENTICATION_FAILED",
        "Sorry, you are using an invalid API Key.",
    );
    assert_eq!(fixture.get(&namesake, 1).status, 200);
}

#[test]
fn deleting_a_user_requires_the_permission() {
    let fixture = fixture();
    let other = fixture.user(&[]);
    for permissions in [&[][..], &["access user profiles", "change own username"]] {
        let user = fixture.user(permissions);
        fixture.delete(&user, other.uid).assert_message(403, MESSAGE);
        fixture.delete(&user, user.uid).assert_message(403, MESSAGE);
    }
    assert_eq!(fixture.get(&fixture.admin(), other.uid).status, 200);
}

#[test]
fn cancel_account_allows_deleting_only_the_own_account() {
    let fixture = fixture();
    let (caller, other) = (fixture.user(&["cancel account"]), fixture.user(&[]));
    fixture.delete(&caller, other.uid).assert_message(403, MESSAGE);
    assert_eq!(fixture.get(&fixture.admin(), other.uid).status, 200);
    assert_eq!(fixture.delete(&caller, caller.uid).status, 204);
    assert_eq!(fixture.get(&fixture.admin(), caller.uid).status, 404);
}

#[test]
fn a_user_manager_may_delete_any_user_except_administrators() {
    let fixture = fixture();
    let manager = fixture.user(&["administer users"]);
    let (other, blocked) =
        (fixture.user(&[]), fixture.user_with_record(json!({ "active": false }), &[]));
    assert_eq!(fixture.delete(&manager, other.uid).status, 204);
    assert_eq!(fixture.delete(&manager, blocked.uid).status, 204);
    let admin = fixture.user_with_record(json!({ "roles": ["administrator"] }), &[]);
    let message = "Only an administrator can delete an administrator.";
    fixture.delete(&manager, admin.uid).assert_message(403, message);
    assert_eq!(fixture.delete(&fixture.admin(), admin.uid).status, 204);
}

#[test]
fn the_last_administrator_cannot_be_deleted_or_blocked() {
    let fixture = Fixture::new(Server::new());
    let message = "admin is the last active administrator. Give another active user an administrator's role first.";
    fixture.delete(&fixture.admin(), 1).assert_message(403, message);
    for change in [json!({ "roles": [] }), single_value("status", false)] {
        fixture.patch(&fixture.admin(), 1, &change).assert_message(403, message);
    }
    let second = fixture.user_with_record(json!({ "roles": ["administrator"] }), &[]);
    assert_eq!(fixture.delete(&fixture.admin(), 1).status, 204);
    assert_eq!(fixture.get(&second, 1).status, 404);
    assert_eq!(fixture.delete(&second, second.uid).status, 403);
}

/// A DELETE request needs no body. If the request has a body, the server ignores the body and the
/// content type.
#[test]
fn the_body_of_a_delete_is_ignored() {
    let fixture = fixture();
    let deleted = fixture.user(&[]);
    let request = fixture.request_as(&fixture.admin(), "DELETE", &format!("/user/{}", deleted.uid));
    assert_eq!(request.header("Content-Type", "text/xml").body("{").send().status, 204);
}
