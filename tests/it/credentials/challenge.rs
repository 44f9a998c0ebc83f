//! Tests of the challenge and the description of a 401: both name the place where the application
//! or its script looks for the credential.

use http::Response;
use keyward::{ClientSource, GuardLayer};
use serde_json::Value;

use super::fixture::{Fixture, request, signature};
use crate::faces::fixture::send_through;

pub fn challenges<B>(response: &Response<B>) -> Vec<&str> {
    let values = response.headers().get_all("www-authenticate").iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

pub fn error<B: AsRef<[u8]>>(response: &Response<B>) -> (u16, String, String) {
    let body: Value = serde_json::from_slice(response.body().as_ref()).unwrap();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (response.status().as_u16(), text("error"), text("error_description"))
}

/// For each application: the challenge, the error and the description of a request without a
/// credential.
const MISSING: [(&str, &str, &str, &str); 7] = [
    (
        "default",
        "ApiKey realm=\"Keyward\", header=\"API-KEY\"",
        "MISSING_API_KEY_HEADER",
        "API key header is missing.",
    ),
    (
        "token",
        "Bearer realm=\"Keyward\"",
        "MISSING_AUTHORIZATION_HEADER",
        "Authorization header not received",
    ),
    (
        "basic",
        "Basic realm=\"Keyward\", charset=\"UTF-8\"",
        "MISSING_AUTHORIZATION_HEADER",
        "Authorization header not received",
    ),
    (
        "jwt",
        "Bearer realm=\"Keyward\"",
        "MISSING_AUTHORIZATION_HEADER",
        "Authorization header not received",
    ),
    (
        "hmac",
        "HMAC-SHA256 realm=\"Keyward\"",
        "MISSING_AUTHORIZATION_HEADER",
        "Authorization header not received",
    ),
    (
        "query_key",
        "query_key realm=\"Keyward\", query=\"api_key\"",
        "MISSING_API_KEY_HEADER",
        "The credential is missing. Send it in the query parameter api_key.",
    ),
    // This script declares nothing, so the challenge names the parts that it has read.
    (
        "own",
        "own realm=\"Keyward\", header=\"X-Client\", cookie=\"session\"",
        "MISSING_API_KEY_HEADER",
        "The credential is missing. Send it in the header field X-Client.",
    ),
];

#[tokio::test]
async fn challenge_names_the_place_of_the_credential_in_every_face() {
    let fixture = Fixture::new().await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    for (id, challenge, code, description) in MISSING {
        let fields = [("AUTH-METHOD", id)];
        let expected = (401, code.to_owned(), description.to_owned());
        for path in ["/s/x", "/p/x"] {
            let response = fixture.send(path, &fields).await;
            assert_eq!(
                (challenges(&response), error(&response)),
                (vec![challenge], expected.clone())
            );
        }
        let response = fixture.verify("/d/x", &fields).await;
        assert_eq!((challenges(&response), error(&response)), (vec![challenge], expected.clone()));
        let (response, _) = send_through(&layer, request("/s/x", &fields)).await;
        assert_eq!((challenges(&response), error(&response)), (vec![challenge], expected));
    }
}

#[tokio::test]
async fn challenge_says_that_a_bearer_token_was_rejected() {
    let fixture = Fixture::new().await;
    let rejected = "Bearer realm=\"Keyward\", error=\"invalid_token\"";
    for (id, value, challenge) in [
        ("token", "Bearer kw_wrong", rejected),
        ("token", "Bearer ", "Bearer realm=\"Keyward\", error=\"invalid_token\""),
        ("token", "Basic eA==", "Bearer realm=\"Keyward\""),
        ("jwt", "Bearer a.b.c", rejected),
        ("jwt", "Basic eA==", "Bearer realm=\"Keyward\""),
        ("hmac", "HMAC-SHA256 x", "HMAC-SHA256 realm=\"Keyward\""),
        ("basic", "Basic !", "Basic realm=\"Keyward\", charset=\"UTF-8\""),
    ] {
        let fields = [("AUTH-METHOD", id), ("Authorization", value)];
        let response = fixture.send("/s/x", &fields).await;
        assert_eq!(
            (response.status().as_u16(), challenges(&response)),
            (401, vec![challenge]),
            "{id} {value}"
        );
    }
    // A rejection in the last phase has the challenge of the script, too.
    let (signed, _) = signature("/s/other", "nonce-0001");
    let fields =
        [("AUTH-METHOD", "hmac"), ("Authorization", signed.as_str()), ("X-Signature-Created", "1")];
    let response = fixture.send("/s/x", &fields).await;
    assert_eq!(challenges(&response), ["HMAC-SHA256 realm=\"Keyward\""]);
    let wrong = [("AUTH-METHOD", "own"), ("X-Client", "ada"), ("Cookie", "session=wrong")];
    let response = fixture.send("/s/x", &wrong).await;
    assert_eq!(
        challenges(&response),
        ["own realm=\"Keyward\", header=\"X-Client X-Proof\", cookie=\"session\""]
    );
}

#[tokio::test]
async fn hint_says_what_the_application_wants() {
    let fixture = Fixture::new().await;
    for fields in
        [&[("Authorization", "Bearer kw_x")][..], &[("X-API-Key", "k")], &[("API-KEY", "kw_x")]]
    {
        let response = fixture.send("/s/x", fields).await;
        assert_eq!(response.status(), 401);
        let hint = response.headers()["x-keyward-hint"].to_str().unwrap();
        assert!(hint.contains("base64") && hint.contains("WWW-Authenticate"), "{hint}");
    }
}
