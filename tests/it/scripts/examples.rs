//! Tests of the example scripts in `examples/scripts`, over HTTP.

use super::*;

#[test]
fn problem_json_example_formats_denials() {
    let server = server(&[("hooks.rhai", &shipped("examples/scripts/problem_json.rhai"))]);
    create_resource(
        &server,
        "orders",
        "/orders",
        json!({ "permissions": { "GET": ["see orders"] } }),
    );
    let anonymous = server.request("GET", "/orders?secret=1").send();
    assert_eq!(anonymous.status, 401);
    assert_eq!(anonymous.header("content-type"), Some("application/problem+json"));
    assert!(anonymous.header("www-authenticate").is_some());
    assert_eq!(
        anonymous.json(),
        json!({
            "type": "https://docs.example.com/errors/missing_api_key_header",
            "title": "Unauthorized",
            "status": 401,
            "detail": "API key header is missing.",
            "instance": "/orders",
        })
    );
    let llama = server.user_with_permissions("llama", &[]);
    let denied = server.request("GET", "/orders").header("API-KEY", llama.credential).send();
    let problem = denied.json();
    assert_eq!((denied.status, problem["status"].as_u64()), (403, Some(403)));
    assert_eq!(problem["type"], "https://docs.example.com/errors/permission_required");
    let nowhere = server.request_as_admin("GET", "/nowhere").send();
    assert_eq!((nowhere.status, nowhere.json()["title"].as_str()), (404, Some("Not Found")));
    // The hook does not apply to the admin listener, whose problem documents have other types.
    let admin = admin_request(&server, "GET", "/api/v1/nowhere").send();
    assert_eq!(admin.json()["type"].as_str().map(|kind| kind.starts_with("urn:")), Some(true));
}

#[test]
fn business_hours_example_denies_outside_its_hours() {
    // One copy of the script allows requests at every hour, and the other copy at no hour.
    let example = shipped("examples/scripts/business_hours.rhai");
    let (always, never) = (
        example.replace("OPENS = 8", "OPENS = 0").replace("CLOSES = 18", "CLOSES = 24"),
        example.replace("OPENS = 8", "OPENS = 0").replace("CLOSES = 18", "CLOSES = 0"),
    );
    let always = always.replace("[1, 2, 3, 4, 5]", "[1, 2, 3, 4, 5, 6, 7]");
    let server = server(&[("resources/open.rhai", &always), ("resources/shut.rhai", &never)]);
    create_resource(&server, "open", "/open", json!({}));
    create_resource(&server, "shut", "/shut", json!({}));
    create_resource(&server, "other", "/other", json!({}));
    let (llama, owl) = (
        server.user_with_permissions("llama", &[]),
        server.user_with_permissions("owl", &["work at night"]),
    );
    let send = |path: &str, credential: &str| {
        server.request("GET", path).header("API-KEY", credential).send()
    };
    assert_eq!(send("/open", &llama.credential).status, 200);
    assert_eq!(send("/other", &llama.credential).status, 200);
    let shut = send("/shut", &llama.credential);
    assert_eq!(status_and_code(&shut), error(403, "OUT_OF_HOURS"));
    assert!(shut.body.contains("Come back from 0:00 to 0:00 (Europe/Berlin)."), "{}", shut.body);
    assert_eq!(send("/shut", &owl.credential).status, 200);
}

#[test]
fn tenant_paths_example_limits_users_to_their_tenant() {
    let example = shipped("examples/scripts/tenant_paths.rhai");
    let server = server(&[("resources/tenants.rhai", &example)]);
    create_resource(&server, "tenants", "/tenants/{*rest}", json!({}));
    let llama = server.user_with_permissions("llama", &[]);
    let stray = server.user_with_permissions("stray", &[]);
    let shepherd = server.user_with_permissions("shepherd", &["see all tenants"]);
    let uid = server.site.json(&["user", "show", "llama"])["uid"].as_u64().unwrap();
    set_attributes(&server, uid, json!({ "tenant": "andes" }));
    let status = |path: &str, credential: &str| {
        server.request("GET", path).header("API-KEY", credential).send().status
    };
    for path in
        ["/tenants/andes", "/tenants/andes/orders/7", "/tenants/%61ndes", "/tenants/x/../andes"]
    {
        assert_eq!(status(path, &llama.credential), 200, "{path}");
    }
    for path in [
        "/tenants/alps",
        "/tenants/andes/../alps",
        "/tenants/Andes",
        "/tenants/andes%2e",
        "/tenants//alps",
    ] {
        assert_eq!(status(path, &llama.credential), 403, "{path}");
        assert_eq!(status(path, &stray.credential), 403, "{path}");
        assert_eq!(status(path, &shepherd.credential), 200, "{path}");
    }
    assert_eq!(status("/tenants/andes", &stray.credential), 403);
}

#[test]
fn every_error_code_of_a_shipped_script_is_documented() {
    let manual = shipped("docs/shipped-scripts.md");
    let mut count = 0;
    for folder in ["scripts", "scripts/auth", "examples/scripts"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for arguments in text.split("deny(").skip(1) {
                let code = arguments.split('"').nth(1).unwrap();
                count += 1;
                assert!(manual.contains(&format!("`{code}`")), "{code} of {}", path.display());
            }
        }
    }
    assert!(count >= 15, "found only {count} error codes");
}
