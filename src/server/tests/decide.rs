//! The decide face: what a proxy in front is told, in each dialect.

use serde_json::{Value, json};

use super::{
    rig::{Answer, House},
    upstream::{Speaks, echo},
};

const DIALECTS: [&str; 6] = ["", "/nginx", "/caddy", "/traefik", "/envoy", "/haproxy"];

fn orders() -> Value {
    json!({
        "id": "orders",
        "handler": "decide",
        "host": "api.example",
        "path": "/orders/{id}",
        "methods": ["GET", "POST"],
        "permissions": { "POST": ["read"] },
    })
}

async fn house() -> House {
    House::with(&[orders()], |public| public.trusting(["127.0.0.0/8".parse().unwrap()])).await
}

/// The request that a proxy of this dialect sends about another one.
fn question(dialect: &str, method: &str, target: &str, more: &str) -> String {
    let (line, fields) = match dialect {
        "/envoy" => {
            (format!("{method} /-/verify/envoy{target}"), "Host: API.example\r\n".to_owned())
        }
        "/nginx" => (
            "GET /-/verify/nginx".into(),
            format!(
                "Host: keyward\r\nX-Original-Method: {method}\r\nX-Original-URI: {target}\r\nX-Original-Host: API.example\r\n"
            ),
        ),
        other => (
            format!("GET /-/verify{other}"),
            format!(
                "Host: keyward\r\nX-Forwarded-Method: {method}\r\nX-Forwarded-Uri: {target}\r\nX-Forwarded-Host: API.example\r\n"
            ),
        ),
    };
    format!(
        "{line} HTTP/1.1\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.7\r\n{fields}{more}\r\n"
    )
}

async fn ask(house: &House, dialect: &str, method: &str, target: &str, more: &str) -> Answer {
    house.send(question(dialect, method, target, more).as_bytes()).await
}

fn by(credential: &str) -> String {
    format!("API-KEY: {credential}\r\n")
}

/// The status that the client of the proxy gets.
fn true_status(dialect: &str, answer: &Answer) -> u16 {
    match (dialect, answer.status) {
        ("/nginx", 401 | 403) => answer.header("x-keyward-status").unwrap().parse().unwrap(),
        ("/nginx", 200) => 200,
        ("/nginx", other) => panic!("nginx makes a 500 of {other}"),
        (_, status) => status,
    }
}

#[tokio::test]
async fn each_proxy_learns_who_may_and_who_it_is() {
    let house = house().await;
    let forged = format!("{}X-Keyward-User: root\r\n", by(&house.ada));
    for dialect in DIALECTS {
        let answer = ask(&house, dialect, "POST", "/orders/./7?a=b", &forged).await;
        assert_eq!((answer.status, answer.text()), (200, ""), "{dialect}");
        let told = |name: &str| answer.headers.iter().filter(|(one, _)| one == name).count();
        assert_eq!((answer.header("x-keyward-user"), told("x-keyward-user")), (Some("ada"), 1));
        assert_eq!(answer.header("x-keyward-roles"), Some("reader"));
        assert_eq!(answer.header("x-keyward-uri"), Some("/orders/7?a=b"), "{dialect}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn refusals_have_their_status_in_every_dialect() {
    let house = house().await;
    let (ada, bob, unknown) =
        (by(&house.ada), by(&house.bob), "AUTH-METHOD: unknown\r\n".to_owned());
    for dialect in DIALECTS {
        for (status, method, target, more) in [
            (401, "GET", "/orders/7", ""),
            (401, "GET", "/orders/7", "API-KEY: !\r\n"),
            (400, "GET", "/orders/7", &unknown),
            (403, "POST", "/orders/7", &bob),
            (404, "GET", "/elsewhere", &ada),
            (405, "DELETE", "/orders/7", &ada),
            (400, "GET", "/orders/%2f", &ada),
            (400, "GET", "/orders/../../..", &ada),
            (400, "GET", "/orders/7", "API-KEY: a\r\nAPI-KEY: b\r\n"),
        ] {
            let answer = ask(&house, dialect, method, target, more).await;
            // A doubled credential is a 401: the application cannot read it.
            let expected = if more.matches("API-KEY").count() > 1 { 401 } else { status };
            assert_eq!(
                true_status(dialect, &answer),
                expected,
                "{dialect} {method} {target} {more}"
            );
            assert_eq!(expected == 401, answer.header("www-authenticate").is_some(), "{answer:?}");
            assert_eq!(answer.header("x-keyward-user"), None);
            if dialect == "/nginx" {
                let body: Value =
                    serde_json::from_str(answer.header("x-keyward-body").unwrap()).unwrap();
                assert_eq!(body, answer.json());
            }
        }
    }
}

#[tokio::test]
async fn an_anonymous_request_overwrites_what_a_client_may_have_written() {
    let mut resource = orders();
    resource["authentication"] = json!(["anonymous"]);
    let loopback = ["127.0.0.0/8".parse().unwrap()];
    let house = House::with(&[resource], |public| public.trusting(loopback)).await;
    for dialect in DIALECTS {
        let answer = ask(&house, dialect, "GET", "/orders/7", "").await;
        assert_eq!(answer.status, 200);
        for name in ["user", "user-id", "roles", "key-id", "application"] {
            assert_eq!(answer.header(&format!("x-keyward-{name}")), Some(""), "{dialect} {name}");
        }
    }
}

#[tokio::test]
async fn only_a_trusted_proxy_may_ask() {
    let resource = orders();
    let house =
        House::with(&[resource], |public| public.trusting(["10.0.0.0/8".parse().unwrap()])).await;
    for dialect in DIALECTS {
        let answer = ask(&house, dialect, "GET", "/orders/7", &by(&house.ada)).await;
        assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("UNTRUSTED_PROXY")));
    }
}

#[tokio::test]
async fn a_keys_networks_are_held_against_the_client_and_not_the_proxy() {
    let house = house().await;
    let new = crate::accounts::NewKey {
        networks: vec!["203.0.113.0/24".parse().unwrap()],
        ..Default::default()
    };
    let uid = house.accounts.directory().user_by_name("ada").unwrap().uid;
    let key =
        house.accounts.acting(crate::model::Actor::Program).issue_key(uid, new).await.unwrap();
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let credential = by(&STANDARD.encode(format!("ada:{}", key.text.expose())));
    for dialect in DIALECTS {
        let asked = question(dialect, "GET", "/orders/7", &credential);
        assert_eq!(house.send(asked.as_bytes()).await.status, 200, "{dialect}");
        for (chain, status) in [
            ("198.51.100.1", 401),
            ("203.0.113.7, 198.51.100.1", 401),
            ("198.51.100.1, 203.0.113.7", 200),
            ("203.0.113.7, 127.0.0.1", 200),
        ] {
            let asked = asked.replace("203.0.113.7", chain);
            let answer = house.send(asked.as_bytes()).await;
            assert_eq!(true_status(dialect, &answer), status, "{dialect} {chain}");
        }
        let silent = asked.replace("X-Forwarded-For: 203.0.113.7\r\n", "");
        assert_eq!(true_status(dialect, &house.send(silent.as_bytes()).await), 400, "{dialect}");
    }
}

#[tokio::test]
async fn nothing_behind_envoys_path_leads_out_of_it() {
    let upstream = echo(Speaks::Http1).await;
    let proxy = json!({ "upstreams": [upstream.url()] });
    let open = json!({ "id": "open", "handler": "proxy", "path": "/open", "authentication": ["anonymous"], "proxy": proxy });
    let house =
        House::with(&[open], |public| public.trusting(["127.0.0.0/8".parse().unwrap()])).await;
    for target in ["/../../../open", "/%2e%2e/%2e%2e/%2e%2e/open", "/..%2f..%2f..%2fopen"] {
        let answer = ask(&house, "/envoy", "GET", target, &by(&house.ada)).await;
        assert_eq!(answer.status, 400, "{target}: {answer:?}");
    }
    assert_eq!(ask(&house, "/envoy", "GET", "/x/../open", "").await.status, 200);
    assert_eq!(upstream.connections(), 0, "a question is never forwarded");
    for no in ["/-/verify/other", "/-/verify/", "/x/../-/verify", "/%2d/verify"] {
        let answer = house.ask("GET", no, "", "").await;
        assert_eq!(answer.status, 404, "{no}");
    }
}

#[tokio::test]
async fn one_request_gets_one_verdict_by_every_way() {
    let upstream = echo(Speaks::Http1).await;
    let proxy = json!({ "upstreams": [upstream.url()] });
    let mut orders = orders();
    orders["handler"] = json!("proxy");
    orders["proxy"] = proxy;
    orders["formats"] = json!(["json"]);
    let house =
        House::with(&[orders], |public| public.trusting(["127.0.0.0/8".parse().unwrap()])).await;
    let paths = [
        "/orders/7",
        "//orders/7",
        "/orders//7",
        "/orders/7/",
        "/orders/",
        "/orders",
        "/orders/./7",
        "/orders/../orders/7",
        "/x/../orders/7",
        "/orders/%37",
        "/orders/%2e%2e/x",
        "/orders/%2e",
        "/orders/7%2f8",
        "/orders/7%5c",
        "/orders/7;a=b",
        "/orders/7%3b",
        "/orders/%00",
        "/orders/7%0a",
        "/orders/%",
        "/orders/%zz",
        "/orders/%2537",
        "/orders/%c3%bc",
        "/orders/%ff",
        "/orders/..",
        "/../orders/7",
        "/..",
        "/orders/7?x",
        "/orders/7?x=%2f..",
        "/ORDERS/7",
        "/orders/7.json",
        "/orders/~7",
        "/orders/a:b",
        "/orders/a@b",
        "/orders/7?_format=xml",
        "/orders/7?_format=json",
        "/-/verify",
        "/",
    ];
    let credentials =
        [by(&house.ada), by(&house.bob), String::new(), by("!"), "AUTH-METHOD: x\r\n".to_owned()];
    let (mut allowed, mut refused) = (0, 0);
    for path in paths {
        for (method, more) in
            [("GET", ""), ("POST", "Content-Type: application/json\r\n"), ("POST", "")]
        {
            for credential in &credentials {
                let more = format!("{credential}{more}");
                let served = house.ask_as("", method, path, &more, "").await;
                // What is asked about under our own name is asked about, and not served.
                if path == "/-/verify" {
                    continue;
                }
                for dialect in DIALECTS {
                    let told = ask(&house, dialect, method, path, &more).await;
                    let verdict = true_status(dialect, &told);
                    assert_eq!(verdict, served.status, "{dialect} {method} {path} {more}");
                }
                match served.status {
                    200 => allowed += 1,
                    _ => refused += 1,
                }
            }
        }
    }
    assert!(allowed > 30 && refused > 200, "{allowed} {refused}");
}
