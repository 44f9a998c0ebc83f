//! One corpus through all faces: serve, decide in each dialect, proxy and layer come to the same verdict.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use keyward::{
    Layer,
    accounts::{AccountError, NewKey, NewUser},
    model::{Actor, Clock, RateLimit, Timestamp, User},
};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::corpus::{Asked, House, ask, corpus, exchange};

/// A way in which a request comes before the Gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Face {
    Serve,
    /// Asked by a proxy, at this place.
    Decide(&'static str),
    Proxy,
    Layer,
}

const FACES: [Face; 9] = [
    Face::Serve,
    Face::Decide(""),
    Face::Decide("/nginx"),
    Face::Decide("/caddy"),
    Face::Decide("/traefik"),
    Face::Decide("/envoy"),
    Face::Decide("/haproxy"),
    Face::Proxy,
    Face::Layer,
];

/// What was decided: the status, and which refusal it is. `HEAD` has no body to tell the second.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    status: u16,
    code: String,
}

impl Verdict {
    fn of(status: u16, body: &[u8]) -> Self {
        let told: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| told[name].as_str();
        let code = match (text("error"), text("error_description")) {
            // Says how long it takes, or in which field of the proxy's it stood.
            (Some(code @ ("RATE_LIMITED" | "BAD_REQUEST")), _) => code.to_owned(),
            (Some(code), Some(description)) => format!("{code}: {description}"),
            _ => text("message").unwrap_or_default().to_owned(),
        };
        Self { status, code }
    }

    /// nginx can carry two refusals; the true one is in fields.
    fn by_nginx(response: &Response<Bytes>) -> Self {
        let field = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
        match (field("x-keyward-status"), field("x-keyward-body")) {
            (Some(status), body) => {
                Self::of(status.parse().unwrap(), body.unwrap_or_default().as_bytes())
            }
            _ => Self::of(response.status().as_u16(), response.body()),
        }
    }
}

/// A world that is asked in one way. All worlds have the same keys: what one face uses up the others still have.
struct World {
    house: House,
    face: Face,
    address: SocketAddr,
    corpus: Vec<Asked>,
}

impl World {
    async fn new(face: Face) -> Self {
        let house = match face {
            Face::Proxy => House::in_front_of(application().await).await,
            _ => House::new().await,
        };
        let corpus = whole_corpus(&house).await;
        let (address, _) = house.listen().await;
        Self { house, face, address, corpus }
    }

    async fn verdict(&self, asked: &Asked) -> Verdict {
        match self.face {
            Face::Serve | Face::Proxy => {
                let response = asked.send(self.address).await;
                Verdict::of(response.status().as_u16(), response.body())
            }
            Face::Layer => {
                let layer = Layer::new(self.house.gate.clone())
                    .rewriting_paths()
                    .client_from(|_| Some("127.0.0.1".parse().unwrap()));
                let (response, _) = ask(&layer, asked.request()).await;
                Verdict::of(response.status().as_u16(), response.body())
            }
            Face::Decide(at) => self.asked_by_a_proxy(at, asked).await,
        }
    }

    /// As the shipped configurations have the proxies ask.
    async fn asked_by_a_proxy(&self, at: &str, asked: &Asked) -> Verdict {
        let request = asked.request();
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let mut fields: Vec<(&str, &str)> = request
            .headers()
            .iter()
            .filter(|(name, _)| *name != "host")
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        fields.push(("x-forwarded-for", "127.0.0.1"));
        let method = asked.method.as_str();
        let response = match at {
            "/envoy" => {
                fields.push(("host", &host));
                let target = format!("/-/verify/envoy{}", asked.path);
                exchange(self.address, method, &target, &fields, "").await
            }
            "/nginx" => {
                fields.extend([("host", "keyward"), ("x-original-method", method)]);
                fields.extend([("x-original-uri", asked.path), ("x-original-host", &*host)]);
                exchange(self.address, "GET", "/-/verify/nginx", &fields, "").await
            }
            _ => {
                fields.extend([("host", "keyward"), ("x-forwarded-method", method)]);
                fields.extend([("x-forwarded-uri", asked.path), ("x-forwarded-host", &*host)]);
                exchange(self.address, "GET", &format!("/-/verify{at}"), &fields, "").await
            }
        };
        Verdict::by_nginx(&response)
    }
}

/// Answers everything with `in`.
async fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(async |_: http::Request<Incoming>| {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("in"))))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// The corpus that serve and layer share, and keys in all the states that keys can be in.
async fn whole_corpus(house: &House) -> Vec<Asked> {
    let acting = house.accounts.acting(Actor::Program);
    let networks = |text: &str| vec![text.parse().unwrap()];
    let soon = Some(Timestamp(Clock::system().now().0 + 2));
    let made = [
        ("near", NewKey { networks: networks("127.0.0.0/8"), ..NewKey::default() }),
        ("far", NewKey { networks: networks("203.0.113.0/24"), ..NewKey::default() }),
        ("narrow", NewKey { scopes: Some(Vec::new()), ..NewKey::default() }),
        ("thrice", NewKey { rate_limit: RateLimit::parse("", "3/1h").ok(), ..NewKey::default() }),
        ("revoked", NewKey::default()),
        ("blocked", NewKey::default()),
        ("expired", NewKey { expires: soon, ..NewKey::default() }),
    ];
    let mut all = corpus(house);
    for (name, key) in made {
        let roles = vec!["reader".to_owned()];
        let new = NewUser { name: name.into(), status: true, roles, ..NewUser::default() };
        let uid = acting.create_user(new).await.unwrap().record.uid;
        let issued = acting.issue_key(uid, key).await.unwrap();
        if name == "revoked" {
            acting.revoke_key(issued.key.record.id).await.unwrap();
        }
        if name == "blocked" {
            let block = |user: &mut User| -> Result<(), AccountError> {
                user.status = false;
                Ok(())
            };
            acting.change_user(uid, None, block).await.unwrap();
        }
        let credential = STANDARD.encode(format!("{name}:{}", issued.text.expose()));
        for path in ["/orders/7", "/orders/closed", "/news", "/nowhere", "/orders/%zz", "//data"] {
            for method in [Method::GET, Method::POST] {
                all.push(Asked::new(method, path, &[("api-key", credential.as_str())]));
            }
        }
    }
    all
}

/// What a proxy asks has no body and no answer yet: what a script decides by them is not asked about there.
fn is_about_bodies(asked: &Asked) -> bool {
    asked.path == "/said" || asked.path == "/orders/secret"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_faces_come_to_one_verdict() {
    let made: Vec<_> = FACES.into_iter().map(|face| tokio::spawn(World::new(face))).collect();
    let mut worlds = Vec::new();
    for world in made {
        worlds.push(world.await.unwrap());
    }
    // One of the keys is good for two seconds.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let (first, others) = worlds.split_first().unwrap();
    let mut seen = BTreeMap::<(u16, String), usize>::new();
    for (at, asked) in first.corpus.iter().enumerate() {
        let expected = first.verdict(asked).await;
        for world in others {
            if matches!(world.face, Face::Decide(_)) && is_about_bodies(asked) {
                continue;
            }
            let said = world.verdict(&world.corpus[at]).await;
            let is_alike = said.status == expected.status
                && (asked.method == Method::HEAD || said.code == expected.code);
            assert!(is_alike, "{:?} {asked:?}: {said:?}, and {expected:?} by serve", world.face);
        }
        *seen.entry((expected.status, expected.code)).or_default() += 1;
    }
    assert!(first.corpus.len() > 800, "{}", first.corpus.len());
    let statuses: BTreeSet<u16> = seen.keys().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [200, 400, 401, 403, 404, 405, 406, 415, 429].into(), "{seen:?}");
    for code in [
        "AUTHENTICATION_FAILED: Sorry, you are using an invalid API Key.",
        "AUTHENTICATION_FAILED: The API key has been revoked.",
        "AUTHENTICATION_FAILED: The API key has expired.",
        "CLOSED: Closed.",
        "RATE_LIMITED",
        "USER_BLOCKED",
        "USER_DOES_NOT_EXIST",
    ] {
        assert!(seen.keys().any(|(_, said)| said.starts_with(code)), "{code} {seen:?}");
    }
}
