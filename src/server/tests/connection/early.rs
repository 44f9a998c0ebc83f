//! Tests of responses that come before the request's body was read, with the real curl.

use std::process::{Command, Stdio};

use serde_json::json;
use tokio::task::spawn_blocking;

use crate::server::tests::support::TestServer;

/// The status that curl sees.
async fn curl(server: &TestServer, version: &str, path: &str, body: &std::path::Path) -> String {
    let url = format!("http://{}{path}", server.address);
    let data = format!("@{}", body.display());
    let format = "%{http_code}";
    let arguments = [version, "-s", "-m", "20", "-o", "/dev/null", "-w", format];
    let credential = format!("API-KEY: {}", server.ada_credential);
    let header = ["-H", &credential, "--data-binary", &data];
    let mut command = Command::new("curl");
    command.args(arguments).args(header).arg(url).stdin(Stdio::null());
    let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn early_response_reaches_curl() {
    let respond = json!({ "status": 200, "content_type": "text/plain", "body": "ok" });
    let server = TestServer::new(&[
        json!({ "id": "x", "handler": "respond", "path": "/x", "respond": respond }),
        json!({ "id": "closed", "handler": "respond", "path": "/closed",
                "permissions": { "POST": ["write"] } }),
    ])
    .await;
    let folder = tempfile::tempdir().unwrap();
    for (size, times) in [(1, 20), (900_000, 20), (3_000_000, 5)] {
        let body = folder.path().join("body");
        std::fs::write(&body, vec![b'x'; size]).unwrap();
        for version in ["--http2-prior-knowledge", "--http1.1"] {
            let accepted = if size > 1 << 20 { "413" } else { "200" };
            for (path, status) in [("/x", accepted), ("/closed", "403"), ("/none", "404")] {
                for number in 0..times {
                    let seen = curl(&server, version, path, &body).await;
                    assert_eq!(seen, status, "{version} {path} {size} {number}");
                }
            }
        }
    }
}
