//! Tests of the order of a decision about a request with a body: what can be known without the body
//! is decided before the body is read, and bodies in memory have a budget.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use super::*;

/// The hooks of a resource. Only `on_permit` reads the body.
const PERMIT: &str = r#"
fn on_request(req) { let path = req.path; }
fn on_permit(req, identity, resource) { req.body == "open" }
fn on_response(req, identity, response) { response.set_header("X-Seen", req.body.len().to_string()); }
"#;
/// The users' keys are signed bodies: the credential is right if the body is the user's name.
const SIGNED: &str = r#"
const CREDENTIAL = #{ headers: ["X-User"] };
const READS_BODY = true;
fn header(req) { header(req, "X-User") }
fn decode(req, presented) {
    if presented.len() > 9 { deny(400, "NAME_TOO_LONG", "The name is too long."); }
    #{ user: presented }
}
fn verify(req, user, credential) { req.body == user.name }
"#;
const FIRST: &str =
    "fn on_request(req) { if req.body == \"bad\" { deny(400, \"BAD\", \"Bad.\"); } }";

/// A request whose body the client sends only after `100 Continue`.
fn head(path: &str, length: usize, fields: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n{fields}\r\n"
    )
}

/// A connection of a client with this address.
fn connect_from(server: SocketAddr, client: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let client: SocketAddr = format!("{client}:0").parse().unwrap();
    socket.bind(&client.into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

fn connect(server: &Server) -> TcpStream {
    connect_from(server.public, "127.0.0.1")
}

/// The status of the next response.
fn status(stream: &mut TcpStream) -> u16 {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        let read = stream.read(&mut byte).unwrap();
        assert!(read > 0, "no response: {}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head[9..12]).parse().unwrap()
}

/// The status that comes before any byte of the body was sent.
fn asked(server: &Server, path: &str, length: usize, fields: &str) -> u16 {
    let mut stream = connect(server);
    stream.write_all(head(path, length, fields).as_bytes()).unwrap();
    status(&mut stream)
}

fn api_key(credential: &str) -> String {
    format!("API-KEY: {credential}\r\n")
}

fn buffers(server: &Server) -> Value {
    let response = Request::new(server.admin, "GET", "/health/ready").send();
    response.json()["buffers"].clone()
}

fn wait_for_no_bytes(server: &Server) {
    wait_until("all bytes are given back", || {
        let used = buffers(server);
        used["bytes"].as_u64().unwrap_or_default() == 0
            && used["unauthenticated_bytes"].as_u64().unwrap_or_default() == 0
    });
}

#[test]
fn body_is_wanted_only_from_a_client_that_may_send_it() {
    let scripts = [("resources/permit.rhai", PERMIT), ("handlers/echo.rhai", ECHO)];
    let server = server(&scripts);
    let ann = server.user_with_permissions("ann", &["write"]);
    let bob = server.user_with_permissions("bob", &[]);
    let rules = json!({ "buffer_body": true, "permissions": { "POST": ["write"] } });
    create_resource(&server, "plain", "/plain", rules.clone());
    create_resource(&server, "permit", "/permit", rules.clone());
    let mut scripted = rules;
    scripted["handler"] = "script:echo".into();
    create_resource(&server, "scripted", "/scripted", scripted);
    let (right, lesser) = (api_key(&ann.credential), api_key(&bob.credential));
    let wrong = api_key(&crate::harness::credential("ann", &bob.text));
    for path in ["/plain", "/permit", "/scripted"] {
        for length in [100, 1_000_000, 1 << 40] {
            assert_eq!(asked(&server, path, length, ""), 401, "{path}");
            assert_eq!(asked(&server, path, length, &wrong), 401, "{path}");
            assert_eq!(asked(&server, path, length, "AUTH-METHOD: none\r\n"), 400, "{path}");
            assert_eq!(asked(&server, path, length, &lesser), 403, "{path}");
            let expected = if length > 1 << 20 { 413 } else { 100 };
            assert_eq!(asked(&server, path, length, &right), expected, "{path}");
        }
    }
    // The scripts that read the body run when it is there, and so do the hooks on the response.
    let send = |path: &str, body: &str| {
        let request = server.request("POST", path).header("API-KEY", &ann.credential);
        request.body(body).send()
    };
    let passed = send("/permit", "open");
    assert_eq!((passed.status, passed.header("x-seen")), (200, Some("4")), "{}", passed.body);
    assert_eq!(send("/permit", "shut").status, 403);
    assert_eq!(send("/permit", "").status, 403);
    let echoed = send("/scripted", "a body");
    assert_eq!((echoed.status, echoed.body.as_str()), (200, "a body"));
    // A body without a declared length.
    let chunked = |body: &str| {
        let head = format!(
            "POST /permit HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{right}\r\n"
        );
        let chunks: String = body.chars().map(|one| format!("1\r\n{one}\r\n")).collect();
        crate::harness::exchange(server.public, format!("{head}{chunks}0\r\n\r\n").as_bytes())
    };
    assert_eq!(chunked("open").status, 200);
    assert_eq!(chunked("shut").status, 403);
    wait_for_no_bytes(&server);
}

const ECHO: &str = "fn handle(req, identity) { req.body }";

#[test]
fn authentication_type_that_reads_the_body_gets_it_in_the_phase_that_reads_it() {
    let server = server(&[("auth/signed.rhai", SIGNED)]);
    server.add_user("ann", &[]);
    create_resource(&server, "all", "/all", json!({ "buffer_body": true }));
    create_default_application(&server, "signed");
    let asked = |fields: &str| asked(&server, "/all", 3, fields);
    assert_eq!(asked(""), 401);
    assert_eq!(asked("X-User: a-long-name\r\n"), 400);
    assert_eq!(asked("X-User: nobody\r\n"), 404);
    assert_eq!(asked("X-User: ann\r\n"), 100);
    let send = |body: &str| {
        server.request("POST", "/all").header("X-User", "ann").body(body).send().status
    };
    assert_eq!((send("ann"), send("bob"), send("")), (200, 401, 401));
    wait_for_no_bytes(&server);
}

#[test]
fn hook_before_all_phases_reads_the_body_within_the_small_budget() {
    let site =
        site(&[("hooks.rhai", FIRST)]).with_env("KEYWARD_LIMITS__UNAUTHENTICATED_BYTES", "400000");
    let server = site.start();
    create_resource(&server, "all", "/all", json!({ "buffer_body": true }));
    assert_eq!(asked(&server, "/all", 3, ""), 100);
    let send = |body: &str| server.request_as_admin("POST", "/all").body(body).send();
    assert_eq!((send("bad").status, send("good").status), (400, 200));
    // One client has a quarter.
    let large = "x".repeat(100_001);
    assert_eq!(send(&large).status, 413);
    assert_eq!(server.request("POST", "/all").body(large).send().status, 413);
    let fits = server.request("POST", "/all").body("x".repeat(100_000)).send();
    assert_eq!(fits.status, 401, "{}", fits.body);
    wait_for_no_bytes(&server);
}

/// Sends the first bytes of a body of 90 kB.
fn begin_body(stream: &mut TcpStream, path: &str, fields: &str, bytes: usize) {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b'x'; bytes]).unwrap();
}

#[test]
fn unauthenticated_bytes_have_a_budget_for_each_address_and_for_all() {
    let site = site(&[("auth/signed.rhai", SIGNED)])
        .with_env("KEYWARD_LIMITS__UNAUTHENTICATED_BYTES", "400000");
    let server = site.start();
    let ann = server.user_with_permissions("ann", &[]);
    let record = json!({ "id": "signed", "name": "Signed", "type": "signed" });
    let response = admin_request(&server, "POST", "/api/v1/applications").json(&record).send();
    assert_eq!(response.status, 201, "{}", response.body);
    create_resource(&server, "all", "/all", json!({ "buffer_body": true }));
    let signed = "AUTH-METHOD: signed\r\nX-User: ann\r\n";
    let held = |bytes: u64| {
        wait_until("the bytes are held", || {
            buffers(&server)["unauthenticated_bytes"].as_u64().unwrap_or_default() >= bytes
        });
    };
    let mut open = Vec::new();
    for number in 1..=4 {
        let client = format!("127.0.0.{number}");
        let mut stream = connect_from(server.public, &client);
        begin_body(&mut stream, "/all", signed, 80_000);
        open.push(stream);
        held(number * 80_000);
        // A second body of the same address finds no room.
        let mut second = connect_from(server.public, &client);
        begin_body(&mut second, "/all", signed, 80_000);
        assert_eq!(status(&mut second), 503);
    }
    // The first bytes of a fifth address fit, but not all.
    let mut other = connect_from(server.public, "127.0.0.9");
    begin_body(&mut other, "/all", signed, 80_000);
    assert_eq!(status(&mut other), 503);
    assert!(buffers(&server)["refused"].as_u64().unwrap() >= 5);
    server.wait_for_log("limits.unauthenticated_bytes is used up");
    // A client with a right key is not concerned, and neither is one without a body.
    let send = |body: &str| {
        server.request("POST", "/all").header("API-KEY", &ann.credential).body(body).send().status
    };
    assert_eq!((send(&"x".repeat(90_000)), send("")), (200, 200));
    let small = server.request("POST", "/all").header("AUTH-METHOD", "signed");
    assert_eq!(small.header("X-User", "ann").send().status, 401);
    drop(open);
    wait_for_no_bytes(&server);
}

#[test]
fn all_bodies_share_a_budget() {
    let site = Site::new().with_env("KEYWARD_LIMITS__BUFFERED_BYTES", "1048576");
    let site = site.with_env("KEYWARD_LIMITS__UNAUTHENTICATED_BYTES", "1048576");
    let server = site.start();
    create_resource(&server, "all", "/all", json!({ "buffer_body": true }));
    let right = api_key(&server.admin_credential());
    // One client has a quarter.
    let large = server.request_as_admin("POST", "/all").body("x".repeat(262_145)).send();
    assert_eq!(large.status, 413, "{}", large.body);
    let mut open = Vec::new();
    for number in 1..=11 {
        // Two bodies of each address.
        let mut stream = connect_from(server.public, &format!("127.0.0.{}", number / 2 + 1));
        begin_body(&mut stream, "/all", &right, 89_000);
        open.push(stream);
        wait_until("the bytes are held", || {
            buffers(&server)["bytes"].as_u64().unwrap_or_default() >= number * 89_000
        });
    }
    let mut refused = connect_from(server.public, "127.0.0.20");
    begin_body(&mut refused, "/all", &right, 89_000);
    assert_eq!(status(&mut refused), 503);
    // The user entity reads its bodies from the same budget, and the admin API does not.
    let mut entity = connect_from(server.public, "127.0.0.21");
    let head = format!(
        "PATCH /user/1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 90000\r\n{right}\r\n"
    );
    entity.write_all(head.as_bytes()).unwrap();
    entity.write_all(&[b' '; 89_000]).unwrap();
    assert_eq!(status(&mut entity), 503);
    let label = "x".repeat(90_000);
    let change = json!({ "id": "x", "label": label });
    let response = admin_request(&server, "POST", "/api/v1/roles").json(&change).send();
    assert_ne!(response.status, 503, "{}", response.body);
    assert_eq!(server.request_as_admin("POST", "/all").send().status, 200);
    // The held bodies are still served.
    let mut first = open.remove(0);
    first.write_all(&[b'x'; 1000]).unwrap();
    assert_eq!(status(&mut first), 200);
    drop((open, first));
    wait_for_no_bytes(&server);
}

/// The response to a refused request arrives although its body comes, and the bytes of the body are
/// never taken for a request.
#[test]
fn refused_body_is_not_taken_for_the_next_request() {
    let server = Server::new();
    create_resource(&server, "all", "/all", json!({ "buffer_body": true }));
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    for size in [inner.len(), 20_000, 900_000] {
        let body = inner.repeat(size / inner.len());
        let length = body.len();
        let next = "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let bytes = format!(
            "POST /all HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}{next}"
        );
        for _ in 0..5 {
            let mut stream = connect(&server);
            // The server may close the connection before it has everything.
            let _ = stream.write_all(bytes.as_bytes());
            assert_eq!(status(&mut stream), 401, "{size}");
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            let rest = String::from_utf8_lossy(&rest);
            let responses = rest.matches("HTTP/1.1 ").count();
            assert!(responses <= 1, "{size}: {rest}");
        }
    }
    assert!(!server.logged().contains("/inner"), "{}", server.logged());
}
