//! Tests of responses with an empty body: no handler's response is taken for hyper's rejection of a
//! malformed request.

use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::server::tests::{
    support::{TestResponse, TestServer},
    upstream::{Protocol, upstream_with},
};

/// The statuses with which a response may have an empty body.
const STATUSES: [u16; 12] = [200, 204, 400, 401, 403, 404, 408, 414, 431, 500, 501, 503];

/// An upstream that responds with the status in the path, without fields and body.
async fn empty_upstream(protocol: Protocol) -> String {
    let respond = |request: Request<Incoming>| async move {
        let status = request.uri().path().rsplit('/').next().unwrap().parse().unwrap();
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok::<_, std::convert::Infallible>(response)
    };
    let upstream = upstream_with(move |stream, _| async move {
        let (io, service) = (TokioIo::new(stream), service_fn(respond));
        let _ = match protocol {
            Protocol::Http1 => {
                hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
            }
            Protocol::Http2 => {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                builder.serve_connection(io, service).await
            }
        };
    });
    upstream.await.url()
}

#[tokio::test]
async fn empty_response_of_every_handler_reaches_the_client() {
    let script = "fn handle(req, identity) { respond(parse_int(req.path.sub_string(8)), ()) }";
    let mut resources = Vec::new();
    for (id, protocol) in [("http1", Protocol::Http1), ("http2", Protocol::Http2)] {
        let upstreams = [empty_upstream(protocol).await];
        let path = format!("/{id}/{{status}}");
        resources.push(json!({ "id": id, "handler": "proxy", "path": path,
            "proxy": { "upstreams": upstreams, "protocol": id } }));
    }
    resources
        .push(json!({ "id": "script", "handler": "script:empty", "path": "/script/{status}" }));
    for status in STATUSES {
        let respond = json!({ "status": status, "content_type": "text/plain", "body": "" });
        let (id, path) = (format!("respond{status}"), format!("/respond/{status}"));
        resources.push(json!({ "id": id, "handler": "respond", "path": path, "respond": respond }));
    }
    let server = TestServer::new(&resources).await;
    let scripts = tempfile::tempdir().unwrap();
    std::fs::create_dir(scripts.path().join("handlers")).unwrap();
    std::fs::write(scripts.path().join("handlers/empty.rhai"), script).unwrap();
    let (limits, secrets) = Default::default();
    server.accounts.load_scripts(scripts.path(), limits, secrets, None).unwrap();
    for source in ["respond", "script", "http1", "http2"] {
        for status in STATUSES {
            let path = format!("/{source}/{status}");
            let response = server.ask("GET", &path, "", "").await;
            assert_eq!((response.status, &*response.body), (status, &b""[..]), "{path}");
            // The next requests come before the response was written.
            let request = |more: &str| {
                format!(
                    "GET {path} HTTP/1.1\r\nHost: api.example\r\nAPI-KEY: {}\r\n{more}\r\n",
                    server.ada_credential
                )
            };
            let close = "Connection: close\r\n";
            let text = [request(""), request(""), request(close)].concat();
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut text = String::new();
            timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
            assert_eq!(statuses(&text), [status; 3], "{path}: {text}");
        }
    }
    // A malformed request still gets a body.
    let response: TestResponse = server.send(b"GET /\r\n\r\n").await;
    assert_eq!((response.status, response.json()["error"].as_str()), (400, Some("BAD_REQUEST")));
}
