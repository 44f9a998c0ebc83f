//! What each room costs, and a whole decision: `cargo bench --bench rooms`. In one thread, in memory, without HTTP.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use criterion::Criterion;
use http::{HeaderMap, HeaderValue, Method};
use keyward::{
    accounts::{Accounts, NewKey, NewUser, Passwords},
    hooks::{Limits, Secrets},
    model::{Actor, Clock, Entropy, KeyShape, KeyText, Pepper, Resource, Scheme},
    pipeline::{Action, Denial, Face, Gate, Request, decode, header, lookup, verify},
    store::MemoryStore,
};
use tokio::runtime::Runtime;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USERS: u64 = 1000;

/// Accounts with users, and what one of them sends.
struct House {
    accounts: Accounts,
    gate: Gate,
    name: String,
    text: String,
    runtime: Runtime,
    _scripts: tempfile::TempDir,
}

impl House {
    fn new(hooks: &str) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (pepper, entropy) = (Pepper::from_bytes([7; 32]), Entropy::seeded(1));
        let store = Arc::new(MemoryStore::new());
        let accounts = Accounts::with(store, pepper, Passwords::new(1), Clock::system(), entropy)?;
        let scripts = tempfile::tempdir()?;
        std::fs::write(scripts.path().join("hooks.rhai"), hooks)?;
        let loaded =
            accounts.load_scripts(scripts.path(), Limits::default(), Secrets::default(), None);
        loaded.map_err(|problems| format!("{problems:?}"))?;
        let mut last = None;
        runtime.block_on(async {
            accounts.first_start().await?;
            accounts.acting(Actor::Program).create(resource()).await?;
            for number in 0..USERS {
                let name = format!("machine-{number}");
                let new = NewUser { name: name.clone(), status: true, ..NewUser::default() };
                let uid = accounts.acting(Actor::Program).create_user(new).await?.record.uid;
                let key = accounts.acting(Actor::Program).issue_key(uid, NewKey::default()).await?;
                last = Some((name, key.text.expose().to_owned()));
            }
            Outcome::Ok(())
        })?;
        let (name, text) = last.ok_or("nobody")?;
        let gate = Gate::new(&accounts, 4096);
        Ok(Self { accounts, gate, name, text, runtime, _scripts: scripts })
    }

    fn headers(&self, name: &str, text: &str) -> Outcome<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("a.example"));
        headers
            .insert("api-key", HeaderValue::try_from(STANDARD.encode(format!("{name}:{text}")))?);
        Ok(headers)
    }

    /// The whole decision. Whether it passes.
    fn decide(&self, headers: &HeaderMap) -> bool {
        let scene = self.gate.scene();
        let request = request(headers);
        let found = scene.policy.routes.find("a.example", request.path);
        let Some(rule) = found.as_ref().and_then(|found| found.rule("GET")) else { return false };
        let action = Action::Use(rule);
        self.runtime
            .block_on(async { self.gate.authorize(&scene, &request, &action).await.is_ok() })
    }
}

fn request(headers: &HeaderMap) -> Request<'_> {
    Request {
        method: &Method::GET,
        path: "/app/1",
        query: None,
        headers,
        host: Some("a.example"),
        body: None,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        face: Face::Public,
    }
}

fn resource() -> Resource {
    let record = serde_json::json!({
        "id": "app", "path": "/app/{*rest}", "methods": ["GET"], "enabled": true, "handler": "decide", "granularity": "resource",
        "formats": ["any"], "authentication": ["*"],
    });
    serde_json::from_value(record).expect("a resource")
}

fn main() -> Outcome<()> {
    let house = House::new("fn unused(x) { x }")?;
    let empty = House::new("fn on_request(req) { }")?;
    let policy = House::new(
        r#"fn on_permit(req, identity, resource) { if req.method == "DELETE" && !identity.has_role("admin") { return false; } true }"#,
    )?;
    let (name, text) = (house.name.clone(), house.text.clone());
    let right = house.headers(&name, &text)?;
    let unknown_key = KeyText::generate("kw", &Entropy::system()).text.expose().to_owned();
    let mut damaged = text.clone();
    damaged.pop();
    damaged.push(if text.ends_with('0') { '1' } else { '0' });
    let cases = [
        ("a right key", right.clone()),
        ("a wrong secret", house.headers(&name, &unknown_key)?),
        ("a wrong checksum", house.headers(&name, &damaged)?),
        ("an unknown user", house.headers("nobody", &text)?),
    ];
    let mut bench = Criterion::default().configure_from_args();
    for (what, headers) in &cases {
        assert_eq!(house.decide(headers), *what == "a right key", "{what}");
        bench.bench_function(&format!("decision: {what}"), |it| it.iter(|| house.decide(headers)));
    }
    for (what, other) in [("an empty on_request", &empty), ("a policy in on_permit", &policy)] {
        let headers = other.headers(&other.name, &other.text)?;
        assert!(other.decide(&headers));
        let name = format!("decision: a right key, and {what}");
        bench.bench_function(&name, |it| it.iter(|| other.decide(&headers)));
    }
    rooms(&house, &right, &mut bench);
    parts(&house, &mut bench);
    bench.final_summary();
    Ok(())
}

/// The first four rooms, each with the ones before it.
fn rooms(house: &House, headers: &HeaderMap, bench: &mut Criterion) {
    let scene = house.gate.scene();
    let request = request(headers);
    let found = scene.policy.routes.find("a.example", request.path);
    let Some(rule) = found.as_ref().and_then(|found| found.rule("GET")) else { return };
    let (gate, action) = (&house.gate, Action::Use(rule));
    bench.bench_function("rooms: scene", |it| it.iter(|| gate.scene()));
    bench.bench_function("rooms: route", |it| {
        it.iter(|| scene.policy.routes.find("a.example", black_box("/app/1")).is_some());
    });
    for (name, last) in [
        ("rooms: header", 1),
        ("rooms: header, decode", 2),
        ("rooms: header, decode, lookup", 3),
        ("rooms: header, decode, lookup, verify", 4),
    ] {
        let through = async || -> Result<(), Denial> {
            let presented = header::read(gate, &scene, &request, &action).await?;
            if last == 1 {
                return Ok(());
            }
            let credential = decode::parse(&scene, &request, presented).await?;
            if last == 2 {
                return Ok(());
            }
            let candidate = lookup::find(gate, &scene, &request, credential).await?;
            if last == 3 {
                return Ok(());
            }
            verify::check(gate, &scene, &request, &action, candidate).await.map(drop)
        };
        bench.bench_function(name, |it| it.iter(|| house.runtime.block_on(through()).is_ok()));
    }
}

/// What the rooms are made of.
fn parts(house: &House, bench: &mut Criterion) {
    let directory = house.accounts.directory();
    let KeyShape::Ours(id) = KeyText::shape(&house.text) else { return };
    let pepper = house.accounts.pepper();
    bench.bench_function("parts: a user by name", |it| {
        it.iter(|| directory.user_by_name(black_box(&house.name)));
    });
    bench.bench_function("parts: a key by id", |it| it.iter(|| directory.key(black_box(id))));
    bench.bench_function("parts: form and checksum of a key", |it| {
        it.iter(|| KeyText::shape(black_box(&house.text)));
    });
    for (name, scheme) in [("a key of ours", Scheme::Own), ("a SHA-256 key", Scheme::Sha256)] {
        bench.bench_function(&format!("parts: the digest of {name}"), |it| {
            it.iter(|| pepper.digest_as(scheme, black_box(&house.text)));
        });
    }
}
