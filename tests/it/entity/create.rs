//! `POST /entity/user`.

use serde_json::{Value, json};

use super::{World, names, one, value, world};
use crate::harness::{Server, Site};

#[test]
fn it_answers_201_with_the_entity_and_its_location() {
    let world = world();
    let name = world.fresh("Llama");
    let answer = world.post(&world.admin(), &one("name", name.clone()));
    let entity = answer.entity(201);
    let uid = value(&entity, "uid").as_u64().unwrap();
    assert_eq!(value(&entity, "name"), &json!(name));
    let location = format!("{}/user/{uid}", world.origin());
    assert_eq!(answer.header("location"), Some(location.as_str()));
    // What was answered is what is there.
    assert_eq!(world.get(&world.admin(), uid).entity(200), entity);
    assert_eq!(world.asks(&world.admin(), "GET", &format!("/user/{uid}")).send().json(), entity);
}

#[test]
fn the_location_has_the_host_that_was_asked() {
    let world = world();
    for host in ["api.example", "API.example:8443", "[::1]:1", "127.0.0.1"] {
        let body = one("name", world.fresh("hosted")).to_string();
        let head = format!(
            "POST /entity/user HTTP/1.1\r\nHost: {host}\r\nAPI-KEY: {}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            world.admin().credential,
            body.len(),
        );
        let answer = crate::harness::exchange(world.server.public, head.as_bytes());
        let uid = value(&answer.entity(201), "uid").clone();
        let location = format!("http://{host}/user/{uid}");
        assert_eq!(answer.header("location"), Some(location.as_str()));
    }
}

#[test]
fn the_location_has_the_url_that_is_configured() {
    let site = Site::new().with("KEYWARD_SERVER__PUBLIC_URL", "https://api.example.com/base/");
    let world = World::new(site.start());
    let answer = world.post(&world.admin(), &one("name", "llama"));
    let uid = value(&answer.entity(201), "uid").clone();
    let location = format!("https://api.example.com/base/user/{uid}");
    assert_eq!(answer.header("location"), Some(location.as_str()));
    // Whatever a client says the host is.
    let nowhere = world.asks(&world.admin(), "GET", "/nothing").send();
    nowhere.says(404, "No route found for \"GET https://api.example.com/base/nothing\"");
}

#[test]
fn each_form_of_a_field_is_taken() {
    let world = world();
    for form in [
        |name: Value| json!([{ "value": name }]),
        |name: Value| json!([name]),
        |name: Value| json!({ "value": name }),
    ] {
        let name = json!(world.fresh("form"));
        let answer = world.post(&world.admin(), &json!({ "name": form(name.clone()) }));
        assert_eq!(value(&answer.entity(201), "name"), &name);
    }
    let roles = [world.role(&[]), world.role(&[])];
    for form in [
        json!([{ "target_id": roles[0] }, { "target_id": roles[1] }]),
        json!(roles),
        json!([roles[0], { "target_id": roles[1], "target_type": "user_role", "target_uuid": "x" }]),
    ] {
        let mut body = one("name", world.fresh("form"));
        body["roles"] = form;
        let entity = world.post(&world.admin(), &body).entity(201);
        let ids = entity["roles"].as_array().unwrap().iter().map(|role| &role["target_id"]);
        assert!(ids.eq([&json!(roles[0]), &json!(roles[1])]), "{entity}");
    }
    // One role as an object.
    let mut body = one("name", world.fresh("form"));
    body["roles"] = json!({ "target_id": roles[0] });
    let entity = world.post(&world.admin(), &body).entity(201);
    assert_eq!(entity["roles"].as_array().unwrap().len(), 1);
}

#[test]
fn a_user_is_blocked_unless_the_request_says_otherwise() {
    let world = world();
    let name = world.fresh("blocked");
    let entity = world.post(&world.admin(), &one("name", name.clone())).entity(201);
    assert_eq!(value(&entity, "status"), &json!(false));
    let key = world.server.key(&name, &[]);
    let asked = world.server.request("GET", "/user/1").header("API-KEY", &key.credential).send();
    asked.refuses(403, "USER_BLOCKED", "The user is blocked or inactive.");
    for empty in [json!([]), json!({}), json!([{}]), json!([null]), json!([{ "value": "" }])] {
        let mut body = one("name", world.fresh("blocked"));
        body["status"] = empty;
        let entity = world.post(&world.admin(), &body).entity(201);
        assert_eq!(value(&entity, "status"), &json!(false), "{body}");
    }
}

#[test]
fn there_are_three_ways_to_say_true() {
    let world = world();
    for (sent, status) in [
        (json!("1"), true),
        (json!(1), true),
        (json!(true), true),
        (json!("0"), false),
        (json!(0), false),
        (json!(false), false),
    ] {
        let mut body = one("name", world.fresh("status"));
        body["status"] = json!([{ "value": sent }]);
        let entity = world.post(&world.admin(), &body).entity(201);
        assert_eq!(value(&entity, "status"), &json!(status), "{sent}");
    }
    for bad in [json!("yes"), json!("true"), json!(2), json!(-1), json!(0.5), json!([1]), json!({})]
    {
        let mut body = one("name", world.fresh("status"));
        body["status"] = json!([{ "value": bad }]);
        world
            .post(&world.admin(), &body)
            .finds(&["status.0.value: This value should be of the correct primitive type."]);
    }
}

#[test]
fn an_administrator_may_set_nearly_everything() {
    let world = world();
    let role = world.role(&[]);
    let (name, mail) = (world.fresh("whole"), format!("{}@example.com", world.fresh("whole")));
    world.server.hide("a password of mine");
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
    let entity = world.post(&world.admin(), &body).entity(201);
    let at = json!([{ "value": "1973-11-29T21:33:09+00:00", "format": "Y-m-d\\TH:i:sP" }]);
    for field in ["created", "access", "login"] {
        assert_eq!(entity[field], at, "{field}");
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
fn the_first_mail_address_is_kept() {
    let world = world();
    let mail = format!("{}@example.com", world.fresh("first"));
    let mut body = one("name", world.fresh("first"));
    body["mail"] = json!([{ "value": mail }]);
    let entity = world.post(&world.admin(), &body).entity(201);
    assert_eq!(entity["init"], json!([{ "value": mail }]));
    let uid = value(&entity, "uid").as_u64().unwrap();
    let other = format!("{}@example.com", world.fresh("second"));
    let entity = world.patch(&world.admin(), uid, &one("mail", other.clone())).entity(200);
    assert_eq!(entity["init"], json!([{ "value": mail }]));
    assert_eq!(entity["mail"], json!([{ "value": other }]));
}

#[test]
fn who_administers_users_may_make_them_without_mail() {
    let world = world();
    let manager = world.person(&["administer users"]);
    let entity = world.post(&manager, &one("name", world.fresh("mailless"))).entity(201);
    assert_eq!(entity["mail"], json!([]));
    assert_eq!(entity["init"], json!([]));
}

#[test]
fn the_permission_is_required() {
    let world = world();
    let said = "The 'administer users' permission is required.";
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
        let person = world.person(permissions);
        world.post(&person, &one("name", world.fresh("never"))).says(403, said);
    }
}

#[test]
fn a_key_without_the_scope_makes_nobody() {
    let world = world();
    let scoped = world.server.key("admin", &["--scope", "access user profiles"]);
    let asked = world.server.request("POST", "/entity/user").header("API-KEY", scoped.credential);
    let answer = asked.json(&one("name", world.fresh("never"))).send();
    answer.says(403, "The 'administer users' permission is required.");
}

#[test]
fn numbers_are_never_given_twice() {
    let world = World::new(Server::new());
    let make = |name: &str| {
        let entity = world.post(&world.admin(), &one("name", name)).entity(201);
        value(&entity, "uid").as_u64().unwrap()
    };
    let first = make("a");
    assert_eq!(world.delete(&world.admin(), first).status, 204);
    let second = make("a");
    assert!(second > first, "{second} after {first}");
    assert_eq!(names(&world.get(&world.admin(), second).entity(200))[0], "uid");
}

/// On the same port, with prior knowledge. The authority of the request is its host.
#[test]
fn it_is_the_same_over_http2() {
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let world = world();
    let name = world.fresh("second");
    let request = hyper::Request::post("http://api.example:8443/entity/user?_format=json")
        .header("api-key", world.admin().credential)
        .header("content-type", "application/json")
        .body(Full::from(one("name", name.clone()).to_string()))
        .unwrap();
    let asked = async {
        let stream = tokio::net::TcpStream::connect(world.server.public).await.unwrap();
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
    let (head, body) = runtime.block_on(asked);
    assert_eq!((head.status.as_u16(), head.version), (201, hyper::Version::HTTP_2));
    let entity: Value = serde_json::from_slice(&body).unwrap();
    let uid = value(&entity, "uid").as_u64().unwrap();
    assert_eq!(value(&entity, "name"), &json!(name));
    assert_eq!(head.headers["location"], format!("http://api.example:8443/user/{uid}"));
    assert_eq!(world.get(&world.admin(), uid).entity(200), entity);
}
