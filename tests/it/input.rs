//! Bad input: each has one clear answer, nothing panics, and the server goes on.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
};

use serde_json::json;

use crate::harness::{PATIENCE, Server, Site, exchange};

/// The program must refuse to start. What it says goes to standard error.
#[track_caller]
fn refuses_to_start(site: &Site, says: &[&str]) {
    let output = site.run(&["serve"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it started");
    for part in says {
        assert!(errors.contains(part), "{part:?} is not in: {errors}");
    }
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn headers_of_64_kib() {
    let server = Server::new();
    let said = "The request's header fields are larger than this server takes.";
    let answer = server.asks("GET", "/user/1").header("X-Long", vec![b'x'; 65536]).send();
    answer.refuses(431, "REQUEST_HEADER_FIELDS_TOO_LARGE", said);
    let many = (0..2000)
        .fold(server.asks("GET", "/user/1"), |request, n| request.header(&format!("X-{n}"), "x"));
    many.send().refuses(431, "REQUEST_HEADER_FIELDS_TOO_LARGE", said);
    // Within the limit of all headers, and over that of a credential.
    let long = server.request("GET", "/user/1").header("API-KEY", vec![b'x'; 8000]).send();
    long.refuses(401, "INVALID_API_KEY_FORMAT", "API key format is invalid.");
    assert_eq!(server.asks("GET", "/user/1").send().status, 200);
}

#[test]
fn what_is_not_http() {
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
        // Two hosts, or none: who knows which one a proxy looked at.
        format!("GET /user/1 HTTP/1.1\r\n{host}{host}\r\n"),
        "GET /user/1 HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /user/1 HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n".to_owned(),
    ] {
        let answer = exchange(server.public, bytes.as_bytes());
        assert_eq!(answer.status, 400, "{bytes:?}: {answer:?}");
        assert_eq!(answer.json()["error"], "BAD_REQUEST", "{bytes:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{bytes:?}");
    }
    assert_eq!(server.asks("GET", "/user/1").send().status, 200);
}

#[test]
fn a_path_with_two_readings() {
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
        let answer = server.asks("GET", path).send();
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (400, &json!("BAD_REQUEST")),
            "{path}"
        );
        assert!(!answer.json()["error_description"].as_str().unwrap().is_empty());
    }
}

#[test]
fn bodies_that_are_none() {
    let server = Server::new();
    let post = || server.asks("POST", "/entity/user").header("Content-Type", "application/json");
    post().send().says(400, "No entity content received.");
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
        post().body(body).send().says(400, "Syntax error");
    }
    post().body("{\"foo\":[]}").send().says(422, "Field foo is unknown.");
    let large = post().body(vec![b' '; 2 << 20]).send();
    large.says(413, "The request's body is larger than 1048576 bytes.");
    // Says that it is large, and waits to be told to go on: it is not.
    let announced = post().header("Content-Length", "9999999").header("Expect", "100-continue");
    assert_eq!(announced.send().status, 413);
    assert_eq!(server.asks("GET", "/user/1").send().status, 200);
}

#[test]
fn requests_that_break_off() {
    let server = Server::new();
    let whole = format!(
        "POST /entity/user HTTP/1.1\r\nHost: {}\r\nAPI-KEY: {}\r\nContent-Type: application/json\r\nContent-Length: 64\r\n\r\n{{\"name\":[{{\"value\":\"half\"}}]}}",
        server.public,
        server.administrator()
    );
    for length in 0..whole.len() {
        let mut stream = TcpStream::connect(server.public).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&whole.as_bytes()[..length]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{length}");
    }
    assert_eq!(server.asks("GET", "/user/1").send().status, 200);
    assert_eq!(server.site.json(&["user", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for name in ["KEYWARD_SERVER__LISTEN", "KEYWARD_ADMIN__LISTEN"] {
        let site = Site::new().with(name, &address);
        let key = name.trim_start_matches("KEYWARD_").replace("__", ".").to_lowercase();
        refuses_to_start(&site, &[&address, "in use", &key]);
        // Nothing was made for a server that cannot start, above all no key that nobody saw.
        assert!(!site.store().exists());
    }
}

#[test]
fn a_configuration_that_is_not_in_order() {
    let site = Site::new();
    let file = site.path().join("config.toml");
    fs::write(&file, "[server]\nlisten = \"127.0.0.1:0\"\n\n[limits]\nheaderbytes = 1\n").unwrap();
    refuses_to_start(&site, &["config.toml", "5", "headerbytes", "header_bytes"]);
    fs::write(&file, "[server\n").unwrap();
    refuses_to_start(&site, &["config.toml", "1"]);
    fs::write(&file, "[store]\nengine = 7\n").unwrap();
    refuses_to_start(&site, &["config.toml", "2", "engine"]);
    fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    refuses_to_start(&site, &["config.toml", "UTF-8"]);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    refuses_to_start(&site, &["config.toml"]);
    fs::remove_dir(&file).unwrap();
    refuses_to_start(
        &Site::new().with("KEYWARD_SERVER__LISTN", "x"),
        &["KEYWARD_SERVER__LISTN", "LISTEN"],
    );
    let missing = site.run(&["--config", "missing.toml", "serve"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("missing.toml"));
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn a_pepper_that_is_not_the_stores() {
    let server = Server::new();
    let pepper = server.site.path().join("data/keyward.pepper");
    let site = server.kill();
    let right = fs::read_to_string(&pepper).unwrap();
    fs::write(&pepper, "0".repeat(64)).unwrap();
    refuses_to_start(&site, &["keyward.pepper", "not the one that this store was made with"]);
    fs::write(&pepper, "not a pepper").unwrap();
    refuses_to_start(&site, &["keyward.pepper", "64 hexadecimal digits"]);
    fs::remove_file(&pepper).unwrap();
    refuses_to_start(&site, &["keyward.pepper", "missing", "backup"]);
    assert!(!pepper.exists(), "a new pepper was made for an old store");
    fs::write(&pepper, &right).unwrap();
    fs::set_permissions(&pepper, fs::Permissions::from_mode(0o644)).unwrap();
    refuses_to_start(&site, &["keyward.pepper", "chmod 600"]);
}

#[test]
fn a_store_that_cannot_be_opened_is_never_replaced() {
    let server = Server::new();
    server.user("bob", &[]);
    let store = server.site.store();
    let site = server.kill();
    let db = store.join("db");
    let whole = fs::read(&db).unwrap();
    for broken in [Vec::new(), vec![0; whole.len()]] {
        fs::write(&db, &broken).unwrap();
        refuses_to_start(&site, &[store.file_name().unwrap().to_str().unwrap()]);
        assert_eq!(fs::read(&db).unwrap(), broken, "it was written to");
    }
    fs::remove_file(&db).unwrap();
    refuses_to_start(&site, &["backup"]);
    fs::write(&db, &whole).unwrap();
    let other = Site::new().with("KEYWARD_STORE__PATH", "other");
    fs::create_dir(other.path().join("other")).unwrap();
    fs::write(other.path().join("other/somebody-elses"), "file").unwrap();
    refuses_to_start(&other, &["other"]);
    // The first one, whole again, is what it was.
    let server = Server::start(site, String::new());
    assert_eq!(server.site.json(&["user", "show", "bob"])["name"], "bob");
}

#[test]
fn a_store_that_is_in_use() {
    let server = Server::new();
    refuses_to_start(&server.site, &["in use by another process"]);
    assert_eq!(server.asks("GET", "/user/1").send().status, 200);
}
