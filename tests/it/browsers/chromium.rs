//! A page in a real browser, Chromium, uses an API of another origin behind Keyward.

use std::process::Command;

use serde_json::{Value, json};

use super::{Application, Fixture, find_program};
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
fn open(chromium: &std::path::Path, url: &str) -> Value {
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

#[test]
fn page_of_an_allowed_origin_uses_the_api_and_reads_its_refusals() {
    let Some(chromium) = find_program("chromium") else { return };
    let mut fixture = Fixture::new();
    fixture.application = Application::with(|request| {
        let fields = if request.head.starts_with("options") {
            "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: api-key, content-type\r\n"
        } else {
            "X-Total: 7\r\nX-Hidden: 8\r\n"
        };
        let body = format!(
            "{} sent {}",
            request.field("x-keyward-user").unwrap_or_default(),
            request.body
        );
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    });
    let page = PAGE
        .replace("SERVER", &format!("http://{}", fixture.server.public))
        .replace("GOOD", &fixture.ada.credential);
    let pages = Application::with(move |_| {
        let length = page.len();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
        )
    });
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
    fixture.forward(
        "passed",
        "/passed",
        json!({ "cors": { "origins": [origin], "preflight": "pass" } }),
    );

    let results = open(&chromium, &format!("{origin}/page"));
    let failed = json!({ "failed": "TypeError" });
    let posted = &results["posted"];
    assert_eq!((&posted["status"], &posted["text"]), (&json!(200), &json!("ada sent {\"a\":1}")));
    assert_eq!((&posted["total"], &posted["hidden"]), (&json!("7"), &Value::Null));
    assert_eq!(
        (&results["served"]["status"], &results["served"]["text"]),
        (&json!(200), &json!("fixed"))
    );
    assert_eq!(results["put"], failed);
    let wrong = &results["wrong"];
    assert_eq!(wrong["status"], 401, "{results:#}");
    assert!(wrong["text"].as_str().unwrap().contains("API key format is invalid."), "{wrong}");
    assert!(wrong["challenge"].as_str().unwrap().starts_with("ApiKey "), "{wrong}");
    assert_eq!(results["limited"][0]["status"], 200);
    assert_eq!(results["limited"][1]["status"], 429);
    assert!(results["limited"][1]["retry"].is_string(), "{results:#}");
    for name in ["field", "without", "other"] {
        assert_eq!(results[name], failed, "{name} {results:#}");
    }
    assert_eq!(results["passed"]["text"], "ada sent {\"a\":1}", "{results:#}");
    // The settings do not allow credentials.
    assert_eq!(results["cookies"], failed, "{results:#}");
    // The application got the requests of the page, and no preflight except the one to be passed.
    let received = fixture.application.take_received();
    let lines: Vec<&str> = received.iter().map(|one| one.head.lines().next().unwrap()).collect();
    assert_eq!(
        lines,
        ["post /api/a http/1.1", "options /passed http/1.1", "post /passed http/1.1"]
    );
}
