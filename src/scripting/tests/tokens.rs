//! Tests of JSON Web Tokens: valid tokens, and tokens of known attacks.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_767_614_400;
const SHARED: &str = "0123456789abcdef0123456789abcdef";
const RSA: &str = include_str!("keys/rsa.pub.pem");
const EC: &str = include_str!("keys/ec.pub.pem");
const ED: &str = include_str!("keys/ed.pub.pem");

fn signed(algorithm: Algorithm, claims: &Value) -> String {
    let key = match algorithm {
        Algorithm::HS256 => EncodingKey::from_secret(SHARED.as_bytes()),
        Algorithm::RS256 => EncodingKey::from_rsa_pem(include_bytes!("keys/rsa.pem")).unwrap(),
        Algorithm::ES256 => EncodingKey::from_ec_pem(include_bytes!("keys/ec.pem")).unwrap(),
        _ => EncodingKey::from_ed_pem(include_bytes!("keys/ed.pem")).unwrap(),
    };
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(header), part(claims))
}

fn good() -> Value {
    json!({ "sub": "llama", "exp": NOW + 600, "aud": "api", "iss": "me" })
}

/// Verifies a token with these options, and returns the name in it.
async fn verify(token: &str, options: &str) -> Result<String, Fault> {
    let text = format!(
        "const RSA = `{RSA}`; const EC = `{EC}`; const ED = `{ED}`; const SHARED = \"{SHARED}\";
        fn decode(req, presented) {{ #{{ user: jwt_verify(presented, {options}).sub }} }}"
    );
    let folder = Folder::of(&[("auth/jwt.rhai", &text)]);
    let scripts = folder.load().unwrap_or_else(|found| panic!("{}", found[0]));
    let set = scripts.current();
    let claim = set.auth("jwt").unwrap().decode(&req(), token).await?;
    Ok(claim.text("user").unwrap())
}

const HS: &str = "#{ alg: \"HS256\", secret: SHARED, aud: \"api\", iss: \"me\" }";

#[tokio::test]
async fn each_algorithm_verifies_only_tokens_of_this_algorithm() {
    let all = [
        (Algorithm::HS256, HS.to_owned()),
        (Algorithm::RS256, "#{ alg: \"RS256\", key: RSA, aud: \"api\" }".to_owned()),
        (Algorithm::ES256, "#{ alg: \"ES256\", key: EC, aud: [\"x\", \"api\"] }".to_owned()),
        (Algorithm::EdDSA, "#{ alg: \"EdDSA\", key: ED, aud: \"api\", leeway: 0 }".to_owned()),
    ];
    for (algorithm, options) in &all {
        for (other, _) in &all {
            let outcome = verify(&signed(*other, &good()), options).await;
            if other == algorithm {
                assert_eq!(outcome.unwrap(), "llama")
            } else {
                let refusal = refusal(outcome);
                assert_eq!(
                    (refusal.status.as_u16(), refusal.code.as_str()),
                    (401, "INVALID_TOKEN")
                );
            }
        }
        // A change of one character in the claims, or in the signature, makes the token invalid.
        let token = signed(*algorithm, &good());
        for index in [token.find('.').unwrap() + 5, token.len() - 10] {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            refusal(verify(&String::from_utf8(bytes).unwrap(), options).await);
        }
    }
}

#[tokio::test]
async fn token_cannot_choose_its_algorithm() {
    for name in ["none", "None", "NONE", "nOnE", "", "HS256", "RS256"] {
        let token = unsigned(&json!({ "alg": name, "typ": "JWT" }), &good());
        for options in [HS, "#{ alg: \"RS256\", key: RSA, aud: \"api\" }"] {
            refusal(verify(&token, options).await);
        }
    }
    // A token whose HS256 secret is the public key of RS256.
    let key = EncodingKey::from_secret(RSA.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &good(), &key).unwrap();
    refusal(verify(&token, "#{ alg: \"RS256\", key: RSA, aud: \"api\" }").await);
    // A script that uses the public key as an HS256 secret gets an error.
    let message = detail(verify(&token, "#{ alg: \"HS256\", secret: RSA, aud: \"api\" }").await);
    assert!(message.contains("cannot be the secret for HS256"), "{message}");
    // A token that contains a key.
    let header = json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": "AAAA" } });
    refusal(verify(&unsigned(&header, &good()), HS).await);
    let header = Header { crit: Some(vec!["exp".into()]), ..Header::new(Algorithm::HS256) };
    let key = EncodingKey::from_secret(SHARED.as_bytes());
    let critical = jsonwebtoken::encode(&header, &good(), &key).unwrap();
    assert!(refusal(verify(&critical, HS).await).description.contains("extension"));
}

#[tokio::test]
async fn claims_are_checked_strictly() {
    let with = |field: &str, value: Value| {
        let mut claims = good();
        claims[field] = value;
        claims
    };
    let without = |field: &str| {
        let mut claims = good();
        claims.as_object_mut().unwrap().remove(field);
        claims
    };
    let mut wrong = Vec::new();
    for (claims, expected) in [
        (without("exp"), "no expiry"),
        (with("exp", json!(NOW - 60)), "expired"),
        (with("exp", json!(NOW - 100_000)), "expired"),
        (with("exp", json!(0)), "expired"),
        (with("exp", json!(-1)), "expired"),
        (with("exp", json!((NOW + 600).to_string())), "not a number"),
        (with("exp", json!("9999999999")), "not a number"),
        (with("exp", json!(null)), "not a number"),
        (with("exp", json!(true)), "not a number"),
        (with("exp", json!([NOW + 600])), "cannot be read"),
        (with("nbf", json!(NOW + 61)), "not valid yet"),
        (with("nbf", json!("0")), "not a number"),
        (without("aud"), "another audience"),
        (with("aud", json!("other")), "another audience"),
        (with("aud", json!(["other"])), "another audience"),
        (with("aud", json!({ "api": "api" })), "another audience"),
        (with("aud", json!("api2")), "another audience"),
        (without("iss"), "another issuer"),
        (with("iss", json!("you")), "another issuer"),
        (with("iss", json!(["me"])), "another issuer"),
    ] {
        let outcome = verify(&signed(Algorithm::HS256, &claims), HS).await;
        let description = refusal(outcome).description;
        if !description.contains(expected) {
            wrong.push(format!("{claims}: {description}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for claims in [
        with("exp", json!(NOW - 59)),
        with("exp", json!(NOW as f64 + 0.5)),
        with("nbf", json!(NOW + 60)),
        with("aud", json!(["x", "api"])),
    ] {
        assert_eq!(verify(&signed(Algorithm::HS256, &claims), HS).await.unwrap(), "llama");
    }
    // A token with an audience is invalid if the script does not set the option `aud` (RFC 7519,
    // section 4.1.3).
    let options = "#{ alg: \"HS256\", secret: SHARED }";
    refusal(verify(&signed(Algorithm::HS256, &good()), options).await);
    verify(&signed(Algorithm::HS256, &without("aud")), options).await.unwrap();
    for token in [
        "",
        ".",
        "..",
        "a.b.c",
        "a",
        &"a".repeat(20_000),
        &format!("{}.", signed(Algorithm::HS256, &good())),
    ] {
        refusal(verify(token, HS).await);
    }
}

#[tokio::test]
async fn invalid_options_are_an_error_of_the_script() {
    let token = signed(Algorithm::HS256, &good());
    for options in [
        "#{}",
        "#{ alg: \"none\" }",
        "#{ alg: \"HS512\", secret: SHARED }",
        "#{ alg: \"HS256\" }",
        "#{ alg: \"HS256\", key: RSA }",
        "#{ alg: \"HS256\", secret: \"\" }",
        "#{ alg: \"HS256\", secret: \"short\" }",
        "#{ alg: \"HS256\", secret: SHARED, key: RSA }",
        "#{ alg: \"RS256\", key: \"x\" }",
        "#{ alg: \"RS256\", key: EC }",
        "#{ alg: \"ES256\", key: ED }",
        "#{ alg: \"HS256\", secret: SHARED, aud: 1 }",
        "#{ alg: \"HS256\", secret: SHARED, iss: [1] }",
        "#{ alg: \"HS256\", secret: SHARED, leeway: 601 }",
        "#{ alg: \"HS256\", secret: SHARED, leeway: -1 }",
        "#{ alg: \"HS256\", secret: SHARED, audience: \"api\" }",
    ] {
        let message = detail(verify(&token, options).await);
        assert!(message.contains("jwt_verify"), "{options}: {message}");
    }
}
