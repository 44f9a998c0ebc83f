//! Keyward as one handle: what it does without being asked, and what a caller may do through it.

use std::fs;

use http::Request;
use http_body_util::Full;
use keyward::{
    AccountError, Accounts, Actor, ClientSource, GuardLayer, Identity, Keyward, NewKey, NewUser,
    StartError,
    accounts::{AuditOrder, RotateOptions, TrailStatus},
    scripting::{ScriptLimits, Secrets},
    testing::{Credential, TestKeyward, rehearse},
};

use crate::faces::fixture::send_through;

/// The identity that a service behind the guard gets.
async fn identity(kit: &TestKeyward, credential: &Credential) -> Identity {
    let request = credential.sign(Request::get("/").body(Full::default()).unwrap());
    let (response, received) = send_through(&kit.guard().requires_user(), request).await;
    assert_eq!(response.status(), 200);
    let (identity, ..) = received.lock().unwrap().pop().unwrap();
    identity
}

/// Starts a Keyward whose store may still be locked for a moment: a step of the verification that
/// has begun ends after the stop.
pub async fn reopened<E: std::fmt::Display>(
    start: impl AsyncFn() -> Result<Keyward, E>,
) -> Keyward {
    for _ in 0..100 {
        match start().await {
            Ok(keyward) => return keyward,
            Err(problem) if problem.to_string().contains("in use") => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            Err(problem) => panic!("{problem}"),
        }
    }
    panic!("the store stays locked")
}

const OWN: &str = "generate own api key";

fn is_forbidden<T: std::fmt::Debug>(result: Result<T, AccountError>) -> bool {
    matches!(result, Err(AccountError::Forbidden { .. } | AccountError::AdminOnly))
}

#[tokio::test]
async fn caller_changes_no_more_than_the_admin_api_allows() {
    let kit = TestKeyward::new().await;
    let keyward = kit.keyward();
    let plain = kit.user("plain", &["read"]).await;
    let owner = kit.user("owner", &[OWN, "read"]).await;
    let manager = kit.user("manager", &[OWN, "administer users"]).await;
    let scopes = Some(vec![OWN.to_owned(), "administer users".to_owned()]);
    let bound = NewKey { scopes: scopes.clone(), ..NewKey::default() };
    let scoped = kit.user_with_key("scoped", &[OWN, "administer users", "read"], bound).await;

    // Without the permission: nothing.
    let plain = keyward.on_behalf_of(&identity(&kit, &plain).await);
    assert!(is_forbidden(plain.issue_key(NewKey::default()).await));
    assert!(is_forbidden(plain.keys(None, 10)));
    assert!(plain.users().is_err());
    // One's own keys, and nobody else's.
    let own = keyward.on_behalf_of(&identity(&kit, &owner).await);
    let issued = own.issue_key(NewKey::default()).await.unwrap();
    assert_eq!(issued.key.record.user, owner.uid);
    assert_eq!(own.keys(None, 10).unwrap().items.len(), 2);
    let foreign = own.revoke_key(manager.key).await;
    assert!(matches!(foreign, Err(AccountError::NotFound { .. })), "{foreign:?}");
    let foreign = own.rotate_key(manager.key, RotateOptions::default()).await;
    assert!(matches!(foreign, Err(AccountError::NotFound { .. })));
    own.revoke_key(issued.key.record.id).await.unwrap();
    assert!(own.users().is_err());
    // A manager of users issues keys for others, and not for an administrator.
    let users = keyward.on_behalf_of(&identity(&kit, &manager).await).users().unwrap();
    users.issue_key(owner.uid, NewKey::default()).await.unwrap();
    assert!(is_forbidden(users.issue_key(1, NewKey::default()).await));
    // A key with scopes makes no key without scopes, and none for an administrator.
    let narrow = keyward.on_behalf_of(&identity(&kit, &scoped).await);
    assert!(is_forbidden(narrow.issue_key(NewKey::default()).await));
    let wider = NewKey { scopes: Some(vec!["read".into()]), ..NewKey::default() };
    assert!(is_forbidden(narrow.issue_key(wider).await));
    let same = NewKey { scopes, ..NewKey::default() };
    narrow.issue_key(same.clone()).await.unwrap();
    assert!(is_forbidden(narrow.users().unwrap().issue_key(1, same).await));
    // The trail names the caller.
    let entries = keyward.accounts().audit(AuditOrder::Oldest, None, 100).unwrap().items;
    let by_owner = entries.iter().filter(|one| match &one.entry.actor {
        Actor::User { uid, key, .. } => *uid == owner.uid && *key == Some(owner.key),
        _ => false,
    });
    assert_eq!(by_owner.count(), 2);
}

#[tokio::test]
async fn caller_changes_nothing_after_the_credential_has_ended() {
    let kit = TestKeyward::new().await;
    let (keyward, unbounded) = (kit.keyward(), kit.keyward().unbounded());
    let expires = Some(kit.clock().now().plus(60));
    let ending = NewKey { expires, ..NewKey::default() };
    let ending = kit.user_with_key("ending", &[OWN], ending).await;
    let revoked = kit.user("revoked", &[OWN]).await;
    let blocked = kit.user("blocked", &[OWN]).await;
    let demoted = kit.user("demoted", &[OWN]).await;
    let mut handles = Vec::new();
    for credential in [&ending, &revoked, &blocked, &demoted] {
        handles.push(keyward.on_behalf_of(&identity(&kit, credential).await));
    }
    for handle in &handles {
        let new = NewKey { expires, ..NewKey::default() };
        handle.issue_key(new).await.unwrap();
    }
    kit.advance(60);
    unbounded.revoke_key(revoked.key).await.unwrap();
    let block = |user: &mut keyward::User| {
        user.status = false;
        Ok::<_, AccountError>(())
    };
    unbounded.change_user(blocked.uid, None, block).await.unwrap();
    let demote = |user: &mut keyward::User| {
        user.roles.clear();
        Ok::<_, AccountError>(())
    };
    unbounded.change_user(demoted.uid, None, demote).await.unwrap();
    for (index, handle) in handles.iter().enumerate() {
        assert!(is_forbidden(handle.issue_key(NewKey::default()).await), "{index}");
        assert!(is_forbidden(handle.keys(None, 1)), "{index}");
    }
}

#[tokio::test]
async fn spent_credits_and_uses_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = async || {
        reopened(async || {
            let client = ClientSource::from_fn(|_| Some([127, 0, 0, 1].into()));
            Keyward::folder(folder.path()).client(client).start().await
        })
        .await
    };
    let keyward = start().await;
    let new = NewUser { name: "carl".into(), status: true, ..NewUser::default() };
    let uid = keyward.unbounded().create_user(new).await.unwrap().record.uid;
    let credits = keyward::model::Credits::new("credits", 2, keyward::model::Refill::Day).ok();
    let key = NewKey { credits, ..NewKey::default() };
    let issued = keyward.unbounded().issue_key(uid, key).await.unwrap();
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let credential = STANDARD.encode(format!("carl:{}", issued.text.expose()));
    let ask = async |guard: &GuardLayer| {
        let request = Request::get("/").header("api-key", &credential);
        send_through(guard, request.body(Full::default()).unwrap()).await.0.status().as_u16()
    };
    let guard = keyward.guard().requires_user();
    assert_eq!([ask(&guard).await, ask(&guard).await, ask(&guard).await], [200, 200, 429]);
    drop(guard);
    keyward.stop().await;
    let keyward = start().await;
    assert_eq!(ask(&keyward.guard().requires_user()).await, 429);
    let used = keyward.accounts().usage_of(issued.key.record.id).unwrap();
    assert_eq!(used.map(|used| used.times), Some(2));
    // The audit trail was verified without being asked.
    for _ in 0..200 {
        if !matches!(keyward.accounts().trail_status(), TrailStatus::Unverified) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let status = keyward.accounts().trail_status();
    assert!(matches!(status, TrailStatus::Intact), "{status:?}");
}

#[tokio::test]
async fn second_load_of_scripts_is_an_error_and_changes_nothing() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(one.path().join("hooks.rhai"), "fn on_request(req) { deny(403, \"ONE\", \"x\"); }")
        .unwrap();
    fs::write(two.path().join("hooks.rhai"), "fn on_request(req) {}").unwrap();
    let kit = TestKeyward::start(|builder| builder.scripts(one.path())).await.unwrap();
    let accounts: &Accounts = kit.keyward().accounts();
    let (limits, secrets) = (ScriptLimits::default(), Secrets::default());
    let again = accounts.load_scripts(two.path(), limits, secrets, None).unwrap_err();
    assert!(again[0].to_string().contains("reload"), "{again:?}");
    assert_eq!(accounts.scripts().folder(), Some(one.path()));
    let ada = kit.user("ada", &[]).await;
    let request = ada.sign(Request::get("/").body(Full::default()).unwrap());
    let (response, _) = send_through(&kit.guard().requires_user(), request).await;
    assert_eq!(response.status(), 403);
}

const TESTED: &str = r#"
fn on_request(req) { if req.path == "/closed" { deny(403, "CLOSED", "x"); } }
fn test_closed() {
    let answer = decide(test_request("GET", "/closed"));
    assert_eq(answer.status, 403);
}
"#;

/// `decide()` needs a runtime of its own, and the calling thread may run tasks of another one.
#[tokio::test]
async fn tests_of_scripts_run_in_async_code() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hooks.rhai"), TESTED).unwrap();
    // In the thread of a task.
    let kit = TestKeyward::new().await;
    let gate = std::sync::Arc::new(keyward::pipeline::TestGate);
    let (limits, secrets) = (ScriptLimits::default(), Secrets::default());
    kit.keyward().accounts().load_scripts(folder.path(), limits, secrets, Some(gate)).unwrap();
    // At the start, and in a rehearsal.
    TestKeyward::start(|builder| builder.scripts(folder.path())).await.unwrap();
    let outcomes = rehearse(folder.path()).await.unwrap();
    assert_eq!(outcomes.len(), 1);
    assert!(outcomes[0].failure.is_none(), "{outcomes:?}");
    // A failing test stops the start, with its reason.
    fs::write(folder.path().join("hooks.rhai"), TESTED.replace("status, 403", "status, 200"))
        .unwrap();
    let failed = TestKeyward::start(|builder| builder.scripts(folder.path())).await.unwrap_err();
    let StartError::Scripts(errors) = &failed else { panic!("{failed}") };
    assert!(errors[0].message.contains("test_closed"), "{failed}");
    let _: &dyn std::error::Error = &errors[0];
}

#[tokio::test]
async fn handler_without_a_guard_gets_no_identity() {
    use axum::{Router, body::Body, routing::get};
    use tower::ServiceExt as _;
    let app: Router = Router::new().route("/", get(async |_: Identity| "in"));
    let response = app.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 500);
}
