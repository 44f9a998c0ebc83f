//! Tests of resources that list several applications: the application is chosen by the credential
//! that a request carries.

use std::sync::Arc;

use keyward::{
    ClientSource, GuardLayer,
    accounts::{AccountError, Accounts, Passwords},
    model::{Actor, Application, Clock, Entropy, Pepper},
    pipeline::Gate,
    store::{Batch, Store as _, Table},
};
use serde_json::{Value, json};

use super::{
    challenge::{challenges, error},
    fixture::{Fixture, request, signature, token},
};
use crate::faces::fixture::send_through;

const LISTED: [&str; 4] = ["default", "token", "query_key", "hmac"];
const CHALLENGES: [&str; 4] = [
    "ApiKey realm=\"Keyward\", header=\"API-KEY\"",
    "Bearer realm=\"Keyward\"",
    "query_key realm=\"Keyward\", query=\"api_key\"",
    "HMAC-SHA256 realm=\"Keyward\"",
];

async fn fixture() -> Fixture {
    let fixture = Fixture::new().await;
    let proxy = |id: &str, path: &str, more: Value| {
        let mut record = json!({
            "id": id, "path": path, "handler": "proxy", "applications": LISTED,
            "proxy": { "upstreams": [fixture.upstream] },
        });
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        record
    };
    fixture.add(proxy("m", "/m/{*r}", json!({}))).await;
    fixture.add(proxy("a", "/a/{*r}", json!({ "authentication": ["*", "anonymous"] }))).await;
    let same_field = json!({ "applications": ["jwt", "token"] });
    fixture.add(proxy("f", "/f/{*r}", same_field)).await;
    fixture
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credential_chooses_the_application_in_every_face() {
    let fixture = fixture().await;
    let bearer = format!("Bearer {}", fixture.key);
    let query = format!("/m/x?a&api%5Fkey={}", fixture.key);
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    for face in ["proxy", "verify", "layer"] {
        let (signed, created) = signature("/m/x", &format!("nonce-{face}"));
        for (application, target, fields) in [
            ("default", "/m/x", vec![("API-KEY", fixture.ada.as_str())]),
            ("token", "/m/x", vec![("Authorization", bearer.as_str())]),
            ("query_key", query.as_str(), vec![]),
            ("hmac", "/m/x", vec![("authorization", &signed), ("X-Signature-Created", &created)]),
            // A scheme that no listed application reads is no credential of theirs.
            ("default", "/m/x", vec![("API-KEY", &fixture.ada), ("Authorization", "Digest x")]),
        ] {
            let context = format!("{face} {application}");
            match face {
                "proxy" => {
                    let seen = fixture.proxied(target, &fields).await;
                    assert_eq!(seen.get("x-keyward-application"), [application], "{context}");
                    assert!(!seen.text().contains(&fixture.key), "{seen:?}");
                    assert!(!seen.text().contains(&fixture.ada), "{seen:?}");
                }
                "verify" => {
                    let response = fixture.verify(target, &fields).await;
                    assert_eq!(response.status(), 200, "{context}");
                    assert_eq!(response.headers()["x-keyward-application"], application);
                }
                _ => {
                    let (response, received) = send_through(&layer, request(target, &fields)).await;
                    assert_eq!(response.status(), 200, "{context}");
                    let identity = received.lock().unwrap()[0].0.clone();
                    assert_eq!(identity.application(), Some(application), "{context}");
                }
            }
        }
    }
}

#[tokio::test]
async fn request_without_a_credential_gets_the_challenges_of_all_applications() {
    let fixture = fixture().await;
    let missing = "API key header is missing.".to_owned();
    let expected = (401, "MISSING_API_KEY_HEADER".to_owned(), missing);
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    for fields in [&[][..], &[("Authorization", "Digest x")], &[("X-Client", "ada")]] {
        let response = fixture.send("/m/x", fields).await;
        assert_eq!(
            (challenges(&response), error(&response)),
            (CHALLENGES.to_vec(), expected.clone())
        );
        let response = fixture.verify("/m/x", fields).await;
        assert_eq!(
            (challenges(&response), error(&response)),
            (CHALLENGES.to_vec(), expected.clone())
        );
        let (response, _) = send_through(&layer, request("/m/x", fields)).await;
        assert_eq!(
            (challenges(&response), error(&response)),
            (CHALLENGES.to_vec(), expected.clone())
        );
    }
    let seen = fixture.proxied("/a/x", &[]).await;
    assert_eq!(seen.get("x-keyward-user"), [""; 0]);
}

/// A cache that keeps the response to an anonymous request must not serve it to a client with the
/// credential of another listed application.
#[tokio::test]
async fn response_varies_by_the_fields_that_listed_scripts_declare() {
    let fixture = fixture().await;
    let record = json!({
        "id": "v", "path": "/v/{*r}", "handler": "proxy", "applications": ["default", "jwt"],
        "authentication": ["*", "anonymous"], "proxy": { "upstreams": [fixture.upstream] },
    });
    fixture.add(record).await;
    for fields in [vec![], vec![("API-KEY", fixture.ada.as_str())]] {
        for response in [fixture.send("/v/x", &fields).await, fixture.verify("/v/x", &fields).await]
        {
            let vary = response.headers()["vary"].to_str().unwrap().to_ascii_lowercase();
            for name in ["auth-method", "api-key", "authorization"] {
                assert!(vary.split(", ").any(|known| known == name), "{name}: {vary}");
            }
        }
    }
}

#[tokio::test]
async fn request_with_two_credentials_is_ambiguous() {
    let fixture = fixture().await;
    let bearer = format!("Bearer {}", fixture.key);
    let query = format!("?api_key={}", fixture.key);
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    for (target, fields) in [
        (String::new(), vec![("API-KEY", fixture.ada.as_str()), ("Authorization", &bearer)]),
        (query.clone(), vec![("API-KEY", fixture.ada.as_str())]),
        (query.clone(), vec![("Authorization", &bearer)]),
        // The second credential is wrong, but a program behind Keyward may not check it.
        ("?api_key=x".into(), vec![("API-KEY", fixture.ada.as_str())]),
        ("?api_key".into(), vec![("Authorization", "hmac-sha256 x")]),
    ] {
        for prefix in ["/m/x", "/a/x"] {
            let target = format!("{prefix}{target}");
            let response = fixture.send(&target, &fields).await;
            let (status, code, _) = error(&response);
            assert_eq!((status, code.as_str()), (400, "AMBIGUOUS_CREDENTIAL"), "{target}");
            assert_eq!(fixture.verify(&target, &fields).await.status(), 400, "{target}");
            let (response, _) = send_through(&layer, request(&target, &fields)).await;
            assert_eq!(response.status(), 400, "{target}");
        }
    }
}

#[tokio::test]
async fn auth_method_wins_if_it_names_a_listed_application() {
    let fixture = fixture().await;
    let bearer = format!("Bearer {}", fixture.key);
    let target = format!("/m/x?api_key={}&b", fixture.key);
    for id in ["default", "token", "query_key"] {
        let fields = [
            ("AUTH-METHOD", id),
            ("API-KEY", fixture.ada.as_str()),
            ("Authorization", bearer.as_str()),
        ];
        let seen = fixture.proxied(&target, &fields).await;
        assert_eq!(seen.get("x-keyward-application"), [id]);
        // The credentials of the other listed applications do not go upstream either.
        assert_eq!(seen.target, "/m/x?b");
        assert!(!seen.text().contains(&fixture.key) && !seen.text().contains(&fixture.ada));
    }
    for id in ["jwt", "basic", "nothing", ""] {
        let fields = [("AUTH-METHOD", id), ("API-KEY", fixture.ada.as_str())];
        let (status, code, _) = error(&fixture.send("/m/x", &fields).await);
        assert_eq!((status, code.as_str()), (400, "INVALID_APPLICATION_ID"), "{id}");
    }
    // The list concerns only its resource.
    let fields = [("AUTH-METHOD", "jwt"), ("Authorization", &format!("Bearer {}", token()))];
    assert_eq!(fixture.send("/s/x", &fields).await.status(), 200);
}

#[tokio::test]
async fn first_of_two_applications_that_read_the_same_field_is_chosen() {
    let fixture = fixture().await;
    let fields = [("Authorization", &*format!("Bearer {}", token()))];
    let seen = fixture.proxied("/f/x", &fields).await;
    assert_eq!(seen.get("x-keyward-application"), ["jwt"]);
    let fields = [("Authorization", &*format!("Bearer {}", fixture.key))];
    assert_eq!(error(&fixture.send("/f/x", &fields).await).1, "INVALID_TOKEN");
    let twice = [("API-KEY", fixture.ada.as_str()), ("API-KEY", fixture.ada.as_str())];
    assert_eq!(error(&fixture.send("/m/x", &twice).await).1, "INVALID_API_KEY_FORMAT");
}

#[tokio::test]
async fn disabled_application_of_the_list_authenticates_nobody() {
    let fixture = fixture().await;
    let writer = fixture.accounts.as_actor(Actor::Program);
    let disable = async |id: &str| {
        let disable = |application: &mut Application| {
            application.enabled = false;
            Ok::<_, AccountError>(())
        };
        writer.change(id, None, disable).await.unwrap();
    };
    disable("default").await;
    let response = fixture.send("/m/x", &[]).await;
    assert_eq!(challenges(&response), CHALLENGES[1..]);
    assert_eq!(error(&response).1, "MISSING_AUTHORIZATION_HEADER");
    let key = [("API-KEY", fixture.ada.as_str())];
    assert_eq!(fixture.send("/m/x", &key).await.status(), 403);
    let seen = fixture.proxied("/a/x", &key).await;
    assert_eq!((seen.get("x-keyward-user"), seen.get("api-key")), (vec![], vec![]));
    let both = [key[0], ("Authorization", &*format!("Bearer {}", fixture.key))];
    assert_eq!(fixture.send("/m/x", &both).await.status(), 400);
    for id in &LISTED[1..] {
        disable(id).await;
    }
    assert_eq!(fixture.send("/m/x", &[]).await.status(), 403);
}

#[tokio::test]
async fn deleted_application_of_the_list_fails_closed() {
    let fixture = fixture().await;
    let writer = fixture.accounts.as_actor(Actor::Program);
    let refused = writer.delete::<Application>("token", None).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("token is named by the resource"), "{text}");
    // A store from elsewhere can lack the application.
    let mut batch = Batch::new();
    batch.delete(Table::Applications, "token");
    fixture.store.commit(batch).await.unwrap();
    let (pepper, entropy) = (Pepper::from_bytes([7; 32]), Entropy::seeded(1));
    let store: Arc<_> = fixture.store.clone();
    let accounts =
        Accounts::with(store, pepper, Passwords::new(1), Clock::system(), entropy).unwrap();
    let layer = GuardLayer::new(Gate::new(&accounts, 4096), ClientSource::unknown());
    for fields in [&[][..], &[("API-KEY", fixture.ada.as_str())]] {
        let (response, received) = send_through(&layer, request("/m/x", fields)).await;
        let (status, code, _) = error(&response);
        assert_eq!((status, code.as_str()), (503, "APPLICATION_UNAVAILABLE"));
        assert!(received.lock().unwrap().is_empty());
    }
}
