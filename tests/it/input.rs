//! Tests of invalid input: each case has a clear error, nothing panics, and the server keeps
//! serving.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
};

use serde_json::json;

use crate::harness::{Server, Site, TIMEOUT, exchange};

/// Asserts that the server does not start, and that standard error contains the expected texts.
#[track_caller]
fn assert_start_fails(site: &Site, expected: &[&str]) {
    let output = site.run(&["serve"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "the server started");
    for part in expected {
        assert!(errors.contains(part), "{part:?} is not in: {errors}");
    }
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn oversized_header_fields_are_rejected() {
    let server = Server::new();
    let description = "The request's header fields are larger than this server takes.";
    let response =
        server.request_as_admin("GET", "/user/1").header("X-Long", vec![b'x'; 65536]).send();
    response.assert_error(431, "REQUEST_HEADER_FIELDS_TOO_LARGE", description);
    let many = (0..2000).fold(server.request_as_admin("GET", "/user/1"), |request, n| {
        request.header(&format!("X-{n}"), "x")
    });
    many.send().assert_error(431, "REQUEST_HEADER_FIELDS_TOO_LARGE", description);
    // The header section is within its limit, but the header field is longer than any credential.
    let long = server.request("GET", "/user/1").header("API-KEY", vec![b'x'; 8000]).send();
    long.assert_error(401, "INVALID_API_KEY_FORMAT", "API key format is invalid.");
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
}

#[test]
fn malformed_requests_are_rejected() {
    let server = Server::new();
    let host = format!("Host: {}\r\nConnection: close\r\n", server.public);
    for bytes in [
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(),
        format!("GET /user/1\r\n{host}\r\n"),
        format!("GET /user/1 HTTP/3.0\r\n{host}\r\n"),
        format!("GET  /user/1 HTTP/1.1\r\n{host}\r\n"),
        format!("GET /user/1 HTTP/1.1\r\n{host}API-KEY : x\r\n\r\n"),
        format!("GET /user/1 HTTP/1.1\r\n{host}API-KEY: x\0y\r\n\r\n"),
        format!("GET /user/1 HTTP/1.1\r\n{host} folded: x\r\n\r\n"),
        format!("POST /entity/user HTTP/1.1\r\n{host}Content-Length: x\r\n\r\n"),
        format!(
            "POST /entity/user HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"
        ),
        format!(
            "POST /entity/user HTTP/1.1\r\n{host}Content-Length: 4\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n"
        ),
        // Requests with two hosts, no host or an invalid host are rejected, because a proxy in
        // front of the server may have used another host.
        format!("GET /user/1 HTTP/1.1\r\n{host}{host}\r\n"),
        "GET /user/1 HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /user/1 HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n".to_owned(),
    ] {
        let response = exchange(server.public, bytes.as_bytes());
        assert_eq!(response.status, 400, "{bytes:?}: {response:?}");
        assert_eq!(response.json()["error"], "BAD_REQUEST", "{bytes:?}");
        assert_eq!(response.header("content-type"), Some("application/json"), "{bytes:?}");
    }
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
}

#[test]
fn ambiguous_paths_are_rejected() {
    let server = Server::new();
    for path in [
        "/user%2f1",
        "/user%5C1",
        "/user/1%00",
        "/user/1;x",
        "/user/%zz",
        "/user/%",
        "/../user/1",
        "/user/%2531",
    ] {
        let response = server.request_as_admin("GET", path).send();
        assert_eq!(
            (response.status, &response.json()["error"]),
            (400, &json!("BAD_REQUEST")),
            "{path}"
        );
        assert!(!response.json()["error_description"].as_str().unwrap().is_empty());
    }
}

#[test]
fn invalid_bodies_are_rejected() {
    let server = Server::new();
    let post = || {
        server.request_as_admin("POST", "/entity/user").header("Content-Type", "application/json")
    };
    post().send().assert_message(400, "No entity content received.");
    let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    let deep_object = format!("{}1{}", "{\"name\":".repeat(10_000), "}".repeat(10_000));
    for body in [
        b"{".to_vec(),
        b"nonsense".to_vec(),
        b"{\"name\":[{\"value\":\"x\"}]}}".to_vec(),
        b"{'name':'x'}".to_vec(),
        b"{\"name\":[{\"value\":\"\xff\"}]}".to_vec(),
        b"\0".to_vec(),
        deep,
        deep_object.into_bytes(),
    ] {
        post().body(body).send().assert_message(400, "Syntax error");
    }
    post().body("{\"foo\":[]}").send().assert_message(422, "Field foo is unknown.");
    let large = post().body(vec![b' '; 2 << 20]).send();
    large.assert_message(413, "The request's body is larger than 1048576 bytes.");
    // The client announces a large body and waits for `100 Continue`. The server rejects the
    // request at once.
    let announced = post().header("Content-Length", "9999999").header("Expect", "100-continue");
    assert_eq!(announced.send().status, 413);
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
}

#[test]
fn truncated_requests_are_not_served() {
    let server = Server::new();
    let whole = format!(
        "POST /entity/user HTTP/1.1\r\nHost: {}\r\nAPI-KEY: {}\r\nContent-Type: application/json\r\nContent-Length: 64\r\n\r\n{{\"name\":[{{\"value\":\"half\"}}]}}",
        server.public,
        server.admin_credential()
    );
    for length in 0..whole.len() {
        let mut stream = TcpStream::connect(server.public).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(&whole.as_bytes()[..length]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        assert!(!response.starts_with(b"HTTP/1.1 2"), "{length}");
    }
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
    assert_eq!(server.site.json(&["user", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn port_in_use_stops_the_start_before_a_store_is_created() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for name in [
        "KEYWARD_SERVER__LISTEN",
        "KEYWARD_ADMIN__LISTEN",
        "KEYWARD_VERIFY__LISTEN",
        "KEYWARD_VERIFY__GRPC_LISTEN",
    ] {
        let site = Site::new().with_env(name, &address);
        let key = name.trim_start_matches("KEYWARD_").replace("__", ".").to_lowercase();
        assert_start_fails(&site, &[&address, "in use", &key]);
        // A server that cannot start must not create a store. Otherwise the server would also
        // create the first key, and would never print this key.
        assert!(!site.store().exists());
    }
}

#[test]
fn invalid_configuration_stops_the_start() {
    let site = Site::new();
    let file = site.path().join("config.toml");
    fs::write(&file, "[server]\nlisten = \"127.0.0.1:0\"\n\n[limits]\nheaderbytes = 1\n").unwrap();
    assert_start_fails(&site, &["config.toml", "5", "headerbytes", "header_bytes"]);
    fs::write(&file, "[server\n").unwrap();
    assert_start_fails(&site, &["config.toml", "1"]);
    fs::write(&file, "[store]\nengine = 7\n").unwrap();
    assert_start_fails(&site, &["config.toml", "2", "engine"]);
    fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    assert_start_fails(&site, &["config.toml", "UTF-8"]);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_start_fails(&site, &["config.toml"]);
    fs::remove_dir(&file).unwrap();
    assert_start_fails(
        &Site::new().with_env("KEYWARD_SERVER__LISTN", "x"),
        &["KEYWARD_SERVER__LISTN", "LISTEN"],
    );
    let missing = site.run(&["--config", "missing.toml", "serve"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("missing.toml"));
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn wrong_or_exposed_pepper_stops_the_start() {
    let server = Server::new();
    let pepper = server.site.path().join("data/keyward.pepper");
    let site = server.kill();
    let original = fs::read_to_string(&pepper).unwrap();
    fs::write(&pepper, "0".repeat(64)).unwrap();
    assert_start_fails(
        &site,
        &["keyward.pepper", "not the pepper that this store was created with"],
    );
    fs::write(&pepper, "not a pepper").unwrap();
    assert_start_fails(&site, &["keyward.pepper", "64 hexadecimal digits"]);
    fs::remove_file(&pepper).unwrap();
    assert_start_fails(&site, &["keyward.pepper", "missing", "backup"]);
    assert!(!pepper.exists(), "a new pepper was created for an existing store");
    fs::write(&pepper, &original).unwrap();
    fs::set_permissions(&pepper, fs::Permissions::from_mode(0o644)).unwrap();
    assert_start_fails(&site, &["keyward.pepper", "chmod 600"]);
}

#[test]
fn damaged_store_stops_the_start_and_is_not_overwritten() {
    let server = Server::new();
    server.add_user("bob", &[]);
    let store = server.site.store();
    let site = server.kill();
    let db = store.join("db");
    let whole = fs::read(&db).unwrap();
    for broken in [Vec::new(), vec![0; whole.len()]] {
        fs::write(&db, &broken).unwrap();
        assert_start_fails(&site, &[store.file_name().unwrap().to_str().unwrap()]);
        assert_eq!(fs::read(&db).unwrap(), broken, "the file was changed");
    }
    fs::remove_file(&db).unwrap();
    assert_start_fails(&site, &["backup"]);
    fs::write(&db, &whole).unwrap();
    let other = Site::new().with_env("KEYWARD_STORE__PATH", "other");
    fs::create_dir(other.path().join("other")).unwrap();
    fs::write(other.path().join("other/somebody-elses"), "file").unwrap();
    assert_start_fails(&other, &["other"]);
    // After its file was restored, the first store works as before.
    let server = Server::start(site, String::new());
    assert_eq!(server.site.json(&["user", "show", "bob"])["name"], "bob");
}

#[test]
fn store_in_use_stops_a_second_server() {
    let server = Server::new();
    assert_start_fails(&server.site, &["in use by another process"]);
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
}
