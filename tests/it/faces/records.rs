//! Resources of the tests in this folder, and an upstream that repeats what it gets.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use keyward::{
    GuardLayer,
    accounts::AccountError,
    model::{Actor, Resource},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    corpus::exchange,
    fixture::{Fixture, send_through},
};

/// Creates a resource, or replaces it. Fields that are missing have usual values.
pub async fn put(fixture: &Fixture, mut record: Value) {
    let mut defaults = json!({
        "enabled": true,
        "granularity": "resource",
        "methods": ["GET"],
        "formats": ["any"],
        "authentication": ["*"],
    });
    match record["handler"].as_str() {
        Some("respond") => {
            defaults["respond"] =
                json!({ "status": 200, "content_type": "text/plain", "body": "in" });
        }
        Some("proxy") => assert!(record["proxy"].is_object(), "{record}"),
        _ => {}
    }
    for (name, value) in defaults.as_object().unwrap() {
        record.as_object_mut().unwrap().entry(name).or_insert(value.clone());
    }
    let record: Resource = serde_json::from_value(record).unwrap();
    let writer = fixture.accounts.as_actor(Actor::Program);
    if fixture.accounts.get::<Resource>(&record.id).unwrap().is_none() {
        writer.create(record).await.unwrap();
        return;
    }
    let change = |resource: &mut Resource| {
        *resource = record.clone();
        Ok::<_, AccountError>(())
    };
    writer.change(&record.id, None, change).await.unwrap();
}

/// The handlers of the faces that serve requests themselves, each with its settings.
pub fn served(upstream: &str) -> [Value; 2] {
    let proxy = json!({ "upstreams": [upstream], "preserve_host": true });
    [json!({ "handler": "respond" }), json!({ "handler": "proxy", "proxy": proxy })]
}

/// A record with the fields of both.
pub fn merged(record: &Value, fields: &Value) -> Value {
    let mut merged = record.clone();
    merged.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    merged
}

/// Starts an upstream that responds with the method, the target and the header fields that it got.
pub async fn echo() -> String {
    use axum::{Router, extract::Request, response::IntoResponse};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let respond = async |request: Request| {
        let (parts, _) = request.into_parts();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers: BTreeMap<String, String> =
            parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let seen = json!({
            "method": parts.method.as_str(),
            "target": parts.uri.to_string(),
            "headers": headers,
        });
        seen.to_string().into_response()
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(respond)).await });
    url
}

/// Sends a request as text.
pub async fn send(
    address: SocketAddr,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> Response<Bytes> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    exchange(address, &(text + "\r\n")).await
}

/// Sends a request through a layer. Returns the response, and the request that the service got:
/// its method is not known, its target and its host are.
pub async fn send_to_layer(
    layer: &GuardLayer,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> (Response<Bytes>, Option<(String, String)>) {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let request = request.body(Full::default()).unwrap();
    let (response, received) = send_through(layer, request).await;
    let received = received.lock().unwrap();
    let seen = received.first().map(|(_, uri, headers, _)| {
        let host = headers.get("host").map(|host| host.to_str().unwrap().to_owned());
        (uri.to_string(), host.unwrap_or_default())
    });
    drop(received);
    (response, seen)
}
