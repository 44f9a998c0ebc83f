//! The cost of each phase and of a whole decision: `cargo bench --bench phases`.
//!
//! Runs in one thread, with a store in memory and without HTTP.

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
    model::{Actor, Clock, Entropy, KeyShape, KeyText, Pepper, Resource, Scheme},
    pipeline::{Action, Denial, Face, Gate, Request, decode, header, lookup, verify},
    scripting::{ScriptLimits, Secrets},
    store::MemoryStore,
};
use tokio::runtime::Runtime;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The bench uses the allocator of the `keyward` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USERS: u64 = 1000;

/// The request pipeline with a store of 1,000 users, and the name and key of the last user.
struct Fixture {
    accounts: Accounts,
    gate: Gate,
    name: String,
    key_text: String,
    runtime: Runtime,
    _scripts: tempfile::TempDir,
}

impl Fixture {
    fn new(hooks: &str) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (pepper, entropy) = (Pepper::from_bytes([7; 32]), Entropy::seeded(1));
        let store = Arc::new(MemoryStore::new());
        let accounts = Accounts::with(store, pepper, Passwords::new(1), Clock::system(), entropy)?;
        let scripts = tempfile::tempdir()?;
        std::fs::write(scripts.path().join("hooks.rhai"), hooks)?;
        let loaded = accounts.load_scripts(
            scripts.path(),
            ScriptLimits::default(),
            Secrets::default(),
            None,
        );
        loaded.map_err(|problems| format!("{problems:?}"))?;
        let mut last = None;
        runtime.block_on(async {
            accounts.first_start().await?;
            accounts.as_actor(Actor::Program).create(resource()).await?;
            for number in 0..USERS {
                let name = format!("machine-{number}");
                let new = NewUser { name: name.clone(), status: true, ..NewUser::default() };
                let uid = accounts.as_actor(Actor::Program).create_user(new).await?.record.uid;
                let key =
                    accounts.as_actor(Actor::Program).issue_key(uid, NewKey::default()).await?;
                last = Some((name, key.text.expose().to_owned()));
            }
            Outcome::Ok(())
        })?;
        let (name, key_text) = last.ok_or("no user was created")?;
        let gate = Gate::new(&accounts, 4096);
        Ok(Self { accounts, gate, name, key_text, runtime, _scripts: scripts })
    }

    fn headers(&self, name: &str, text: &str) -> Outcome<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("a.example"));
        headers
            .insert("api-key", HeaderValue::try_from(STANDARD.encode(format!("{name}:{text}")))?);
        Ok(headers)
    }

    /// Makes a whole decision. Returns whether the request is authorized.
    fn decide(&self, headers: &HeaderMap) -> bool {
        let context = self.gate.request_context();
        let request = request(headers);
        let found = context.policy.routes.find("a.example", request.path);
        let Some(rule) = found.as_ref().and_then(|found| found.rule("GET")) else { return false };
        let action = Action::Use(rule);
        self.runtime
            .block_on(async { self.gate.authorize(&context, &request, &action).await.is_ok() })
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
    serde_json::from_value(record).expect("a valid resource")
}

fn main() -> Outcome<()> {
    let without_hooks = Fixture::new("const ALL_OFF = true;")?;
    let empty_hook = Fixture::new("fn on_request(req) { }")?;
    let policy = Fixture::new(
        r#"fn on_permit(req, identity, resource) { if req.method == "DELETE" && !identity.has_role("admin") { return false; } true }"#,
    )?;
    let (name, text) = (without_hooks.name.clone(), without_hooks.key_text.clone());
    let right_key = without_hooks.headers(&name, &text)?;
    let wrong_secret = KeyText::generate("kw", &Entropy::system()).text.expose().to_owned();
    let mut damaged = text.clone();
    damaged.pop();
    damaged.push(if text.ends_with('0') { '1' } else { '0' });
    let cases = [
        ("a right key", right_key.clone()),
        ("a wrong secret", without_hooks.headers(&name, &wrong_secret)?),
        ("a wrong checksum", without_hooks.headers(&name, &damaged)?),
        ("an unknown user", without_hooks.headers("nobody", &text)?),
    ];
    let mut bench = Criterion::default().configure_from_args();
    for (case, headers) in &cases {
        assert_eq!(without_hooks.decide(headers), *case == "a right key", "{case}");
        bench.bench_function(&format!("decision: {case}"), |bencher| {
            bencher.iter(|| without_hooks.decide(headers));
        });
    }
    for (case, fixture) in
        [("an empty on_request", &empty_hook), ("a policy in on_permit", &policy)]
    {
        let headers = fixture.headers(&fixture.name, &fixture.key_text)?;
        assert!(fixture.decide(&headers));
        let name = format!("decision: a right key, and {case}");
        bench.bench_function(&name, |bencher| bencher.iter(|| fixture.decide(&headers)));
    }
    bench_phases(&without_hooks, &right_key, &mut bench);
    bench_parts(&without_hooks, &mut bench);
    bench.final_summary();
    Ok(())
}

/// Measures the first four phases. The measurement of a phase includes all phases before that
/// phase.
fn bench_phases(fixture: &Fixture, headers: &HeaderMap, bench: &mut Criterion) {
    let context = fixture.gate.request_context();
    let request = request(headers);
    let found = context.policy.routes.find("a.example", request.path);
    let Some(rule) = found.as_ref().and_then(|found| found.rule("GET")) else { return };
    let (gate, action) = (&fixture.gate, Action::Use(rule));
    bench.bench_function("phases: request context", |bencher| {
        bencher.iter(|| gate.request_context())
    });
    bench.bench_function("phases: route", |bencher| {
        bencher.iter(|| context.policy.routes.find("a.example", black_box("/app/1")).is_some());
    });
    for (name, last) in [
        ("phases: header", 1),
        ("phases: header, decode", 2),
        ("phases: header, decode, lookup", 3),
        ("phases: header, decode, lookup, verify", 4),
    ] {
        let run_phases = async || -> Result<(), Denial> {
            let presented = header::read(gate, &context, &request, &action).await?;
            if last == 1 {
                return Ok(());
            }
            let credential = decode::parse(&context, &request, presented).await?;
            if last == 2 {
                return Ok(());
            }
            let candidate = lookup::find(gate, &context, &request, credential).await?;
            if last == 3 {
                return Ok(());
            }
            verify::check(gate, &context, &request, &action, candidate).await.map(drop)
        };
        bench.bench_function(name, |bencher| {
            bencher.iter(|| fixture.runtime.block_on(run_phases()).is_ok());
        });
    }
}

/// Measures single operations that the phases perform, such as the lookup of a user by name.
fn bench_parts(fixture: &Fixture, bench: &mut Criterion) {
    let directory = fixture.accounts.directory();
    let KeyShape::Ours(id) = KeyText::shape(&fixture.key_text) else { return };
    let pepper = fixture.accounts.pepper();
    bench.bench_function("parts: a user by name", |bencher| {
        bencher.iter(|| directory.user_by_name(black_box(&fixture.name)));
    });
    bench.bench_function("parts: a key by id", |bencher| {
        bencher.iter(|| directory.key(black_box(id)));
    });
    bench.bench_function("parts: format and checksum of a key", |bencher| {
        bencher.iter(|| KeyText::shape(black_box(&fixture.key_text)));
    });
    for (name, scheme) in [("a Keyward key", Scheme::Own), ("a SHA-256 key", Scheme::Sha256)] {
        bench.bench_function(&format!("parts: the digest of {name}"), |bencher| {
            bencher.iter(|| pepper.digest_as(scheme, black_box(&fixture.key_text)));
        });
    }
}
