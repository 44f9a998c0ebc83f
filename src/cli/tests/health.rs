//! Tests of `keyward healthcheck`: exit code 0 or 1, and no key is sent.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

use crate::{
    cli::{
        Exit, Output, commands::healthcheck, instance::control_file::ControlFile, terminal::exit,
    },
    config::{Settings, load},
    model::Secret,
};

/// Starts a server that sends one response. Returns the server's address, and a task that returns
/// the request.
async fn server(response: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let request = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        stream.write_all(response.as_bytes()).await.unwrap();
        String::from_utf8(request[..length].to_vec()).unwrap()
    });
    (address, request)
}

fn settings(folder: &std::path::Path, admin: &str) -> Settings {
    let path = folder.join("keyward").display().to_string();
    let variables = [("KEYWARD_STORE__PATH", path.as_str()), ("KEYWARD_ADMIN__LISTEN", admin)];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    load(None, variables.into_iter()).unwrap().settings
}

const READY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
const UNREADY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}";

#[tokio::test]
async fn configured_address_gets_a_request_without_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let (address, request) = server(READY).await;
    healthcheck::run(&settings(folder.path(), &address), Output::Json).await.unwrap();
    let request = request.await.unwrap().to_lowercase();
    assert!(request.starts_with("get /health/ready http/1.1\r\n"), "{request}");
    assert!(!request.contains("authorization"), "{request}");
}

#[tokio::test]
async fn address_of_the_control_file_has_priority() {
    let folder = tempfile::tempdir().unwrap();
    let (address, request) = server(READY).await;
    let settings = settings(folder.path(), "127.0.0.1:1");
    let file = &settings.store.control_file;
    let _control =
        ControlFile::write(file, address, None, "-", None, &Secret::new("kwop_1")).unwrap();
    healthcheck::run(&settings, Output::Json).await.unwrap();
    assert!(!request.await.unwrap().contains("kwop_1"));
}

#[tokio::test]
async fn unready_or_missing_server_gives_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _request) = server(UNREADY).await;
    for address in [address.as_str(), "127.0.0.1:1"] {
        let settings = settings(folder.path(), address);
        let problem = healthcheck::run(&settings, Output::Table).await.unwrap_err();
        assert_eq!(exit::code(&problem), Exit::Failed, "{problem}");
    }
}
