//! `keyward resource add` and `edit`: each setting of the handler `proxy`, and the limits of
//! request bodies.

use serde_json::{Value, json};

use crate::harness::{Server, Site};

const RESOURCE: [&str; 14] = [
    "resource",
    "add",
    "shop",
    "--handler",
    "proxy",
    "--path",
    "/shop",
    "--method",
    "POST",
    "--format",
    "any",
    "--authentication",
    "*",
    "--upstream=http://127.0.0.1:9000",
];

fn add(site: &Site, options: &[&str]) -> Value {
    site.json(&[RESOURCE.as_slice(), options].concat())
}

#[test]
fn each_setting_of_a_proxy_has_an_option() {
    let site = Site::new();
    site.json(&["init"]);
    let shop = add(
        &site,
        &[
            "--preserve-host",
            "--keep-credential",
            "--upgrade=websocket",
            "--upgrade=x",
            "--connect-seconds=1",
            "--response-seconds=2",
            "--idle-seconds=3",
            "--eject-after=4",
            "--eject-seconds=5",
            "--body-bytes=6",
            "--body-read-seconds=none",
        ],
    );
    let expected = json!({
        "upstreams": ["http://127.0.0.1:9000"],
        "protocol": "http1",
        "preserve_host": true,
        "keep_credential": true,
        "upgrades": ["websocket", "x"],
        "connect_seconds": 1,
        "response_seconds": 2,
        "idle_seconds": 3,
        "eject_after": 4,
        "eject_seconds": 5,
    });
    assert_eq!(shop["proxy"], expected);
    assert_eq!((&shop["body_bytes"], &shop["body_read_seconds"]), (&json!(6), &json!("none")));
    // An option that is not given leaves its setting unchanged.
    let options = ["--preserve-host=false", "--upgrade=none", "--idle-seconds=30"];
    let shop = site.json(&[["resource", "edit", "shop"].as_slice(), &options].concat());
    let (mut expected, mut changed) = (expected, shop["proxy"].clone());
    for (name, value) in
        [("preserve_host", json!(false)), ("upgrades", json!([])), ("idle_seconds", json!(30))]
    {
        assert_eq!(changed[name], value);
        (expected[name], changed[name]) = (Value::Null, Value::Null);
    }
    assert_eq!(changed, expected);
    let options = ["--body-bytes=default", "--body-read-seconds=7"];
    let shop = site.json(&[["resource", "edit", "shop"].as_slice(), &options].concat());
    assert_eq!((&shop["body_bytes"], &shop["body_read_seconds"]), (&Value::Null, &json!(7)));
}

#[test]
fn invalid_limit_is_refused_with_its_field() {
    let site = Site::new();
    site.json(&["init"]);
    for (options, code, message) in [
        (["--body-bytes=0"].as_slice(), 4, "body_bytes: 0 is out of range."),
        (&["--body-read-seconds=86401"], 4, "body_read_seconds: 86401 is out of range."),
        (&["--body-bytes=many"], 2, "use a whole number, none or default"),
        (&["--idle-seconds=0"], 4, "proxy.idle_seconds: 0 is out of range."),
        (&["--upgrade=h2c"], 4, "proxy.upgrades"),
        (&["--body-bytes=none", "--handler=respond"], 2, "--handler"),
    ] {
        let output = site.run(&[RESOURCE.as_slice(), options].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{options:?}: {errors}");
        assert!(errors.contains(message), "{options:?}: {errors}");
    }
}

/// The limits of a resource hold as soon as the command returns.
#[test]
fn limit_of_a_resource_replaces_the_limit_of_the_server() {
    let server = Server::new();
    let respond = [
        "resource",
        "add",
        "r",
        "--handler",
        "respond",
        "--path",
        "/r",
        "--method",
        "POST",
        "--format",
        "any",
        "--authentication",
        "anonymous",
        "--body-bytes",
        "10",
    ];
    server.site.json(&respond);
    let post = |size: usize| {
        let body = "x".repeat(size);
        let url = format!("http://{}/r", server.public);
        let mut curl = std::process::Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", &body, &url]);
        String::from_utf8(curl.output().unwrap().stdout).unwrap()
    };
    assert_eq!((post(10), post(11)), ("200".into(), "413".into()));
    server.site.json(&["resource", "edit", "r", "--body-bytes", "default"]);
    assert_eq!(post(11), "200");
}
