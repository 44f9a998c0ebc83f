//! Tests of the three transports to the API: in-process, TCP and Unix socket. All transports must
//! send the same requests and return the same responses.

use std::{convert::Infallible, time::Duration};

use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};

use super::fake::{Fake, KEY, run_with};
use crate::{
    cli::client::{
        AdminClient,
        local::{InProcessApi as _, LocalApi},
        remote::RemoteServer,
    },
    config::ListenAddress,
    handlers::PayloadResponse,
    model::Secret,
};

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, fake: Fake) {
    let service = service_fn(async |request: http::Request<Incoming>| {
        let (parts, body) = request.into_parts();
        assert!(parts.headers.contains_key("host"));
        let body = body.collect().await.unwrap().to_bytes();
        Ok::<PayloadResponse, Infallible>(fake.respond(&parts, body).await)
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

pub async fn over_tcp(fake: Fake) -> ListenAddress {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, fake.clone()));
        }
    });
    ListenAddress::Tcp(address)
}

async fn over_unix_socket(fake: Fake, folder: &std::path::Path) -> ListenAddress {
    let path = folder.join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, fake.clone()));
        }
    });
    ListenAddress::Unix(path)
}

#[tokio::test]
async fn all_transports_give_the_same_output() {
    let folder = tempfile::tempdir().unwrap();
    let admin = json!({ "uid": 1, "name": "admin", "active": true });
    let fake = Fake::default();
    let tcp = over_tcp(fake.clone()).await;
    let socket = over_unix_socket(fake.clone(), folder.path()).await;
    let clients = |key: &str| {
        let key = || Secret::new(key);
        [
            AdminClient::new(LocalApi(fake.clone()), key()),
            AdminClient::new(RemoteServer::new(tcp.clone()), key()),
            AdminClient::new(RemoteServer::new(socket.clone()), key()),
        ]
    };
    let commands: [(&[&str], u8); 5] = [
        (&["user", "list"], 0),
        (&["user", "edit", "admin", "--no-password"], 0),
        (&["user", "add", "bad"], 4),
        (&["user", "show", "nobody"], 3),
        (&["user", "delete", "--uid", "9", "--yes"], 3),
    ];
    for (args, exit) in commands {
        let mut outputs = Vec::new();
        for client in clients(KEY) {
            // A change by one client must not be there for the next one.
            fake.0.lock().records.insert("users/1".into(), admin.clone());
            let ran = run_with(client, args).await;
            assert_eq!(ran.exit(), exit, "{args:?}: {ran:?}");
            outputs.push((ran.out, ran.err));
        }
        assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]), "{outputs:?}");
    }
    // The fake API refuses other keys.
    for client in clients("kwop_other") {
        let ran = run_with(client, &["user", "list"]).await;
        assert_eq!(ran.exit(), 4);
        assert!(!format!("{:?}", ran.result).contains("kwop_other"));
    }
}

#[tokio::test]
async fn silent_or_missing_server_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ListenAddress::Tcp(listener.local_addr().unwrap());
    let client = |timeout| {
        AdminClient::new(RemoteServer::new(address.clone()).with_timeout(timeout), Secret::new(KEY))
    };
    // The server accepts the connection and does not respond.
    let ran = run_with(client(Duration::from_millis(50)), &["user", "add", "bob"]).await;
    assert_eq!(ran.exit(), 5);
    assert!(ran.result.unwrap_err().to_string().contains("not known whether"));
    let ran = run_with(client(Duration::from_millis(50)), &["user", "list"]).await;
    assert!(!ran.result.unwrap_err().to_string().contains("not known whether"));
    drop(listener);
    let ran = run_with(client(Duration::from_secs(5)), &["user", "list"]).await;
    assert_eq!(ran.exit(), 5);
    assert!(ran.result.unwrap_err().to_string().contains("no server responds"));
}

#[tokio::test]
async fn responses_of_other_servers_are_errors() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ListenAddress::Tcp(listener.local_addr().unwrap());
    tokio::spawn(async move {
        for response in [
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>",
            "SSH-2.0-OpenSSH_9.6\r\n",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Reads the whole request (one small packet), because closing with unread data resets
            // the connection.
            let _ = stream.read(&mut [0; 4096]).await;
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    });
    for exit in [1, 1, 1, 5] {
        let client = AdminClient::new(RemoteServer::new(address.clone()), Secret::new(KEY));
        let ran = run_with(client, &["user", "list"]).await;
        assert_eq!((ran.exit(), ran.out.as_str()), (exit, ""), "{ran:?}");
    }
}
