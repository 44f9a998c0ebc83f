//! A page in a real browser, Chromium, uses an API of another origin behind Keyward.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Application, Fixture, Running, find_program};
use crate::harness::TIMEOUT;

/// The page calls `run`, and writes the results into its document as JSON.
const PAGE: &str = r#"<!DOCTYPE html><title>page</title><pre id="results"></pre><script>
const api = "SERVER", good = "GOOD";
async function call(path, options) {
    try {
        const response = await fetch(api + path, options);
        const seen = name => response.headers.get(name);
        return {
            status: response.status, text: await response.text(), total: seen("X-Total"),
            hidden: seen("X-Hidden"), challenge: seen("WWW-Authenticate"), retry: seen("Retry-After"),
        };
    } catch (error) {
        return { failed: error.name };
    }
}
function post(key, more) {
    const headers = { "API-KEY": key, "Content-Type": "application/json", ...more };
    return { method: "POST", headers, body: '{"a":1}' };
}
async function run() {
    const results = {
        posted: await call("/api/a", post(good)),
        served: await call("/served", post(good)),
        put: await call("/api/a", { ...post(good), method: "PUT" }),
        wrong: await call("/api/a", post("wrong")),
        limited: [await call("/limited", post(good)), await call("/limited", post(good))],
        field: await call("/api/a", post(good, { "X-Other": "1" })),
        without: await call("/without", post(good)),
        other: await call("/other", post(good)),
        passed: await call("/passed", post(good)),
        cookies: await call("/served", { ...post(good), credentials: "include" }),
    };
    document.getElementById("results").textContent = JSON.stringify(results);
}
run();
</script>"#;

/// Opens a page in Chromium and returns the results that the page has written.
fn open(chromium: &Path, url: &str) -> Value {
    let profile = tempfile::tempdir().unwrap();
    let data_dir = format!("--user-data-dir={}", profile.path().display());
    let output = Command::new("timeout")
        .arg(TIMEOUT.as_secs().to_string())
        .arg(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--virtual-time-budget=20000", "--dump-dom"])
        .args([&data_dir, url])
        .env("HOME", profile.path())
        .output()
        .unwrap();
    let document = String::from_utf8_lossy(&output.stdout);
    let results =
        document.split("<pre id=\"results\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let results =
        results.unwrap_or_else(|| panic!("{document} {}", String::from_utf8_lossy(&output.stderr)));
    let results = results.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    serde_json::from_str(&results).unwrap_or_else(|error| panic!("{error}: {document}"))
}

/// An application that allows all preflights, and describes other requests.
fn application() -> Application {
    Application::with(|request| {
        let fields = if request.head.starts_with("options") {
            "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: api-key, content-type\r\n"
        } else {
            "X-Total: 7\r\nX-Hidden: 8\r\nAccess-Control-Allow-Origin: https://old.example\r\n"
        };
        let user = request.field("x-keyward-user").unwrap_or_default();
        let body = format!("{user} sent {}", request.body);
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    })
}

/// A server of the page, which sends its requests to this address.
fn page(api: SocketAddr, credential: &str) -> Application {
    let page = PAGE.replace("SERVER", &format!("http://{api}")).replace("GOOD", credential);
    Application::with(move |_| {
        let length = page.len();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
        )
    })
}

/// Asserts that the page could send and read what the settings allow, and nothing else.
fn assert_results(results: &Value, served: &str) {
    let failed = json!({ "failed": "TypeError" });
    let posted = &results["posted"];
    assert_eq!(
        (&posted["status"], &posted["text"]),
        (&json!(200), &json!("ada sent {\"a\":1}")),
        "{results:#}"
    );
    assert_eq!((&posted["total"], &posted["hidden"]), (&json!("7"), &Value::Null));
    assert_eq!(results["served"]["text"], served);
    let wrong = &results["wrong"];
    assert_eq!(wrong["status"], 401, "{results:#}");
    assert!(wrong["text"].as_str().unwrap().contains("API key format is invalid."), "{wrong}");
    assert!(wrong["challenge"].as_str().unwrap().starts_with("ApiKey "), "{wrong}");
    assert_eq!(results["limited"][0]["status"], 200);
    assert_eq!(results["limited"][1]["status"], 429);
    assert!(results["limited"][1]["retry"].is_string(), "{results:#}");
    for name in ["put", "field", "without", "other"] {
        assert_eq!(results[name], failed, "{name} {results:#}");
    }
    assert_eq!(results["passed"]["text"], "ada sent {\"a\":1}", "{results:#}");
    // The settings do not allow credentials.
    assert_eq!(results["cookies"], failed, "{results:#}");
}

/// The request lines that the application has received since the last call.
fn take_lines(application: &Application) -> Vec<String> {
    let received = application.take_received();
    received.iter().map(|one| one.head.lines().next().unwrap().to_owned()).collect()
}

#[test]
fn page_of_an_allowed_origin_uses_the_api_and_reads_its_refusals() {
    let Some(chromium) = find_program("chromium") else { return };
    let mut fixture = Fixture::new();
    fixture.application = application();
    let pages = page(fixture.server.public, &fixture.ada.credential);
    let origin = format!("http://{}", pages.address);
    let cors = json!({ "origins": [origin], "expose": ["X-Total"] });
    let fixed = json!({ "handler": "respond", "cors": cors, "respond": { "body": "fixed" } });
    fixture.forward("api", "/api/{id}", json!({ "cors": cors }));
    fixture.create("served", "/served", fixed.clone());
    let mut limited = fixed;
    limited["rate_limit"] = "1/1h".into();
    fixture.create("limited", "/limited", limited);
    fixture.forward("without", "/without", json!({}));
    fixture.forward("other", "/other", json!({ "cors": { "origins": ["https://other.example"] } }));
    let pass = json!({ "origins": [origin], "preflight": "pass" });
    fixture.forward("passed", "/passed", json!({ "cors": pass }));

    assert_results(&open(&chromium, &format!("{origin}/page")), "fixed");
    // The application got the requests of the page, and no preflight except the one to be passed.
    assert_eq!(
        take_lines(&fixture.application),
        ["post /api/a http/1.1", "options /passed http/1.1", "post /passed http/1.1"]
    );
}

/// Starts a proxy with its shipped configuration. Only the ports are replaced.
fn start_proxy(
    program: &Path,
    arguments: &[&str],
    fixture: &Fixture,
) -> Option<(SocketAddr, Running, TempDir)> {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let name = program.file_name().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/proxies").join(name);
    for file in fs::read_dir(shipped).unwrap() {
        let file = file.unwrap();
        let mut text = fs::read_to_string(file.path()).unwrap();
        for (port, address) in [
            (8000, address),
            (8082, fixture.server.verify.unwrap()),
            (9000, fixture.application.address),
        ] {
            text = text.replace(&format!(":{port}"), &format!(":{}", address.port()));
        }
        fs::write(folder.path().join(file.file_name()), text).unwrap();
    }
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder.path()).env("HOME", folder.path());
    let mut proxy = Running::start(command);
    let deadline = Instant::now() + TIMEOUT;
    while TcpStream::connect(address).is_err() {
        if proxy.has_ended() || Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
    Some((address, proxy, folder))
}

#[test]
fn page_uses_an_api_behind_the_shipped_configurations_of_proxies() {
    let Some(chromium) = find_program("chromium") else { return };
    for (name, arguments) in [
        ("nginx", &["-p", ".", "-c", "nginx.conf", "-g", "daemon off; master_process off;"][..]),
        ("caddy", &["run", "--config", "Caddyfile"]),
        ("haproxy", &["-f", "haproxy.cfg"]),
    ] {
        let Some(program) = find_program(name) else { continue };
        let mut fixture = Fixture::new();
        fixture.application = application();
        // Another program may take the free port before the proxy.
        let started = (0..5).find_map(|_| start_proxy(&program, arguments, &fixture));
        let (address, _proxy, _folder) = started.unwrap_or_else(|| panic!("{name}"));
        let pages = page(address, &fixture.ada.credential);
        let origin = format!("http://{}", pages.address);
        let decide = |cors: Value| json!({ "handler": "decide", "cors": cors });
        let cors = json!({ "origins": [origin], "expose": ["X-Total"] });
        fixture.create("api", "/api/{id}", decide(cors.clone()));
        fixture.create("served", "/served", decide(cors.clone()));
        let mut limited = decide(cors);
        limited["rate_limit"] = "1/1h".into();
        fixture.create("limited", "/limited", limited);
        fixture.create("without", "/without", json!({ "handler": "decide" }));
        fixture.create("other", "/other", decide(json!({ "origins": ["https://other.example"] })));
        let pass = json!({ "origins": [origin], "preflight": "pass" });
        fixture.create("passed", "/passed", decide(pass));

        let results = open(&chromium, &format!("{origin}/page"));
        assert_results(&results, "ada sent {\"a\":1}");
        let lines = take_lines(&fixture.application);
        let preflights: Vec<&String> =
            lines.iter().filter(|line| line.starts_with("options")).collect();
        assert_eq!(preflights, ["options /passed http/1.1"], "{name} {lines:?}");
    }
}
