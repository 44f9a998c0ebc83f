//! Generated requests with odd framing, hosts, targets and fields, sent to Keyward's own proxy
//! face, and to nginx and HAProxy that ask Keyward. Each request that reaches the application must
//! be one that Keyward decided about, byte for byte.
//!
//! `KEYWARD_DIFFERENTIAL=5000` sets the number of requests, and `KEYWARD_SEED=7` the seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
};

use crate::{
    program::{Kind, Program},
    real::RealKeyward,
    upstream::{Recorded, Upstream},
};

/// The number of requests in each run of the tests.
const REQUESTS: u64 = 300;
/// The number of connections at a time.
const AT_A_TIME: usize = 16;
/// A connection ends when nothing has come for this long. Some requests announce a body that never
/// comes.
const PAUSE: Duration = Duration::from_millis(400);

/// Writes each decision that lets a request pass into the log.
const HOOKS: &str = r#"
fn on_permit(req, identity, resource) {
    log(`decided ${req.method} ${req.host} ${req.path} ?${req.query}`);
}
"#;

/// A generator of random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end
    }

    /// Whether an event of this probability, in percent, happens.
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these texts; half of the time, one of the first four, which are the usual ones.
    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        let end = if self.chance(50) { 4 } else { all.len() };
        all[self.below(end)]
    }
}

const METHODS: [&str; 9] =
    ["GET", "GET", "GET", "POST", "POST", "PUT", "get", "CONNECT", "OPTIONS"];
const TARGETS: [&str; 24] = [
    "/open/TOKEN",
    "/open/TOKEN?a=b",
    "/open/TOKEN",
    "/closed/TOKEN",
    "/v/TOKEN",
    "/closed/../open/TOKEN",
    "/open/../closed/TOKEN",
    "/open/%2e%2e/closed/TOKEN",
    "//closed/../open/TOKEN",
    "/%6fpen/TOKEN",
    "/open//TOKEN",
    "/open/TOKEN#f",
    "/open/TOKEN?a#b",
    "/open/a%2f..%2f..%2fclosed/TOKEN",
    "/open/TOKEN;x",
    "/open/TOKEN%20HTTP/1.1",
    "/open/TOKEN\\..\\closed",
    "http://a.example/v/TOKEN",
    "http://b.example/v/TOKEN",
    "http://b.example@a.example/v/TOKEN",
    "http://a.example:80/open/TOKEN",
    "http://a.example?/open/TOKEN",
    "a.example:80",
    "*",
];
const VERSIONS: [&str; 10] = [
    "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0",
    "HTTP/1.2", "http/1.1",
];
const HOSTS: [&str; 16] = [
    "Host: a.example",
    "Host: a.example",
    "Host: b.example",
    "Host: b.example",
    "Host: b.example:8080",
    "Host: B.Example",
    "Host: b.example.",
    "Host: a.example,b.example",
    "Host: a.example\r\nHost: b.example",
    "Host: b.example\r\nHost: a.example",
    "Host : b.example",
    " Host: b.example\r\nHost: a.example",
    "Host: b.example\r\n a.example",
    "Host: b.example#a.example",
    "Host:",
    "X-None: 1",
];
/// Lines that frame a body.
const FRAMINGS: [&str; 22] = [
    "Content-Length: LENGTH",
    "Content-Length: LENGTH",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked",
    "Content-Length: 0",
    "Content-Length: 5",
    "Content-Length: LENGTH\r\nContent-Length: 0",
    "Content-Length: 0\r\nContent-Length: LENGTH",
    "Content-Length: LENGTH, LENGTH",
    "Content-Length: +LENGTH",
    "Content-Length: 0x10",
    "Content-Length : 0",
    "Content-Length: LENGTH\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\r\n: chunked",
    "Transfer_Encoding: chunked\r\nContent-Length: LENGTH",
];
const FIELDS: [&str; 18] = [
    "X-Forwarded-Host: b.example",
    "X-Forwarded-Uri: /open/x",
    "X-Original-URL: /open/x",
    "X-Original-URI: /open/x",
    "X-Original-Host: b.example",
    "X-HTTP-Method-Override: GET",
    "Forwarded: host=b.example",
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13",
    "Connection: X-Keyward-User, Host",
    "Connection: keep-alive",
    "Expect: 100-continue",
    "X-Keyward-User: root",
    "X-Folded: a\r\n b",
    "X-Bare: a\n\nGET /closed/TOKEN HTTP/1.1",
    "X-Null: a\0b",
    "X Space: a",
    "TE: trailers\r\nTrailer: X-Keyward-User",
];
/// Bodies: a second request, whole or in chunks, and chunks that end early or oddly.
const BODIES: [&str; 8] = [
    "",
    "SMUGGLED",
    "0\r\n\r\nSMUGGLED",
    "SIZE\r\nSMUGGLED\r\n0\r\n\r\n",
    "SIZE;a=b\r\nSMUGGLED\r\n0\r\nX-Keyward-User: root\r\n\r\n",
    "SIZE\nSMUGGLED\n0\n\n",
    "0x5\r\nabcde\r\n0\r\n\r\nSMUGGLED",
    "5\r\nabcdeXX\r\n0\r\n\r\nSMUGGLED",
];

/// A request with everything that follows on its connection. `token` makes its targets unique.
fn generate(random: &mut Random, token: &str, credential: &str) -> String {
    let mut head = format!(
        "{} {} {}\r\n{}\r\n",
        random.one_of(&METHODS),
        random.one_of(&TARGETS),
        random.one_of(&VERSIONS),
        random.one_of(&HOSTS)
    );
    let mut body = String::new();
    if random.chance(40) {
        head += &format!("{}\r\n", random.one_of(&FRAMINGS));
        body = random.one_of(&BODIES).to_owned();
    }
    if random.chance(40) {
        head += &format!("{}\r\n", random.one_of(&FIELDS));
    }
    if random.chance(20) {
        head += &format!("API-KEY: {credential}\r\n");
    }
    let smuggled = "GET /closed/TOKENs HTTP/1.1\r\nHost: b.example\r\n\r\n".replace("TOKEN", token);
    let body =
        body.replace("SIZE", &format!("{:x}", smuggled.len())).replace("SMUGGLED", &smuggled);
    let mut request = format!("{head}\r\n{body}").replace("LENGTH", &body.len().to_string());
    if random.chance(30) {
        request += "GET /open/TOKENn HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n";
    }
    if random.chance(10) {
        request = request.replacen("\r\n", "\n", 1 + random.below(3));
    }
    request.replace("TOKEN", token)
}

/// Sends the bytes, and reads until the connection ends or nothing comes any more.
async fn send(server: SocketAddr, request: &str) {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let _ = stream.write_all(request.as_bytes()).await;
    let mut buffer = [0; 4096];
    while let Ok(Ok(1..)) = tokio::time::timeout(PAUSE, stream.read(&mut buffer)).await {}
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Method, host, path and query of a request.
type Decided = (String, String, String, String);

/// The decisions in the log.
fn decisions(log: &str) -> BTreeSet<Decided> {
    let lines = log.lines().filter_map(|line| line.split_once("decided "));
    lines
        .filter_map(|(_, rest)| {
            let rest = rest.split_once(" ?");
            let (request, query) = rest?;
            let mut words = request.splitn(3, ' ').map(str::to_owned);
            let query = query.split(['"', ' ']).next().unwrap_or_default().to_owned();
            let (method, host) = (words.next()?, words.next()?);
            Some((method, host.trim_end_matches('.').to_owned(), words.next()?, query))
        })
        .collect()
}

/// The request that the application got, as the log names a decision.
fn decided(request: &Recorded, host_field: &str) -> Decided {
    let host = request.field(host_field).join("|").to_lowercase();
    let host = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
    let host = host.trim_end_matches('.').to_owned();
    let (path, query) = request.target().split_once('?').unwrap_or((request.target(), ""));
    (request.method().to_owned(), host, path.to_owned(), query.to_owned())
}

pub async fn run() {
    let keyward = RealKeyward::start(HOOKS, &[]);
    let mut faces: BTreeMap<&str, (SocketAddr, Upstream, Option<Program>)> = BTreeMap::new();
    let own = Upstream::start();
    let methods = "--method GET --method POST --method PUT --format any";
    let upstream = format!("--handler proxy --upstream http://{}", own.address);
    for (id, rest) in [
        ("open", "--path '/open/{*rest}' --authentication anonymous --authentication '*'"),
        ("closed", "--path '/closed/{*rest}' --authentication '*'"),
        ("private", "--path '/v/{x}' --host a.example --authentication '*'"),
        ("public", "--path '/v/{x}' --host b.example --authentication anonymous"),
    ] {
        keyward.shell(&format!("keyward resource add {id} {upstream} {methods} {rest}"));
    }
    faces.insert("own", (keyward.public, own, None));
    for (name, kind) in [("nginx", Kind::Nginx), ("haproxy", Kind::Haproxy)] {
        let upstream = Upstream::start();
        if let Some(program) = Program::start(kind, keyward.verify, upstream.address) {
            faces.insert(name, (program.address, upstream, Some(program)));
        }
    }
    let (count, seed) = (setting("KEYWARD_DIFFERENTIAL", REQUESTS), setting("KEYWARD_SEED", 1));
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut sent = BTreeMap::new();
    let mut running = Vec::new();
    for case in 0..count {
        let state = random.next() | 1;
        for (name, (address, ..)) in &faces {
            // Each face gets the request with tokens of its own.
            let token = format!("{name}-{case}-");
            let request = generate(&mut Random(state), &token, &keyward.credential);
            let (address, text) = (*address, request.clone());
            sent.insert(token, request);
            let place = places.clone().acquire_owned().await.unwrap();
            running.push(tokio::spawn(async move {
                send(address, &text).await;
                drop(place);
            }));
        }
    }
    for request in running {
        request.await.unwrap();
    }
    let count = usize::try_from(count).unwrap();
    for (name, (_, upstream, program)) in &faces {
        let recorded = upstream.take();
        // The generator makes enough requests that pass.
        assert!(recorded.len() * 8 > count, "{name}: {} of {count}", recorded.len());
        let host_field = if program.is_some() { "host" } else { "x-forwarded-host" };
        let wanted: Vec<_> = recorded.iter().map(|request| decided(request, host_field)).collect();
        let known = wait_for(&keyward, &wanted).await;
        for (request, wanted) in recorded.iter().zip(&wanted) {
            let case = sent.iter().find(|(token, _)| request.target().contains(token.as_str()));
            assert!(known.contains(wanted), "{name}: {request:#?}\nwas not decided: {case:#?}");
            let is_chunked = !request.field("transfer-encoding").is_empty();
            let lengths = request.field("content-length").len();
            assert!(lengths + usize::from(is_chunked) < 2, "{name}: {request:#?} {case:#?}");
            let needs_key = request.target().contains("/closed/") || wanted.1 == "a.example";
            let is_open = request.target().starts_with("/open/");
            let user = request.field("x-keyward-user");
            assert!(!needs_key || is_open || user == ["admin"], "{name}: {request:#?} {case:#?}");
            assert!(!request.head.contains("root"), "{name}: {request:#?} {case:#?}");
            let hosts = request.field("host").len();
            assert_eq!(hosts, 1, "{name}: {request:#?} {case:#?}");
        }
    }
}

/// The decisions in the log. The log may lag behind the responses for a moment.
async fn wait_for(keyward: &RealKeyward, wanted: &[Decided]) -> BTreeSet<Decided> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let known = decisions(&keyward.log());
        if wanted.iter().all(|one| known.contains(one)) || Instant::now() > deadline {
            return known;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
