//! Tests of `POST /entity/user`: creating users.

use serde_json::{Value, json};

use super::{Fixture, field_names, fixture, single_value, value};
use crate::harness::{Server, Site};

#[test]
fn a_create_responds_201_with_the_entity_and_its_location() {
    let fixture = fixture();
    let name = fixture.unique("Llama");
    let response = fixture.post(&fixture.admin(), &single_value("name", name.clone()));
    let entity = response.entity(201);
    let uid = value(&entity, "uid").as_u64().unwrap();
    assert_eq!(value(&entity, "name"), &json!(name));
    let location = format!("{}/user/{uid}", fixture.origin());
    assert_eq!(response.header("location"), Some(location.as_str()));
    // A GET returns the same entity.
    assert_eq!(fixture.get(&fixture.admin(), uid).entity(200), entity);
    assert_eq!(
        fixture.request_as(&fixture.admin(), "GET", &format!("/user/{uid}")).send().json(),
        entity
    );
}

#[test]
fn the_location_has_the_host_of_the_request() {
    let fixture = fixture();
    for (host, shown) in [
        ("api.example", "api.example"),
        ("API.example.:8443", "api.example:8443"),
        ("[0::1]:1", "[::1]:1"),
        ("127.0.0.1:80", "127.0.0.1"),
    ] {
        let body = single_value("name", fixture.unique("hosted")).to_string();
        let head = format!(
            "POST /entity/user HTTP/1.1\r\nHost: {host}\r\nAPI-KEY: {}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            fixture.admin().credential,
            body.len(),
        );
        let response = crate::harness::exchange(fixture.server.public, head.as_bytes());
        let uid = value(&response.entity(201), "uid").clone();
        let location = format!("http://{shown}/user/{uid}");
        assert_eq!(response.header("location"), Some(location.as_str()));
    }
}

#[test]
fn the_location_has_the_configured_public_url() {
    let site = Site::new().with_env("KEYWARD_SERVER__PUBLIC_URL", "https://api.example.com/base/");
    let fixture = Fixture::new(site.start());
    let response = fixture.post(&fixture.admin(), &single_value("name", "llama"));
    let uid = value(&response.entity(201), "uid").clone();
    let location = format!("https://api.example.com/base/user/{uid}");
    assert_eq!(response.header("location"), Some(location.as_str()));
    // Error messages contain the configured URL too, not the `Host` of the request.
    let not_found = fixture.request_as(&fixture.admin(), "GET", "/nothing").send();
    not_found
        .assert_message(404, "No route found for \"GET https://api.example.com/base/nothing\"");
}

#[test]
fn each_form_of_a_field_is_accepted() {
    let fixture = fixture();
    for form in [
        |name: Value| json!([{ "value": name }]),
        |name: Value| json!([name]),
        |name: Value| json!({ "value": name }),
    ] {
        let name = json!(fixture.unique("form"));
        let response = fixture.post(&fixture.admin(), &json!({ "name": form(name.clone()) }));
        assert_eq!(value(&response.entity(201), "name"), &name);
    }
    let roles = [fixture.role(&[]), fixture.role(&[])];
    for form in [
        json!([{ "target_id": roles[0] }, { "target_id": roles[1] }]),
        json!(roles),
        json!([roles[0], { "target_id": roles[1], "target_type": "user_role", "target_uuid": "x" }]),
    ] {
        let mut body = single_value("name", fixture.unique("form"));
        body["roles"] = form;
        let entity = fixture.post(&fixture.admin(), &body).entity(201);
        let ids = entity["roles"].as_array().unwrap().iter().map(|role| &role["target_id"]);
        assert!(ids.eq([&json!(roles[0]), &json!(roles[1])]), "{entity}");
    }
    // A single role may be sent as an object.
    let mut body = single_value("name", fixture.unique("form"));
    body["roles"] = json!({ "target_id": roles[0] });
    let entity = fixture.post(&fixture.admin(), &body).entity(201);
    assert_eq!(entity["roles"].as_array().unwrap().len(), 1);
}

#[test]
fn a_new_user_is_blocked_by_default() {
    let fixture = fixture();
    let name = fixture.unique("blocked");
    let entity = fixture.post(&fixture.admin(), &single_value("name", name.clone())).entity(201);
    assert_eq!(value(&entity, "status"), &json!(false));
    let key = fixture.server.generate_key(&name, &[]);
    let request =
        fixture.server.request("GET", "/user/1").header("API-KEY", &key.credential).send();
    request.assert_error(403, "USER_BLOCKED", "The user is blocked or inactive.");
    for empty in [json!([]), json!({}), json!([{}]), json!([null]), json!([{ "value": "" }])] {
        let mut body = single_value("name", fixture.unique("blocked"));
        body["status"] = empty;
        let entity = fixture.post(&fixture.admin(), &body).entity(201);
        assert_eq!(value(&entity, "status"), &json!(false), "{body}");
    }
}

#[test]
fn a_boolean_is_accepted_as_boolean_number_or_text() {
    let fixture = fixture();
    for (sent, status) in [
        (json!("1"), true),
        (json!(1), true),
        (json!(true), true),
        (json!("0"), false),
        (json!(0), false),
        (json!(false), false),
    ] {
        let mut body = single_value("name", fixture.unique("status"));
        body["status"] = json!([{ "value": sent }]);
        let entity = fixture.post(&fixture.admin(), &body).entity(201);
        assert_eq!(value(&entity, "status"), &json!(status), "{sent}");
    }
    for bad in [json!("yes"), json!("true"), json!(2), json!(-1), json!(0.5), json!([1]), json!({})]
    {
        let mut body = single_value("name", fixture.unique("status"));
        body["status"] = json!([{ "value": bad }]);
        fixture.post(&fixture.admin(), &body).assert_violations(&[
            "status.0.value: This value should be of the correct primitive type.",
        ]);
    }
}

#[test]
fn an_administrator_may_set_every_field_that_the_server_does_not_set() {
    let fixture = fixture();
    let role = fixture.role(&[]);
    let (name, mail) =
        (fixture.unique("complete"), format!("{}@example.com", fixture.unique("complete")));
    fixture.server.forbid_in_log("a password of mine");
    let body = json!({
        "langcode": [{ "value": "de" }],
        "preferred_langcode": [{ "value": "fr" }],
        "preferred_admin_langcode": [{ "value": "pt-br" }],
        "name": [{ "value": name }],
        "mail": [{ "value": mail }],
        "pass": [{ "value": "a password of mine" }],
        "timezone": [{ "value": "Europe/Berlin" }],
        "status": [{ "value": true }],
        "created": [{ "value": "1973-11-29T22:33:09+01:00", "format": "Y-m-d\\TH:i:sP" }],
        "access": [{ "value": 123_456_789 }],
        "login": [{ "value": "123456789" }],
        "init": [{ "value": "first@example.com" }],
        "roles": [{ "target_id": role }],
        "default_langcode": [{ "value": true }],
    });
    let entity = fixture.post(&fixture.admin(), &body).entity(201);
    // The body has the same time in three formats.
    let time = json!([{ "value": "1973-11-29T21:33:09+00:00", "format": "Y-m-d\\TH:i:sP" }]);
    for field in ["created", "access", "login"] {
        assert_eq!(entity[field], time, "{field}");
    }
    for (field, expected) in body.as_object().unwrap() {
        match field.as_str() {
            "pass" => assert!(entity.get("pass").is_none(), "{entity}"),
            "created" | "access" | "login" => {}
            "roles" => assert_eq!(entity["roles"][0]["target_id"], json!(role)),
            _ => assert_eq!(&entity[field], expected, "{field}"),
        }
    }
}

#[test]
fn init_keeps_the_first_mail_address() {
    let fixture = fixture();
    let mail = format!("{}@example.com", fixture.unique("first"));
    let mut body = single_value("name", fixture.unique("first"));
    body["mail"] = json!([{ "value": mail }]);
    let entity = fixture.post(&fixture.admin(), &body).entity(201);
    assert_eq!(entity["init"], json!([{ "value": mail }]));
    let uid = value(&entity, "uid").as_u64().unwrap();
    let other = format!("{}@example.com", fixture.unique("second"));
    let entity =
        fixture.patch(&fixture.admin(), uid, &single_value("mail", other.clone())).entity(200);
    assert_eq!(entity["init"], json!([{ "value": mail }]));
    assert_eq!(entity["mail"], json!([{ "value": other }]));
}

#[test]
fn a_user_manager_may_create_users_without_mail() {
    let fixture = fixture();
    let manager = fixture.user(&["administer users"]);
    let entity =
        fixture.post(&manager, &single_value("name", fixture.unique("mailless"))).entity(201);
    assert_eq!(entity["mail"], json!([]));
    assert_eq!(entity["init"], json!([]));
}

#[test]
fn creating_a_user_requires_the_permission() {
    let fixture = fixture();
    let message = "The 'administer users' permission is required.";
    for permissions in [
        &[][..],
        &[
            "access user profiles",
            "cancel account",
            "change own username",
            "view user email addresses",
        ],
        &["administer permissions", "administer site configuration", "administer rest resources"],
    ] {
        let user = fixture.user(permissions);
        fixture
            .post(&user, &single_value("name", fixture.unique("never")))
            .assert_message(403, message);
    }
}

#[test]
fn a_key_without_the_scope_cannot_create_a_user() {
    let fixture = fixture();
    let scoped = fixture.server.generate_key("admin", &["--scope", "access user profiles"]);
    let request =
        fixture.server.request("POST", "/entity/user").header("API-KEY", scoped.credential);
    let response = request.json(&single_value("name", fixture.unique("never"))).send();
    response.assert_message(403, "The 'administer users' permission is required.");
}

#[test]
fn a_uid_is_never_reused() {
    let fixture = Fixture::new(Server::new());
    let create = |name: &str| {
        let entity = fixture.post(&fixture.admin(), &single_value("name", name)).entity(201);
        value(&entity, "uid").as_u64().unwrap()
    };
    let first = create("a");
    assert_eq!(fixture.delete(&fixture.admin(), first).status, 204);
    let second = create("a");
    assert!(second > first, "{second} after {first}");
    assert_eq!(field_names(&fixture.get(&fixture.admin(), second).entity(200))[0], "uid");
}

/// The client sends HTTP/2 with prior knowledge to the same port. The server takes the host from
/// the authority of the request.
#[test]
fn a_create_works_the_same_over_http2() {
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let fixture = fixture();
    let name = fixture.unique("second");
    let request = hyper::Request::post("http://api.example:8443/entity/user?_format=json")
        .header("api-key", fixture.admin().credential)
        .header("content-type", "application/json")
        .body(Full::from(single_value("name", name.clone()).to_string()))
        .unwrap();
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(fixture.server.public).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(
            TokioExecutor::new(),
            TokioIo::new(stream),
        )
        .await
        .unwrap();
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        (head, body.collect().await.unwrap().to_bytes())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (head, body) = runtime.block_on(exchange);
    assert_eq!((head.status.as_u16(), head.version), (201, hyper::Version::HTTP_2));
    let entity: Value = serde_json::from_slice(&body).unwrap();
    let uid = value(&entity, "uid").as_u64().unwrap();
    assert_eq!(value(&entity, "name"), &json!(name));
    assert_eq!(head.headers["location"], format!("http://api.example:8443/user/{uid}"));
    assert_eq!(fixture.get(&fixture.admin(), uid).entity(200), entity);
}
