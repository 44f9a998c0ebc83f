//! One corpus of requests, asked of every face: the server, the proxy, the layer, and each way in which another proxy asks.

mod changes;
pub mod corpus;
pub mod rig;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use corpus::{Asked, corpus, exchange, shown, verdict};
use http::Method;
use keyward::{
    Layer,
    handlers::{BodyLimits, Handlers},
    http::{Limits, Listener, Public, serve},
    model::Handler,
};
use rig::{House, PATIENCE, ask};
use serde_json::json;
use tokio::{net::TcpListener, sync::Semaphore};

/// The public listener of a house, believing proxies on this machine.
async fn listen(house: &House) -> SocketAddr {
    let handlers =
        Handlers::new(house.accounts.clone(), BodyLimits { bytes: 1 << 20, read: PATIENCE });
    let public = Public::new(house.gate.clone(), handlers, None);
    let public = public.trusting(["127.0.0.0/8".parse().unwrap()]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits {
        header_bytes: 16_384,
        headers: 100,
        header_read: PATIENCE,
        idle: PATIENCE,
        http2_streams: 16,
        drain: Duration::from_millis(100),
    };
    let connections = Arc::new(Semaphore::new(64));
    tokio::spawn(serve(
        Listener::Tcp(listener),
        limits,
        connections,
        public,
        std::future::pending(),
    ));
    address
}

/// An upstream that answers `in` to whatever comes whole.
async fn upstream() -> String {
    use axum::{Router, body::Bytes};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().fallback(async |_: Bytes| "in");
    tokio::spawn(async { axum::serve(listener, routes).await });
    url
}

/// A way in which a proxy asks: its name, the method of the question, and the fields that hold method, target and host.
struct Way {
    name: &'static str,
    fields: Option<[&'static str; 3]>,
}

const FORWARDED: Option<[&str; 3]> =
    Some(["x-forwarded-method", "x-forwarded-uri", "x-forwarded-host"]);
const WAYS: [Way; 7] = [
    Way { name: "", fields: FORWARDED },
    Way {
        name: "/nginx",
        fields: Some(["x-original-method", "x-original-uri", "x-original-host"]),
    },
    // As ingress-nginx has it: the target is a URL, with the host in it.
    Way { name: "/nginx", fields: Some(["x-original-method", "x-original-url", ""]) },
    Way { name: "/caddy", fields: FORWARDED },
    Way { name: "/traefik", fields: FORWARDED },
    Way { name: "/envoy", fields: None },
    Way { name: "/haproxy", fields: FORWARDED },
];

impl Way {
    /// Asks about a request, as this proxy does. What nginx cannot carry is put together again as its configuration does it.
    async fn verdict(&self, asked: &Asked, client: &str, address: SocketAddr) -> (u16, String) {
        let host = asked.headers.iter().find(|(name, _)| *name == "host");
        let host = host.map_or("api.example", |(_, value)| value);
        let (method, path) = (&asked.method, asked.path);
        let mut text = match self.fields {
            None => format!("{method} /-/verify/envoy{path} HTTP/1.1\r\nhost: {host}\r\n"),
            Some([method_in, target_in, host_in]) => {
                let head = format!("GET /-/verify{} HTTP/1.1\r\nhost: keyward\r\n", self.name);
                let said = format!("{head}{method_in}: {method}\r\n{target_in}: ");
                match host_in {
                    "" => format!("{said}http://{host}{path}\r\n"),
                    _ => format!("{said}{path}\r\n{host_in}: {host}\r\n"),
                }
            }
        };
        text += &format!("connection: close\r\nx-forwarded-for: {client}\r\n");
        for (name, value) in asked.headers.iter().filter(|(name, _)| *name != "host") {
            text += &format!("{name}: {value}\r\n");
        }
        let answer = exchange(address, &(text + "\r\n")).await;
        let (mut status, mut code) = verdict(&answer);
        if let Some(real) = answer.headers().get("x-keyward-status") {
            assert_eq!(self.name, "/nginx");
            assert!([401, 403].contains(&status), "{status}");
            status = real.to_str().unwrap().parse().unwrap();
            let body = answer.headers()["x-keyward-body"].as_bytes();
            let body: serde_json::Value = serde_json::from_slice(body).unwrap();
            code = corpus::code(&body);
        }
        (status, code)
    }
}

/// The credential of the corpus that is good in another network alone.
fn afar(corpus: &[Asked]) -> &str {
    let begins = STANDARD.encode("afar:k");
    let fields = corpus.iter().flat_map(|asked| &asked.headers);
    let mut values = fields.map(|(_, value)| value.as_str());
    values.find(|value| value.starts_with(&begins)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_corpus_gets_the_same_verdict_from_every_face() {
    let house = House::new().await;
    let address = listen(&house).await;

    let layer = Layer::new(house.gate.clone()).rewriting_paths();
    let strict = Layer::new(house.gate.clone());
    let (mut statuses, corpus) = (BTreeMap::<u16, usize>::new(), corpus(&house).await);
    let mut verdicts = Vec::new();
    for asked in &corpus {
        let by_server = shown(&asked.send(address).await);
        let (response, seen) = ask(&layer, asked.request()).await;
        let mut by_layer = shown(&response);
        if asked.method == Method::HEAD {
            // What the service has made for HEAD is for whoever writes it to the wire.
            by_layer[2] = json!("");
        }
        assert_eq!(by_layer, by_server, "{asked:?}");
        // Nothing gets to the service that was refused, but where a hook keeps its answer back.
        let is_kept = by_server[2].as_str().unwrap().contains("KEPT")
            || asked.method == Method::HEAD && asked.path.ends_with("secret");
        if !is_kept {
            assert_eq!(seen.lock().unwrap().len(), usize::from(response.status() == 200));
        }
        let (status, code) = verdict(&response);
        verdicts.push((status, if is_kept { "KEPT: Kept back.".to_owned() } else { code }));
        *statuses.entry(response.status().as_u16()).or_default() += 1;
        let (refused, _) = ask(&strict, asked.request()).await;
        if by_server != shown(&refused) && asked.method != Method::HEAD {
            let said = String::from_utf8_lossy(refused.body()).into_owned();
            assert!(said.contains("normal form"), "{asked:?} {said}");
        }
    }
    // Every reason is there that a face could lose on the way.
    for code in [
        "AUTHENTICATION_FAILED: Sorry, you are using an invalid API Key.",
        "AUTHENTICATION_FAILED: The API key has been revoked.",
        "AUTHENTICATION_FAILED: The API key has expired.",
        "CLOSED",
        "INVALID_API_KEY_FORMAT",
        "INVALID_APPLICATION_ID",
        "MISSING_API_KEY_HEADER",
        "RATE_LIMITED",
        "USER_BLOCKED",
        "USER_DOES_NOT_EXIST",
    ] {
        assert!(verdicts.iter().any(|(_, one)| one.starts_with(code)), "{code}");
    }

    let upstream = upstream().await;
    house.hand_over(&Handler::Proxy, &upstream).await;
    for (asked, expected) in corpus.iter().zip(&verdicts) {
        let (status, code) = verdict(&asked.send(address).await);
        assert_eq!(status, expected.0, "proxy {asked:?}");
        assert!(asked.method == Method::HEAD || code == expected.1, "proxy {code} {asked:?}");
    }

    house.hand_over(&Handler::Decide, "").await;
    for way in &WAYS {
        // No proxy asks with the body, and none shows the answer: what hooks say of these is for the other faces.
        let whole = |(asked, (_, code)): &(&Asked, &(u16, String))| {
            asked.path != "/said" && !code.starts_with("KEPT")
        };
        for (asked, expected) in corpus.iter().zip(&verdicts).filter(whole) {
            let (status, code) = way.verdict(asked, "127.0.0.1", address).await;
            let by = format!("{} {:?} {asked:?}", way.name, way.fields);
            assert_eq!(status, expected.0, "{by}");
            // What the others say to HEAD has no body.
            let is_silent = asked.method == Method::HEAD;
            assert!(is_silent || code == expected.1, "{code} {} {by}", expected.1);
        }
        // A key that is bound to networks is let in from where the proxy says that the client is.
        let afar = Asked::new(Method::GET, "/orders/7", &[("api-key", afar(&corpus))]);
        assert_eq!(way.verdict(&afar, "203.0.113.7", address).await.0, 200, "{}", way.name);
        assert_eq!(way.verdict(&afar, "198.51.100.7", address).await.0, 401, "{}", way.name);
    }
    assert!(corpus.len() > 500, "{}", corpus.len());
    for status in [200, 400, 401, 403, 404, 405, 406, 415, 429] {
        assert!(statuses.get(&status).is_some_and(|count| *count > 1), "{statuses:?}");
    }
}
