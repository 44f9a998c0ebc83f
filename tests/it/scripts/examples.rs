//! The examples in `examples/scripts`, over HTTP.

use super::*;

#[test]
fn refusals_as_problems() {
    let server = server(&[("hooks.rhai", &shipped("examples/scripts/problem_json.rhai"))]);
    resource(&server, "orders", "/orders", json!({ "permissions": { "GET": ["see orders"] } }));
    let nobody = server.request("GET", "/orders?secret=1").send();
    assert_eq!(nobody.status, 401);
    assert_eq!(nobody.header("content-type"), Some("application/problem+json"));
    assert!(nobody.header("www-authenticate").is_some());
    assert_eq!(
        nobody.json(),
        json!({
            "type": "https://docs.example.com/errors/missing_api_key_header",
            "title": "Unauthorized",
            "status": 401,
            "detail": "API key header is missing.",
            "instance": "/orders",
        })
    );
    let llama = server.user_with("llama", &[]);
    let denied = server.request("GET", "/orders").header("API-KEY", llama.credential).send();
    let problem = denied.json();
    assert_eq!((denied.status, problem["status"].as_u64()), (403, Some(403)));
    assert_eq!(problem["type"], "https://docs.example.com/errors/permission_required");
    let nowhere = server.asks("GET", "/nowhere").send();
    assert_eq!((nowhere.status, nowhere.json()["title"].as_str()), (404, Some("Not Found")));
    // Not on the admin listener, which has problems of its own.
    let admin = manages(&server, "GET", "/api/v1/nowhere").send();
    assert_eq!(admin.json()["type"].as_str().map(|one| one.starts_with("urn:")), Some(true));
}

#[test]
fn a_resource_that_rests() {
    // Made to rest at the hour that it is now, and then at all others.
    let example = shipped("examples/scripts/business_hours.rhai");
    let (always, never) = (
        example.replace("OPENS = 8", "OPENS = 0").replace("CLOSES = 18", "CLOSES = 24"),
        example.replace("OPENS = 8", "OPENS = 0").replace("CLOSES = 18", "CLOSES = 0"),
    );
    let always = always.replace("[1, 2, 3, 4, 5]", "[1, 2, 3, 4, 5, 6, 7]");
    let server = server(&[("resources/open.rhai", &always), ("resources/shut.rhai", &never)]);
    resource(&server, "open", "/open", json!({}));
    resource(&server, "shut", "/shut", json!({}));
    resource(&server, "other", "/other", json!({}));
    let (llama, owl) =
        (server.user_with("llama", &[]), server.user_with("owl", &["work at night"]));
    let ask = |path: &str, credential: &str| {
        server.request("GET", path).header("API-KEY", credential).send()
    };
    assert_eq!(ask("/open", &llama.credential).status, 200);
    assert_eq!(ask("/other", &llama.credential).status, 200);
    let shut = ask("/shut", &llama.credential);
    assert_eq!(code(&shut), error(403, "OUT_OF_HOURS"));
    assert!(shut.body.contains("Come back from 0:00 to 0:00 (Europe/Berlin)."), "{}", shut.body);
    assert_eq!(ask("/shut", &owl.credential).status, 200);
}

#[test]
fn a_tenants_own_paths() {
    let example = shipped("examples/scripts/tenant_paths.rhai");
    let server = server(&[("resources/tenants.rhai", &example)]);
    resource(&server, "tenants", "/tenants/{*rest}", json!({}));
    let llama = server.user_with("llama", &[]);
    let stray = server.user_with("stray", &[]);
    let shepherd = server.user_with("shepherd", &["see all tenants"]);
    let uid = server.site.json(&["user", "show", "llama"])["uid"].as_u64().unwrap();
    attributes(&server, uid, json!({ "tenant": "andes" }));
    let ask = |path: &str, credential: &str| {
        server.request("GET", path).header("API-KEY", credential).send().status
    };
    for path in
        ["/tenants/andes", "/tenants/andes/orders/7", "/tenants/%61ndes", "/tenants/x/../andes"]
    {
        assert_eq!(ask(path, &llama.credential), 200, "{path}");
    }
    for path in [
        "/tenants/alps",
        "/tenants/andes/../alps",
        "/tenants/Andes",
        "/tenants/andes%2e",
        "/tenants//alps",
    ] {
        assert_eq!(ask(path, &llama.credential), 403, "{path}");
        assert_eq!(ask(path, &stray.credential), 403, "{path}");
        assert_eq!(ask(path, &shepherd.credential), 200, "{path}");
    }
    assert_eq!(ask("/tenants/andes", &stray.credential), 403);
}

/// What a client may be told by a shipped script is explained.
#[test]
fn every_code_of_a_shipped_script_is_in_the_manual() {
    let manual = shipped("docs/shipped-scripts.md");
    let mut count = 0;
    for folder in ["scripts", "scripts/auth", "examples/scripts"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for said in text.split("deny(").skip(1) {
                let code = said.split('"').nth(1).unwrap();
                count += 1;
                assert!(manual.contains(&format!("`{code}`")), "{code} of {}", path.display());
            }
        }
    }
    assert!(count >= 15, "only {count}");
}
