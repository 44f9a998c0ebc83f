//! The requests on which all faces (see `tests/it/faces.rs`) must give the same verdict, and
//! functions that send a request over a socket.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::fixture::{Fixture, TIMEOUT};

/// A request of the corpus.
#[derive(Debug, Clone)]
pub struct TestRequest {
    pub method: Method,
    pub path: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: &'static str,
}

impl TestRequest {
    pub fn new(method: Method, path: &'static str, headers: &[(&'static str, &str)]) -> Self {
        let headers =
            headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect::<Vec<_>>();
        Self { method, path, headers, body: "" }
    }

    pub fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(&self.method).uri(self.path);
        if !self.headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "api.example");
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request.body(Full::new(Bytes::from(self.body))).unwrap()
    }

    /// Sends the request over a socket and returns the response.
    pub async fn send(&self, address: SocketAddr) -> Response<Bytes> {
        let request = self.request();
        let mut text = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", self.method, self.path);
        for (name, value) in request.headers() {
            text += &format!("{name}: {}\r\n", value.to_str().unwrap());
        }
        text += &format!("content-length: {}\r\n\r\n{}", self.body.len(), self.body);
        exchange(address, &text).await
    }
}

/// Sends a request as raw text, and reads the response to the end of the connection.
pub async fn exchange(address: SocketAddr, text: &str) -> Response<Bytes> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let mut response = Response::builder().status(&lines.next().unwrap()[9..12]);
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        response = response.header(name, value);
    }
    response.body(Bytes::from(body.to_owned())).unwrap()
}

/// The parts of a response that a client can see, except the date and the framing.
pub fn client_view(response: &Response<Bytes>) -> Value {
    let text = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
    let names = [
        "content-type",
        "www-authenticate",
        "allow",
        "cache-control",
        "vary",
        "x-keyward-hint",
        "x-denied-in",
        "x-responded",
    ];
    let headers: Vec<_> = names.iter().map(|name| text(name)).collect();
    json!([response.status().as_u16(), headers, String::from_utf8_lossy(response.body())])
}

/// More than 500 requests, which combine all paths, methods and kinds of credentials.
pub async fn corpus(fixture: &Fixture) -> Vec<TestRequest> {
    let restricted = fixture.restricted_credentials().await;
    let wrong = STANDARD.encode("ada:kw_wrong");
    let unknown = STANDARD.encode("eve:kw_wrong");
    let line_end = STANDARD.encode("ada:kw_wrong\n");
    let mistyped = STANDARD.encode("ada:kw_12345678_abcdefghijklmnopqrstuvwxyzABCDEFGHIJ");
    let mut credentials: Vec<Vec<(&str, &str)>> = vec![
        vec![],
        vec![("api-key", fixture.ada.as_str())],
        vec![("api-key", fixture.bob.as_str())],
        vec![("api-key", wrong.as_str())],
        vec![("api-key", unknown.as_str())],
        vec![("api-key", "!")],
        vec![("api-key", line_end.as_str())],
        vec![("api-key", mistyped.as_str())],
        vec![("authorization", "Bearer kw_wrong")],
        vec![("api-key", fixture.ada.as_str()), ("api-key", fixture.ada.as_str())],
        vec![("auth-method", "nothing"), ("api-key", fixture.ada.as_str())],
    ];
    credentials.extend(restricted.iter().map(|value| vec![("api-key", value.as_str())]));
    let paths = [
        "/orders/7",
        "/orders/7?_format=json",
        "/orders/closed",
        "/orders/secret",
        "/orders/",
        "/news",
        "/data?_format=xml",
        "/data",
        "/other",
        "/nowhere",
        "/buffered",
        "//orders//7",
        "/x/../orders/./7",
        "/%6frders/%37?a=%2e",
        "/orders/7%2f8",
        "/orders/7;a",
        "/orders/%zz",
        "/../orders/7",
        "/orders/%c3%bc",
    ];
    let mut all = Vec::new();
    for path in paths {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE, Method::OPTIONS] {
            for credential in &credentials {
                let request = TestRequest::new(method.clone(), path, credential);
                if path == "/data" || path == "/buffered" {
                    let mut with_body = request.clone();
                    with_body.headers.push(("content-type", "application/json".into()));
                    with_body.body = if path == "/buffered" { "please" } else { "{}" };
                    all.push(with_body);
                }
                all.push(request);
            }
        }
    }
    for host in ["other.example", "OTHER.example:80", "a b", ""] {
        let headers = [("host", host), ("api-key", fixture.ada.as_str())];
        all.push(TestRequest::new(Method::GET, "/other", &headers));
    }
    all
}

/// The status of a response, and its error code with the description.
pub fn verdict(response: &Response<Bytes>) -> (u16, String) {
    let body = serde_json::from_slice(response.body()).unwrap_or_default();
    (response.status().as_u16(), code(&body))
}

/// The error code of a denial with the description. If the denial has no code, returns the message.
/// If the body is not a denial, returns an empty text.
pub fn code(body: &Value) -> String {
    let text = |name: &str| body[name].as_str();
    match (text("error"), text("error_description")) {
        // The descriptions of these codes vary, because they name a number of seconds or the header
        // field of the proxy.
        (Some(code @ ("RATE_LIMITED" | "BAD_REQUEST")), _) => code.to_owned(),
        (Some(code), Some(description)) => format!("{code}: {description}"),
        (code, _) => code.or(text("message")).unwrap_or_default().to_owned(),
    }
}
