//! The requests that every face is asked, and how one of them is asked over a socket.

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

use super::rig::{House, PATIENCE};

/// A request of the corpus.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub path: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: &'static str,
}

impl Asked {
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

    /// The same over a socket; what came back, without the body of an answer to `HEAD`, which has none.
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

/// Sends a request as it stands, and reads the answer to the end of the connection.
pub async fn exchange(address: SocketAddr, text: &str) -> Response<Bytes> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let mut response = Response::builder().status(&lines.next().unwrap()[9..12]);
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        response = response.header(name, value);
    }
    response.body(Bytes::from(body.to_owned())).unwrap()
}

/// What a client can tell two answers apart by, beside the date and the framing.
pub fn shown(response: &Response<Bytes>) -> Value {
    let text = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
    let names = [
        "content-type",
        "www-authenticate",
        "allow",
        "cache-control",
        "x-keyward-hint",
        "x-refused-in",
        "x-answered",
    ];
    let headers: Vec<_> = names.iter().map(|name| text(name)).collect();
    json!([response.status().as_u16(), headers, String::from_utf8_lossy(response.body())])
}

/// Requests of all kinds: more than 500.
pub async fn corpus(house: &House) -> Vec<Asked> {
    let others = house.others().await;
    let wrong = STANDARD.encode("ada:kw_wrong");
    let unknown = STANDARD.encode("eve:kw_wrong");
    let mut credentials: Vec<Vec<(&str, &str)>> = vec![
        vec![],
        vec![("api-key", house.ada.as_str())],
        vec![("api-key", house.bob.as_str())],
        vec![("api-key", wrong.as_str())],
        vec![("api-key", unknown.as_str())],
        vec![("api-key", "!")],
        vec![("api-key", house.ada.as_str()), ("api-key", house.ada.as_str())],
        vec![("auth-method", "nothing"), ("api-key", house.ada.as_str())],
    ];
    credentials.extend(others.iter().map(|one| vec![("api-key", one.as_str())]));
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
        "/said",
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
                let one = Asked::new(method.clone(), path, credential);
                if path == "/data" || path == "/said" {
                    let mut more = one.clone();
                    more.headers.push(("content-type", "application/json".into()));
                    more.body = if path == "/said" { "please" } else { "{}" };
                    all.push(more);
                }
                all.push(one);
            }
        }
    }
    for host in ["other.example", "OTHER.example:80", "a b", ""] {
        let headers = [("host", host), ("api-key", house.ada.as_str())];
        all.push(Asked::new(Method::GET, "/other", &headers));
    }
    all
}

/// The status of an answer and its error code.
pub fn verdict(response: &Response<Bytes>) -> (u16, String) {
    let body = serde_json::from_slice(response.body()).unwrap_or_default();
    (response.status().as_u16(), code(&body))
}

/// The error code of a refusal's body with what it says, or its message where its form has no code; empty where it is no refusal's.
pub fn code(body: &Value) -> String {
    let text = |name: &str| body[name].as_str();
    match (text("error"), text("error_description")) {
        // Says how long it takes, or in which field of the proxy's it stood.
        (Some(code @ ("RATE_LIMITED" | "BAD_REQUEST")), _) => code.to_owned(),
        (Some(code), Some(description)) => format!("{code}: {description}"),
        (code, _) => code.or(text("message")).unwrap_or_default().to_owned(),
    }
}
