//! What every proxy has to show, whichever it is.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    client::{Answer, ask, ask_from},
    program::{Kind, Program, Version},
    world::World,
};

/// Every spelling of a field that tells who asks which a client could try.
const FORGED: &str = "X-Keyward-User: root\r\nx-keyward-user-id: 1\r\nX_Keyward_User: root\r\nX-Keyward_Roles: root\r\n\
                      X-KEYWARD-ROLES: root\r\nX-Keyward-Key-Id: root\r\nX_Keyward-Application: root\r\n\
                      X-Original-URL: /root\r\nX-Rewrite-URL: /root\r\nX-HTTP-Method-Override: ROOT\r\n\
                      X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-Uri: /open\r\nX-Original-URI: /open\r\n\
                      X-Forwarded-Method: GET\r\nX-Original-Method: GET\r\nX-Forwarded-Host: root\r\n";

pub async fn all(kind: Kind) {
    let mut world = World::new().await;
    let keyward = if kind == Kind::EnvoyGrpc { world.grpc } else { world.keyward };
    let Some(program) = Program::start(kind, keyward, world.application.address) else {
        return;
    };
    let scene = Scene { world: &world, program: &program };
    scene.who_may_passes_with_a_name().await;
    scene.who_may_not_is_told_why().await;
    scene.nothing_that_a_client_forges_gets_through().await;
    scene.an_anonymous_request_has_no_name().await;
    scene.the_clients_address_is_the_clients().await;
    scene.who_has_had_enough_is_told_when_to_come_back().await;
    scene.a_body_arrives_whole().await;
    scene.odd_paths_are_decided_as_our_own_proxy_does().await;
    world.stop().await;
    while_keyward_is_down_nobody_passes(&world, &program).await;
}

/// A proxy that hands connections on: the client is whom it names, for the decision and for the application.
pub async fn handed_on(version: Version) {
    let world = World::new().await;
    let kind = Kind::HaproxyTcp(version);
    let Some(program) = Program::start(kind, world.behind, world.application.address) else {
        return;
    };
    for (from, credential, status) in [
        ("127.0.0.1", &world.ada, 200),
        ("127.0.0.2", &world.ada, 200),
        ("127.0.0.1", &world.ada_here, 200),
        ("127.0.0.2", &world.ada_here, 401),
        ("127.0.0.1", &world.ada_elsewhere, 401),
    ] {
        let credential = format!("API-KEY: {credential}\r\n");
        let answer =
            ask_from(from.parse().unwrap(), program.address, "/files/a", &credential).await;
        assert_eq!(answer.status, status, "{from}: {answer:?} {}", program.log());
        if status == 200 {
            assert_eq!(seen(&answer.json(), "x-forwarded-for"), [from]);
        }
    }
    // Who does not come through the proxy does not come in.
    let direct = world.behind;
    let nobody = tokio::net::TcpStream::connect(direct).await;
    let mut stream = nobody.unwrap();
    stream.write_all(b"GET /files/a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    assert_eq!(text, "");
}

struct Scene<'a> {
    world: &'a World,
    program: &'a Program,
}

fn seen<'a>(told: &'a Value, name: &str) -> Vec<&'a str> {
    let all = told["headers"].as_array().unwrap().iter();
    let values = all.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap());
    values.filter(|value| !value.is_empty()).collect()
}

impl Scene<'_> {
    async fn ask(&self, method: &str, path: &str, credential: &str, more: &str) -> Answer {
        let more = match credential {
            "" => more.to_owned(),
            credential => format!("API-KEY: {credential}\r\n{more}"),
        };
        ask(self.program.address, method, path, &more, b"").await
    }

    fn requests(&self) -> usize {
        self.world.application.requests.load(SeqCst)
    }

    async fn who_may_passes_with_a_name(&self) {
        let answer = self
            .ask(
                "GET",
                "/orders/7?a=%2Fb",
                &self.world.ada,
                "X-Mine: 1\r\nAUTH-METHOD: default\r\n",
            )
            .await;
        assert_eq!(answer.status, 200, "{answer:?} {}", self.program.log());
        let told = answer.json();
        assert_eq!((&told["method"], &told["target"]), (&json!("GET"), &json!("/orders/7?a=%2Fb")));
        assert_eq!(seen(&told, "x-mine"), ["1"]);
        assert_eq!(seen(&told, "x-keyward-user"), ["ada"]);
        assert_eq!(seen(&told, "x-keyward-roles"), ["writer"]);
        assert_eq!(seen(&told, "x-keyward-application"), ["default"]);
        for name in ["x-keyward-user-id", "x-keyward-key-id"] {
            assert_eq!(seen(&told, name).len(), 1, "{name}");
        }
        for name in ["api-key", "auth-method"] {
            assert_eq!(seen(&told, name), [""; 0], "{name}");
        }
        assert!(!told.to_string().contains(&self.world.ada));
    }

    async fn who_may_not_is_told_why(&self) {
        let (ada, bob) = (&self.world.ada, &self.world.bob);
        let before = self.requests();
        let code = |code: &str| json!({ "error": code });
        for (method, path, credential, more, status, told) in [
            ("GET", "/orders/7", "", "", 401, code("MISSING_API_KEY_HEADER")),
            ("GET", "/orders/7", "bm9ib2R5Ong=", "", 404, code("USER_DOES_NOT_EXIST")),
            ("GET", "/orders/7", "!", "", 401, code("INVALID_API_KEY_FORMAT")),
            ("GET", "/orders/7", "", "AUTH-METHOD: other\r\n", 400, code("INVALID_APPLICATION_ID")),
            (
                "POST",
                "/orders/7",
                bob,
                "",
                403,
                json!({ "message": "The 'write' permission is required." }),
            ),
            (
                "GET",
                "/other",
                ada,
                "",
                404,
                json!({ "message": "No route found for \"GET http://api.example/other\"" }),
            ),
        ] {
            let answer = self.ask(method, path, credential, more).await;
            assert_eq!(answer.status, status, "{method} {path} {more} {answer:?}");
            let body = answer.json();
            for (name, value) in told.as_object().unwrap() {
                assert_eq!(&body[name], value, "{method} {path}");
            }
            let challenges = usize::from(status == 401);
            assert_eq!(answer.count("www-authenticate"), challenges, "{answer:?}");
            assert_eq!(answer.count("content-type"), 1, "{answer:?}");
        }
        let answer = self.ask("DELETE", "/orders/7", ada, "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST, HEAD")));
        assert_eq!(self.requests(), before);
    }

    async fn nothing_that_a_client_forges_gets_through(&self) {
        let answer = self.ask("GET", "/orders/7", &self.world.ada, FORGED).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let told = answer.json();
        assert_eq!(told["target"], "/orders/7");
        assert!(!told.to_string().to_lowercase().contains("root"), "{told}");
        assert_eq!(seen(&told, "x-keyward-user"), ["ada"]);
        // What is asked about is what was sent, and not what the client says was.
        let before = self.requests();
        assert_eq!(self.ask("GET", "/orders/7", "", FORGED).await.status, 401);
        assert_eq!(self.ask("POST", "/orders/7", &self.world.bob, FORGED).await.status, 403);
        assert_eq!(self.requests(), before);
    }

    async fn an_anonymous_request_has_no_name(&self) {
        let answer = self.ask("GET", "/open", "", FORGED).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let told = answer.json();
        assert!(!told.to_string().to_lowercase().contains("root"), "{told}");
        for name in ["user", "user-id", "roles", "key-id", "application"] {
            assert_eq!(seen(&told, &format!("x-keyward-{name}")), [""; 0], "{name}");
        }
    }

    async fn the_clients_address_is_the_clients(&self) {
        let (here, elsewhere) = (&self.world.ada_here, &self.world.ada_elsewhere);
        assert_eq!(self.ask("GET", "/orders/7", here, "").await.status, 200);
        let forged = "X-Forwarded-For: 203.0.113.1\r\nX-Real-IP: 203.0.113.1\r\nForwarded: for=203.0.113.1\r\n";
        for more in ["", forged] {
            assert_eq!(self.ask("GET", "/orders/7", elsewhere, more).await.status, 401, "{more}");
        }
    }

    async fn who_has_had_enough_is_told_when_to_come_back(&self) {
        let once = &self.world.ada_once;
        let first = self.ask("GET", "/orders/7", once, "").await;
        assert_eq!(first.status, 200, "{first:?}");
        // Caddy and Traefik have no way to tell a client what Keyward says when it lets it through.
        if !matches!(self.program.kind, Kind::Caddy | Kind::Traefik) {
            assert_eq!(first.header("ratelimit"), Some("\"key\";r=0;t=3600"), "{first:?}");
            assert_eq!(first.header("ratelimit-policy"), Some("\"key\";q=1;w=3600"));
        }
        // It is no business of the application's.
        assert_eq!(seen(&first.json(), "ratelimit"), [""; 0]);
        let before = self.requests();
        let second = self.ask("GET", "/orders/7", once, "").await;
        assert_eq!(second.status, 429, "{second:?}");
        assert_eq!(second.json()["error"], "RATE_LIMITED");
        let seconds: u32 = second.header("retry-after").unwrap().parse().unwrap();
        assert!((3500..=3600).contains(&seconds), "{seconds}");
        for (name, beginning) in
            [("ratelimit", "\"key\";r=0;t=35"), ("ratelimit-policy", "\"key\";q=1;w=3600")]
        {
            assert_eq!(second.count(name), 1, "{name}: {second:?}");
            let value = second.header(name).unwrap();
            assert!(value.starts_with(beginning) || value == "\"key\";r=0;t=3600", "{value}");
        }
        assert_eq!(self.requests(), before);
        // Who has no limit is told of none.
        let other = self.ask("GET", "/orders/7", &self.world.ada, "").await;
        assert_eq!((other.status, other.count("ratelimit")), (200, 0), "{other:?}");
    }

    async fn a_body_arrives_whole(&self) {
        let body: Vec<u8> = (0..900_000_u32).flat_map(|n| n.to_le_bytes()).take(900_000).collect();
        let credential = format!("API-KEY: {}\r\n", self.world.ada);
        let answer = ask(self.program.address, "POST", "/orders/7", &credential, &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let told = answer.json();
        assert_eq!(told["length"], body.len());
        assert_eq!(told["digest"], blake3::hash(&body).to_hex().as_str());
    }

    /// Whether the application is asked for the same by both. nginx is told the one spelling and passes that on.
    fn is_same(&self, ours: &Value, theirs: &Value) -> bool {
        match self.program.kind {
            Kind::Nginx => ours == theirs,
            _ => normal(ours) == normal(theirs),
        }
    }

    async fn odd_paths_are_decided_as_our_own_proxy_does(&self) {
        let mut differences = Vec::new();
        for path in ODD {
            let credential = format!("API-KEY: {}\r\n", self.world.ada);
            let ours = ask(self.world.keyward, "GET", path, &credential, b"").await;
            let theirs = ask(self.program.address, "GET", path, &credential, b"").await;
            let is_alike = match (ours.status, theirs.status) {
                (200, 200) => self.is_same(&ours.json()["target"], &theirs.json()["target"]),
                // A proxy may refuse by itself what it cannot read in one way.
                (200, refused) => refused == 400,
                // It may also read it in one way before it asks: then that is what has to be allowed.
                (_, 200) => {
                    let target = theirs.json()["target"].as_str().unwrap().to_owned();
                    let ours = ask(self.world.keyward, "GET", &target, &credential, b"").await;
                    ours.status == 200 && ours.json()["target"] == target
                }
                (ours, theirs) => ours >= 400 && theirs >= 400,
            };
            if !is_alike {
                differences.push(format!("{path}: {} and {}", ours.status, theirs.status));
            }
        }
        assert!(differences.is_empty(), "{:?}: {differences:#?}", self.program.kind);
    }
}

const ODD: [&str; 34] = [
    "/files/a",
    "/files//a",
    "//files/a",
    "/files/a/",
    "/files/",
    "/files",
    "/files/./a",
    "/files/a/..",
    "/files/../files/a",
    "/x/../files/a",
    "/files/../x",
    "/files/%61",
    "/files/%2e%2e/x",
    "/x/%2e%2e/files/a",
    "/files/a%2fb",
    "/files/a%2Fb",
    "/files/%5c",
    "/files/a;b=c",
    "/files/a%3bb",
    "/files/%00",
    "/files/a%0a",
    "/files/%",
    "/files/%zz",
    "/files/%2561",
    "/files/%252e%252e/x",
    "/files/%c3%bc",
    "/files/%ff",
    "/../files/a",
    "/files/../../x",
    "/files/a?b=/../c",
    "/FILES/a",
    "/files/~a",
    "/files/a:b@c",
    "/files/a%20b",
];

/// A target as our own proxy would spell it, as far as the odd paths need.
fn normal(target: &Value) -> String {
    let target = target.as_str().unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut segments: Vec<&str> = Vec::new();
    let path = path.replace("%61", "a").replace("%2e", ".").replace("%2E", ".");
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    format!("/{}?{query}", segments.join("/")).to_lowercase()
}

async fn while_keyward_is_down_nobody_passes(world: &World, program: &Program) {
    let before = world.application.requests.load(SeqCst);
    for path in ["/orders/7", "/open", "/files/a"] {
        let credential = format!("API-KEY: {}\r\n", world.ada);
        let answer = ask(program.address, "GET", path, &credential, b"").await;
        let expected = match program.kind {
            Kind::Caddy => 502,
            Kind::Traefik => 500,
            _ => 503,
        };
        assert_eq!(answer.status, expected, "{answer:?}");
    }
    assert_eq!(world.application.requests.load(SeqCst), before);
}
