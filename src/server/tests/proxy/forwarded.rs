//! Tests of what an upstream is told about the client, and of whose word counts.

use super::*;

/// The fields in which an upstream is told about the client.
const TOLD: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-real-ip",
    "forwarded",
];

/// A server that trusts these proxies. `more` contains settings of the handler `proxy`.
async fn start_trusting(upstream: &Upstream, trusted: &str, more: Value) -> TestServer {
    let trusted: Vec<ipnet::IpNet> =
        trusted.split_whitespace().map(|network| network.parse().unwrap()).collect();
    TestServer::with(&[resource_to(&[upstream], more)], |public| {
        public.with_trusted_proxies(trusted)
    })
    .await
}

/// The fields that the upstream got, with their values.
fn told(echo: &Value) -> Vec<String> {
    let values = TOLD.map(|name| (name, received(echo, name)));
    let present = values.into_iter().filter(|(_, values)| !values.is_empty());
    present.map(|(name, values)| format!("{name}: {}", values.join(" | "))).collect()
}

#[tokio::test]
async fn all_fields_say_one_thing_about_the_client_of_a_trusted_proxy() {
    let upstream = echo(Protocol::Http1).await;
    let server = start_trusting(&upstream, "127.0.0.0/8 10.0.0.0/8", json!({})).await;
    for (fields, expected) in [
        (
            "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\n",
            [
                "x-forwarded-for: 203.0.113.5, 127.0.0.1",
                "x-forwarded-proto: https",
                "x-forwarded-host: api.example",
                "x-forwarded-port: 443",
                "x-real-ip: 203.0.113.5",
                "forwarded: for=203.0.113.5;host=\"api.example\";proto=https, for=127.0.0.1",
            ]
            .as_slice(),
        ),
        (
            "Forwarded: for=\"[2001:db8::7]:9\";host=shop.example;proto=https, for=10.0.0.9\r\n",
            &[
                "x-forwarded-for: 2001:db8::7, 10.0.0.9, 127.0.0.1",
                "x-forwarded-proto: https",
                "x-forwarded-host: shop.example",
                "x-forwarded-port: 443",
                "x-real-ip: 2001:db8::7",
                "forwarded: for=\"[2001:db8::7]\";host=\"shop.example\";proto=https, for=10.0.0.9, for=127.0.0.1",
            ],
        ),
        (
            "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: wss\r\nX-Forwarded-Host: shop.example:8443\r\nX-Forwarded-Port: 99\r\nX-Forwarded-Prefix: /shop/\r\nForwarded: for=203.0.113.7\r\n",
            &[
                "x-forwarded-for: 203.0.113.7, 127.0.0.1",
                "x-forwarded-proto: https",
                "x-forwarded-host: shop.example:8443",
                "x-forwarded-port: 8443",
                "x-forwarded-prefix: /shop",
                "x-real-ip: 203.0.113.7",
                "forwarded: for=203.0.113.7;host=\"shop.example:8443\";proto=https, for=127.0.0.1",
            ],
        ),
        (
            "X-Forwarded-Port: 8080\r\nX-Real-IP: 9.9.9.9\r\n",
            &[
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-proto: http",
                "x-forwarded-host: api.example",
                "x-forwarded-port: 8080",
                "x-real-ip: 127.0.0.1",
                "forwarded: for=127.0.0.1;host=\"api.example\";proto=http",
            ],
        ),
    ] {
        let echo = server.ask("GET", "/api/x", fields, "").await.json();
        assert_eq!(told(&echo), expected, "{fields}");
    }
}

/// A client can send addresses through a proxy that appends to the field. An application that reads
/// the first address must not take them for the client.
#[tokio::test]
async fn addresses_before_the_client_are_not_passed_on() {
    let upstream = echo(Protocol::Http1).await;
    let server = start_trusting(&upstream, "127.0.0.1/32", json!({})).await;
    let fields = "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8, 203.0.113.5\r\n";
    let echo = server.ask("GET", "/api/x", fields, "").await.json();
    assert_eq!(received(&echo, "x-forwarded-for"), ["203.0.113.5, 127.0.0.1"]);
    assert!(!echo.to_string().contains("9.9.9.9") && !echo.to_string().contains("8.8.8.8"));
}

#[tokio::test]
async fn fields_of_an_untrusted_peer_do_not_count() {
    let upstream = echo(Protocol::Http1).await;
    let fields = "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n\
        X-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /evil\r\nX-Forwarded-Server: evil\r\nX-Forwarded: evil\r\nX_Forwarded_For: 6.6.6.6\r\n\
        Forwarded: for=203.0.113.9;host=evil.example;proto=https\r\nX-Real-IP: 9.9.9.9\r\n";
    for trusted in ["", "10.0.0.0/8"] {
        let server = start_trusting(&upstream, trusted, json!({})).await;
        let echo = server.ask("GET", "/api/x", fields, "").await.json();
        let expected = [
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            "x-forwarded-host: api.example",
            "x-forwarded-port: 80",
            "x-real-ip: 127.0.0.1",
            "forwarded: for=127.0.0.1;host=\"api.example\";proto=http",
        ];
        assert_eq!(told(&echo), expected, "{trusted}");
        for forged in ["evil", "203.0.113", "9.9.9.9", "6.6.6.6"] {
            assert!(!echo.to_string().contains(forged), "{trusted} {forged}: {echo}");
        }
        // Junk that would be a 400 from a trusted proxy does not matter.
        let junk = "X-Forwarded-For: junk\r\nForwarded: for=\"\r\nX-Forwarded-Proto: ftp\r\n";
        assert_eq!(server.ask("GET", "/api/x", junk, "").await.status, 200);
    }
}

#[tokio::test]
async fn unreadable_and_contradictory_reports_are_refused() {
    let upstream = echo(Protocol::Http1).await;
    let server = start_trusting(&upstream, "127.0.0.0/8", json!({})).await;
    for (fields, message) in [
        ("X-Forwarded-For: unknown", "x-forwarded-for cannot be read."),
        ("X-Forwarded-For: _hidden", "x-forwarded-for cannot be read."),
        ("X-Forwarded-For: 203.0.113.5,", "x-forwarded-for cannot be read."),
        ("Forwarded: for=unknown", "forwarded cannot be read."),
        ("Forwarded: proto=https", "forwarded cannot be read."),
        ("X-Forwarded-Proto: gopher", "x-forwarded-proto cannot be read."),
        ("X-Forwarded-Host: a/b", "x-forwarded-host cannot be read."),
        ("X-Forwarded-Port: http", "x-forwarded-port cannot be read."),
        ("X-Forwarded-Prefix: //evil.example", "x-forwarded-prefix cannot be read."),
        (
            "X-Forwarded-For: 203.0.113.5\r\nForwarded: for=203.0.113.6",
            "forwarded came more than once, or contradicts another header.",
        ),
        (
            "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http",
            "x-forwarded-proto came more than once, or contradicts another header.",
        ),
        (
            "X-Forwarded-Proto: https, http",
            "x-forwarded-proto came more than once, or contradicts another header.",
        ),
    ] {
        let response = server.ask("GET", "/api/x", &format!("{fields}\r\n"), "").await;
        assert_denied(&response, 400, "BAD_REQUEST");
        assert_eq!(response.json()["error_description"], message, "{fields}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn address_fields_of_other_programs_are_never_passed_on_or_believed() {
    let upstream = echo(Protocol::Http1).await;
    let names = [
        "True-Client-IP",
        "X-Client-IP",
        "CF-Connecting-IP",
        "CF-Connecting-IPv6",
        "X-Cluster-Client-IP",
        "Fastly-Client-IP",
        "X-Real-IP",
        "Client-IP",
        "Fly-Client-IP",
        "X-Originating-IP",
        "X-Remote-IP",
        "X-Remote-Addr",
        "Remote-Addr",
        "X-Azure-ClientIP",
        "X-Envoy-External-Address",
        "X-Original-Forwarded-For",
        "WL-Proxy-Client-IP",
        "X-Forwarded",
        "True_Client_IP",
        "x-client.ip",
        "Front-End-Https",
        "X-Scheme",
        "X-Url-Scheme",
    ];
    let fields: String = names.iter().map(|name| format!("{name}: 9.9.9.9\r\n")).collect();
    for trusted in ["", "127.0.0.0/8"] {
        let server = start_trusting(&upstream, trusted, json!({})).await;
        let echo = server.ask("GET", "/api/x", &format!("{fields}X-Mine: 1\r\n"), "").await.json();
        assert!(!echo.to_string().contains("9.9.9.9"), "{trusted}: {echo}");
        assert_eq!(received(&echo, "x-mine"), ["1"]);
    }
}

#[tokio::test]
async fn removed_prefix_is_told_to_the_upstream() {
    let upstream = echo(Protocol::Http1).await;
    let strips = json!({ "strip_prefix": "/api" });
    let server = start_trusting(&upstream, "127.0.0.0/8", strips).await;
    for (path, fields, prefix) in [
        ("/api/x", "", "/api"),
        ("/api/a/b", "", "/api"),
        ("/api/x", "X-Forwarded-Prefix: /shop\r\n", "/shop/api"),
        ("/api/x", "X-Forwarded-Prefix: /\r\n", "/api"),
    ] {
        let echo = server.ask("GET", path, fields, "").await.json();
        assert_eq!(received(&echo, "x-forwarded-prefix"), [prefix], "{path} {fields}");
    }
}

#[tokio::test]
async fn resource_chooses_the_fields() {
    let upstream = echo(Protocol::Http1).await;
    let fields =
        "X-Forwarded-For: 203.0.113.5\r\nForwarded: for=203.0.113.5\r\nX-Real-IP: 9.9.9.9\r\n";
    for (chosen, expected) in [
        (vec![], vec![]),
        (vec!["x-real-ip"], vec!["x-real-ip: 203.0.113.5"]),
        (
            vec!["x-forwarded-for", "x-forwarded-proto"],
            vec!["x-forwarded-for: 203.0.113.5, 127.0.0.1", "x-forwarded-proto: http"],
        ),
        (
            vec!["forwarded"],
            vec!["forwarded: for=203.0.113.5;host=\"api.example\";proto=http, for=127.0.0.1"],
        ),
    ] {
        let settings = json!({ "forwarded": chosen });
        let server = start_trusting(&upstream, "127.0.0.0/8", settings).await;
        let echo = server.ask("GET", "/api/x", fields, "").await.json();
        assert_eq!(told(&echo), expected, "{chosen:?}");
        assert!(!echo.to_string().contains("9.9.9.9"), "{echo}");
    }
}

#[tokio::test]
async fn client_cannot_nominate_a_field_away() {
    let upstream = echo(Protocol::Http1).await;
    let server = start_trusting(&upstream, "", json!({})).await;
    let text = format!(
        "GET /api/x HTTP/1.1\r\nHost: api.example\r\nConnection: close, X-Forwarded-For, X-Real-IP, Forwarded\r\nAPI-KEY: {}\r\n\r\n",
        server.ada_credential
    );
    let echo = server.send(text.as_bytes()).await.json();
    assert_eq!(received(&echo, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received(&echo, "x-real-ip"), ["127.0.0.1"]);
    assert_eq!(received(&echo, "forwarded").len(), 1);
}

/// A proxy that forwards connections writes no header fields: with a PROXY header that names no
/// client, they are those of an unknown client.
#[tokio::test]
async fn header_fields_count_behind_the_proxy_protocol_only_if_the_named_client_is_trusted() {
    use crate::server::Listener;
    let upstream = echo(Protocol::Http1).await;
    let loopback: ipnet::IpNet = "127.0.0.0/8".parse().unwrap();
    let nginx: ipnet::IpNet = "10.0.0.0/8".parse().unwrap();
    let server = TestServer::with_listener(
        |socket| Listener::from(socket).with_proxy_protocol([loopback]),
        &[resource_to(&[&upstream], json!({}))],
        |public| public.with_trusted_proxies([loopback, nginx]),
    )
    .await;
    for (header, client) in [
        ("PROXY TCP4 198.51.100.1 127.0.0.1 5555 80", "198.51.100.1"),
        ("PROXY TCP4 10.0.0.2 127.0.0.1 5555 80", "203.0.113.5, 10.0.0.2"),
        ("PROXY UNKNOWN", "127.0.0.1"),
    ] {
        let text = format!(
            "{header}\r\nGET /api/x HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.5\r\nAPI-KEY: {}\r\n\r\n",
            server.ada_credential
        );
        let echo = server.send(text.as_bytes()).await.json();
        assert_eq!(received(&echo, "x-forwarded-for"), [client], "{header}");
    }
}
