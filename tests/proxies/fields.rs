//! Header fields and trailers of a client that an application could believe.

use crate::{boundaries::Fixture, program::Kind, upstream::find};

/// Fields with which a client could name another request, address or user than those that Keyward
/// decided about. No proxy passes any of them on.
const FORGED: &[&str] = &[
    // The path, the method and the host.
    "X-Original-Method",
    "X-Original-Host",
    "X-Original-URL",
    "X-Original-URI",
    "X-Rewrite-URL",
    "X-Override-URL",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-HTTP-Host-Override",
    "X-Host",
    "X-Forwarded-Path",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Envoy-Original-Path",
    // The address, the scheme and the port.
    "Forwarded",
    "X-Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Scheme",
    "X-Forwarded-Ssl",
    "X-Forwarded-By",
    "X-Scheme",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Originating-IP",
    "X-Remote-IP",
    "X-Remote-Addr",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Fastly-Client-IP",
    "X-Envoy-External-Address",
    // The connection.
    "Proxy",
    "HTTP2-Settings",
    "Keep-Alive",
    // Names that CGI and its successors read as another name.
    "Transfer_Encoding",
    "Content_Length",
    "X_Forwarded_For",
    "X_Real_IP",
    "X_HTTP_Method_Override",
    "API_KEY",
    "X_Keyward_User",
    "X-Keyward_Roles",
    "X.Keyward.User",
    // The identity.
    "X-Keyward-User",
    "X-Keyward-User-Id",
    "X-Keyward-Roles",
    "X-Keyward-Key-Id",
    "X-Keyward-Application",
    "X-Keyward-Scopes",
    "X-Keyward-Uri",
    "X-Keyward-Status",
    "X-Keyward-Body",
];

const IDENTITY: [&str; 5] = [
    "X-Keyward-User",
    "X-Keyward-User-Id",
    "X-Keyward-Roles",
    "X-Keyward-Key-Id",
    "X-Keyward-Application",
];

impl Fixture {
    pub async fn forged_fields_do_not_reach_the_application(&self) {
        let kind = self.program.kind;
        // In several requests, because some proxies accept only 100 fields.
        for names in FORGED.chunks(30) {
            let forged: String = names.iter().map(|name| format!("{name}: forged\r\n")).collect();
            for (target, credential) in
                [("/secret/x", self.credential()), ("/public/x", String::new())]
            {
                let fields = format!("Host: api.example\r\n{credential}{forged}");
                let outcome = self.get(target, &fields).await;
                let head = &outcome.only_request().head;
                let passed: Vec<_> = head.lines().filter(|line| line.contains("forged")).collect();
                assert!(passed.is_empty(), "{kind:?} {target}: {passed:?}");
            }
        }
        // In other letters, and twice.
        for name in FORGED {
            let (lower, upper) = (name.to_lowercase(), name.to_uppercase());
            let fields = format!(
                "Host: api.example\r\n{}{lower}: forged\r\n{upper}: forged\r\n",
                self.credential()
            );
            let outcome = self.get("/secret/x", &fields).await;
            let passed = outcome.recorded.iter().any(|request| request.head.contains("forged"));
            assert!(!passed, "{kind:?} {name}: {outcome:?}");
        }
    }

    pub async fn forwarded_fields_say_one_thing(&self) {
        let kind = self.program.kind;
        let forged = "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: other\r\n\
                      Forwarded: for=203.0.113.5;proto=https;host=other\r\n";
        for more in ["", forged] {
            let outcome = self.get("/public/x", &format!("Host: api.example\r\n{more}")).await;
            let request = outcome.only_request();
            assert_eq!(request.field("forwarded"), [""; 0], "{kind:?}");
            assert_eq!(request.field("x-forwarded-for"), ["127.0.0.1"], "{kind:?}");
            assert_eq!(request.field("x-forwarded-proto"), ["http"], "{kind:?}");
            assert_eq!(request.field("x-forwarded-host"), ["api.example"], "{kind:?}");
            assert_eq!(request.field("host"), ["api.example"], "{kind:?}");
            for address in [request.field("x-real-ip"), request.field("x-envoy-external-address")] {
                assert!(address.iter().all(|address| *address == "127.0.0.1"), "{kind:?}");
            }
        }
    }

    pub async fn connection_takes_nothing_away(&self) {
        let kind = self.program.kind;
        for nominated in [IDENTITY.join(", "), IDENTITY.join(",").to_lowercase()] {
            let fields =
                format!("Host: api.example\r\n{}Connection: {nominated}\r\n", self.credential());
            let outcome = self.get("/secret/x", &fields).await;
            let request = outcome.only_request();
            for name in IDENTITY {
                assert_eq!(request.field(name).len(), 1, "{kind:?} {name}: {request:?}");
            }
            // The next program must not take the fields away either.
            let connection = request.field("connection").concat().to_lowercase();
            assert!(!connection.contains("keyward"), "{kind:?} {request:?}");
        }
        // The credential does not pass because the client nominates it.
        for nominated in ["API-KEY", "api-key, AUTH-METHOD"] {
            let fields = format!(
                "Host: api.example\r\n{}AUTH-METHOD: default\r\nConnection: {nominated}\r\n",
                self.credential()
            );
            let outcome = self.get("/secret/x", &fields).await;
            for request in &outcome.recorded {
                assert!(!request.head.contains(&self.environment.ada), "{kind:?} {request:?}");
                assert_eq!(request.field("auth-method"), [""; 0], "{kind:?} {request:?}");
                assert_eq!(request.field("x-keyward-user"), ["ada"], "{kind:?} {request:?}");
            }
        }
    }

    pub async fn trailers_carry_no_identity(&self) {
        let kind = self.program.kind;
        for announced in ["", "Trailer: X-Keyward-Roles\r\n"] {
            let request = format!(
                "POST /secret/x HTTP/1.1\r\nHost: api.example\r\n{}Connection: close\r\n{announced}\
                 Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Keyward-Roles: administrator\r\n\r\n",
                self.credential()
            );
            let outcome = self.send(&request).await;
            let request = outcome.only_request();
            assert_eq!(request.field("x-keyward-roles"), ["writer"], "{kind:?} {request:?}");
            let passed = find(&request.body, b"administrator").is_some();
            // HAProxy before 3.2 cannot remove trailers, so the application must not read them as
            // header fields. It forwards them as trailers, and never announces them.
            assert!(!passed || kind == Kind::Haproxy, "{kind:?} {request:?}");
            assert!(kind != Kind::Haproxy || request.field("trailer").is_empty(), "{request:?}");
        }
    }
}
