//! All floods at once against the real program: memory, the response times of a good client, the
//! time of a revocation, and the growth of the log stay within limits.
//!
//! By default the round is short, and only coarse limits hold, because other programs use the
//! machine too. A long round holds the exact limits:
//!
//! ```text
//! KEYWARD_FLOOD_SECONDS=600 cargo test --release --test floods -- --nocapture
//! ```

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test and reports its line")]
#![allow(clippy::print_stdout, reason = "the test prints its measurements")]

mod attacks;
#[path = "../it/harness.rs"]
#[allow(dead_code, unused_imports, reason = "tests/it uses the other parts")]
mod harness;
mod measure;

use std::{fs, path::Path, time::Duration};

use harness::{Request, Server, Site};
use measure::{Limits, Line, Percentiles};
use serde_json::{Value, json};

/// The budgets of the configuration, in MiB.
const BUFFERED_MIB: u64 = 16;
const SCRIPT_MIB: u64 = 32;
const PASSWORD_CHECKS: u64 = 2;
const CONNECTIONS: u64 = 1000;
/// A password check needs 19 MiB.
const PASSWORD_MIB: u64 = 19;
/// A connection may hold a head of 16 KiB, twice while it is inspected.
const CONNECTION_KIB: u64 = 32;
const ALLOWANCE_MIB: u64 = 64;

/// The length of a round of which only coarse limits are checked.
const SHORT: Duration = Duration::from_secs(15);

#[test]
fn floods_stay_within_the_budgets() {
    let seconds = std::env::var("KEYWARD_FLOOD_SECONDS").ok();
    let seconds =
        seconds.map(|text| text.parse::<u64>().expect("KEYWARD_FLOOD_SECONDS is a number"));
    let length = seconds.map_or(SHORT, Duration::from_secs);
    let limits = Limits::of_round(length >= Duration::from_secs(60));
    let server = start();
    let spare_keys: Vec<_> = (0..3).map(|_| server.generate_key("ann", &[])).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let good = measure::GoodClient::new(&server);
    let quiet = runtime.block_on(good.measure(length / 4));
    let before = measure::resident_mib(server.pid());
    let logged = server.logged().len();
    let (during, revoked) = runtime.block_on(async {
        let floods = attacks::start(&attacks::Targets::of(&server));
        let revoke = measure::revoke_during(&server, &spare_keys, length);
        let measured = tokio::join!(good.measure(length), revoke);
        let sent = floods.stop().await;
        println!("{sent}");
        measured
    });
    let peak = measure::peak_mib(server.pid());
    let minutes = (length.as_secs_f64() / 60.0).max(1.0);
    let log_mib = (server.logged().len() - logged) as f64 / f64::from(1 << 20) / minutes;
    let buffers = health(&server)["buffers"].clone();
    let budget = BUFFERED_MIB + SCRIPT_MIB + PASSWORD_CHECKS * PASSWORD_MIB;
    let budget = budget + CONNECTIONS * CONNECTION_KIB / 1024 + ALLOWANCE_MIB;
    let lines = [
        Line::new("memory above the start, MiB", peak - before, budget as f64),
        Line::new("p99 of a good client, ms", during.p99_ms, limits.p99_ms(&quiet)),
        Line::new("keyward key revoke, s", revoked, limits.revoke_seconds),
        Line::new("log, MiB a minute", log_mib, limits.log_mib),
        Line::new("failed good requests", during.failed as f64, 0.0),
    ];
    println!("good client: quiet {quiet}, flooded {during}");
    println!("budget of memory at the end: {buffers}\n");
    println!("| figure | measured | limit |\n|---|---|---|");
    lines.iter().for_each(|line| println!("{line}"));
    wait_for_no_bytes(&server);
    let missed: Vec<_> = lines.iter().filter(|line| !line.holds()).map(Line::name).collect();
    assert!(missed.is_empty(), "missed: {missed:?}");
}

/// A server with small budgets, with each shipped authentication script, and with a resource for
/// each flood.
fn start() -> Server {
    let mut site = Site::new();
    let mib = |mib: u64| (mib << 20).to_string();
    for (name, value) in [
        ("LIMITS__BUFFERED_BYTES", mib(BUFFERED_MIB)),
        ("LIMITS__UNAUTHENTICATED_BYTES", mib(BUFFERED_MIB / 4)),
        ("SCRIPTS__MEMORY_BYTES", mib(SCRIPT_MIB)),
        ("LIMITS__PASSWORD_CHECKS", PASSWORD_CHECKS.to_string()),
        ("LIMITS__CONNECTIONS", CONNECTIONS.to_string()),
        ("LIMITS__FAILURE_EXEMPT", "127.0.0.1".into()),
        ("LOG__LEVEL", "info".into()),
        ("LOG__CLIENTS", "sampled".into()),
    ] {
        site = site.with_env(&format!("KEYWARD_{name}"), &value);
    }
    let folder = site.path().join("scripts/auth");
    fs::create_dir_all(&folder).unwrap();
    for name in attacks::SCRIPTS {
        let file = format!("{name}.rhai");
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/auth").join(&file);
        fs::copy(shipped, folder.join(file)).unwrap();
    }
    let server = site.start();
    server.add_user("ann", &[]);
    for (id, kind) in attacks::SCRIPTS.map(|name| (name, name)).into_iter().chain([("pw", "basic")])
    {
        let record = json!({ "id": id, "name": id, "type": kind });
        create(&server, "applications", &record);
    }
    for (id, anonymous, buffer_body, size) in
        [("good", false, false, 2), ("buffered", false, true, 2), ("large", true, false, 6000)]
    {
        let authentication = if anonymous { "anonymous" } else { "*" };
        let respond =
            json!({ "status": 200, "content_type": "text/plain", "body": "x".repeat(size) });
        let record = json!({
            "id": id, "handler": "respond", "path": format!("/{id}"), "methods": ["GET", "POST"],
            "formats": ["any"], "authentication": [authentication], "buffer_body": buffer_body,
            "respond": respond,
        });
        create(&server, "resources", &record);
    }
    server
}

fn create(server: &Server, kind: &str, record: &Value) {
    let response = server.admin_api("POST", &format!("/api/v1/{kind}")).json(record).send();
    assert_eq!(response.status, 201, "{}", response.body);
}

fn health(server: &Server) -> Value {
    Request::new(server.admin, "GET", "/health/ready").send().json()
}

/// All bytes are given back when the clients are gone.
fn wait_for_no_bytes(server: &Server) {
    let deadline = std::time::Instant::now() + harness::TIMEOUT * 2;
    loop {
        let used = health(server)["buffers"]["bytes"].as_u64().unwrap_or_default();
        if used == 0 {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{used} bytes are still held");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { requests, failed, p50_ms, p99_ms } = self;
        write!(f, "{requests} requests, {failed} failed, p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms")
    }
}
