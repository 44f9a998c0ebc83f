//! Tests of the identity that an upstream, a proxy in front, the service behind the layer, and
//! scripts are told: it is neither forged nor dropped nor widened.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{
    ClientSource, GuardLayer,
    accounts::{NewKey, NewUser},
    model::{ADMINISTRATOR, Actor, Role},
};
use serde_json::{Value, json};

use super::fixture::{Fixture, request};
use crate::faces::{corpus::exchange, fixture::send_through};

/// Creates a user with the roles `administrator`, `both` (the permissions `read` and `write, all`),
/// `label` (no permissions) and `reader` (`read`). Returns credentials with these scopes.
async fn credentials(fixture: &Fixture, name: &str, scopes: &[Option<&[&str]>]) -> Vec<String> {
    let writer = fixture.accounts.as_actor(Actor::Program);
    for (id, permissions) in
        [("reader", &["read"][..]), ("both", &["read", "write, all"]), ("label", &[])]
    {
        let permissions = permissions.iter().map(|name| (*name).to_owned()).collect();
        let (id, label) = (id.to_owned(), id.to_owned());
        writer.create(Role { id, label, weight: 0, is_admin: false, permissions }).await.unwrap();
    }
    let roles = [ADMINISTRATOR, "both", "label", "reader"].map(str::to_owned).into();
    let new = NewUser { name: name.into(), status: true, roles, ..NewUser::default() };
    let uid = writer.create_user(new).await.unwrap().record.uid;
    let mut credentials = Vec::new();
    for scopes in scopes {
        let scopes = scopes.map(|scopes| scopes.iter().map(|name| (*name).to_owned()).collect());
        let key = writer.issue_key(uid, NewKey { scopes, ..NewKey::default() }).await.unwrap();
        credentials.push(STANDARD.encode(format!("{name}:{}", key.text.expose())));
    }
    credentials
}

/// For each list of scopes: the roles and the scopes that are told.
const TOLD: [(Option<&[&str]>, &str, &str); 5] = [
    (None, "administrator,both,label,reader", ""),
    (Some(&[]), "", "-"),
    (Some(&["read"]), "reader", "read"),
    (Some(&["read", "write, all"]), "both,reader", "read,write%2C all"),
    (Some(&["write, all"]), "", "write%2C all"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_with_scopes_tells_no_role_that_it_does_not_carry() {
    let fixture = Fixture::new().await;
    let credentials = credentials(&fixture, "Zoë", &TOLD.map(|(scopes, ..)| scopes)).await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    for (credential, (scopes, roles, told_scopes)) in credentials.iter().zip(TOLD) {
        let fields = [("API-KEY", credential.as_str())];
        let seen = fixture.proxied("/p/x", &fields).await;
        assert_eq!(seen.get("x-keyward-user"), ["Zo%C3%AB"]);
        assert_eq!(seen.get("x-keyward-roles"), [roles], "{scopes:?}");
        // The upstream gets no field of a key without scopes.
        let expected = scopes.map(|_| told_scopes);
        assert_eq!(seen.get("x-keyward-scopes"), expected.as_slice(), "{scopes:?}");

        let response = fixture.verify("/d/x", &fields).await;
        let told = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(told("x-keyward-user"), "Zo%C3%AB");
        assert_eq!(
            (told("x-keyward-roles"), told("x-keyward-scopes")),
            (roles.into(), told_scopes.into())
        );

        let (_, received) = send_through(&layer, request("/s/x", &fields)).await;
        let identity = received.lock().unwrap()[0].0.clone();
        assert_eq!(identity.name(), Some("Zoë"));
        assert_eq!(identity.roles().join(","), roles, "{scopes:?}");
        let owned = |scopes: &[&str]| scopes.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(identity.scopes().map(<[String]>::to_vec), scopes.map(owned));

        let response = fixture.send("/who", &fields).await;
        let seen: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(seen["roles"], json!(identity.roles()), "{scopes:?}");
        assert_eq!(seen["scopes"], json!(scopes), "{scopes:?}");
        assert_eq!(seen["reader"], roles.contains("reader"), "{scopes:?}");
    }
}

#[tokio::test]
async fn scope_that_the_user_has_lost_is_not_told() {
    let fixture = Fixture::new().await;
    credentials(&fixture, "root", &[]).await;
    let writer = fixture.accounts.as_actor(Actor::Program);
    let roles = ["both", "reader"].map(str::to_owned).into();
    let new = NewUser { name: "bob".into(), status: true, roles, ..NewUser::default() };
    let uid = writer.create_user(new).await.unwrap().record.uid;
    let scopes = Some(vec!["read".to_owned(), "write, all".to_owned()]);
    let key = writer.issue_key(uid, NewKey { scopes, ..NewKey::default() }).await.unwrap();
    let credential = STANDARD.encode(format!("bob:{}", key.text.expose()));
    let told = async || {
        let seen = fixture.proxied("/p/x", &[("API-KEY", &credential)]).await;
        [seen.get("x-keyward-roles").join(" "), seen.get("x-keyward-scopes").join(" ")]
    };
    assert_eq!(told().await, ["both,reader", "read,write%2C all"]);
    for (id, expected) in [("both", ["reader", "read"]), ("reader", ["", "-"])] {
        let change = |role: &mut Role| {
            role.permissions = ["other".to_owned()].into();
            Ok::<_, keyward::accounts::AccountError>(())
        };
        writer.change(id, None, change).await.unwrap();
        assert_eq!(told().await, expected, "{id}");
    }
}

#[tokio::test]
async fn client_cannot_forge_or_drop_identity() {
    let fixture = Fixture::new().await;
    let scoped = credentials(&fixture, "eve", &[Some(&["read"])]).await.remove(0);
    let url = fixture.upstream.as_str();
    for (id, protocol) in [("h1", "http1"), ("h2", "http2")] {
        let proxy = json!({ "upstreams": [url], "protocol": protocol });
        fixture
            .add(json!({ "id": id, "path": format!("/{id}"), "handler": "proxy", "proxy": proxy }))
            .await;
    }
    let names = ["User", "User-Id", "Roles", "Key-Id", "Application", "Scopes"];
    let mut lines = format!("API-KEY: {scoped}\r\n");
    for name in names {
        let field = format!("X-Keyward-{name}");
        for spelling in [
            field.clone(),
            field.replace('-', "_"),
            field.to_uppercase(),
            field.replacen('-', ".", 1),
        ] {
            lines += &format!("{spelling}: f0rged\r\nConnection: {spelling}\r\n");
        }
    }
    for (name, value) in [
        ("X-Original-Method", "0verride"),
        ("X-Original-Host", "0verride"),
        ("X-Original-URI", "/0verride"),
        ("X_Override_URL", "/0verride"),
        ("X-HTTP-Host-Override", "0verride"),
        ("Proxy", "http://0verride"),
        ("Transfer_Encoding", "chunked"),
        ("Content_Length", "7"),
    ] {
        lines += &format!("{name}: {value}\r\n");
    }
    // Trailers, too, must not look like fields that only Keyward writes, or like a credential.
    let trailers = "X-Keyward-User: f0rged\r\nx_keyward_scopes: f0rged\r\nApi_Key: f0rged\r\nAUTH-METHOD: f0rged\r\n\
                    Proxy: http://0verride\r\nContent_Length: 7\r\nX-Mine: 1\r\n";
    // An HTTP/1.1 upstream gets only trailers that the field `Trailer` announces.
    let declared = trailers.split("\r\n").filter_map(|line| Some(line.split_once(':')?.0));
    let declared = declared.collect::<Vec<_>>().join(", ");
    for path in ["/h1", "/h2"] {
        let text = format!(
            "POST {path} HTTP/1.1\r\nHost: api.example\r\nConnection: close, TE\r\nTE: trailers\r\n{lines}\
             Trailer: {declared}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n{trailers}\r\n"
        );
        let response = exchange(fixture.address, &text).await;
        assert_eq!(response.status(), 200, "{:?}", response.body());
        let seen: Value = serde_json::from_slice(response.body()).unwrap();
        let text = seen.to_string();
        assert!(!text.contains("f0rged") && !text.contains("0verride"), "{path} {text}");
        assert!(!text.contains("transfer_encoding") && !text.contains("content_length"), "{text}");
        let fields: Vec<(String, String)> = serde_json::from_value(seen["fields"].clone()).unwrap();
        for (name, value) in
            [("user", "eve"), ("roles", "reader"), ("scopes", "read"), ("application", "default")]
        {
            let name = format!("x-keyward-{name}");
            let values: Vec<_> = fields.iter().filter(|(known, _)| *known == name).collect();
            assert_eq!(values, [&(name, value.to_owned())], "{path}");
        }
        assert_eq!(seen["trailers"], json!([["x-mine", "1"]]), "{path}");
    }
}

#[tokio::test]
async fn service_behind_the_layer_gets_no_field_that_overrides_the_request() {
    let fixture = Fixture::new().await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).requires_user();
    let forged = [
        ("API-KEY", fixture.ada.as_str()),
        ("X-Keyward-Scopes", "x"),
        ("x_keyward_user", "x"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("x-original_host", "x"),
        ("Proxy", "http://x"),
        ("Content_Length", "7"),
        ("X-Mine", "1"),
    ];
    let seen = fixture.through(&layer, "/s/x", &forged).await;
    let names: Vec<_> = seen.fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["host", "x-mine"]);
}
