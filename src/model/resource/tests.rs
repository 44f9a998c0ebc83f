//! Tests of a resource's field checks and of its routes.

use super::*;

#[test]
fn shipped_resource_is_valid_and_has_two_routes() {
    let resource = Resource::entity_user();
    assert_eq!(resource.check(), []);
    let routes: Vec<_> = resource
        .routes()
        .into_iter()
        .map(|route| {
            let methods: Vec<_> = route.methods.into_iter().map(|(method, _)| method).collect();
            (route.path, methods.join(", "))
        })
        .collect();
    assert_eq!(
        routes,
        [
            ("/entity/user".to_owned(), "POST".to_owned()),
            ("/user/{user}".to_owned(), "GET, PATCH, DELETE".to_owned()),
        ]
    );
}

#[test]
fn disabled_or_incomplete_resource_has_no_route() {
    let mut disabled = Resource::entity_user();
    disabled.enabled = false;
    assert_eq!(disabled.routes(), []);
    for lacking in ["methods", "formats", "authentication"] {
        let mut resource = Resource::entity_user();
        let Rules::Resource { methods, formats, authentication, .. } = &mut resource.rules else {
            unreachable!()
        };
        match lacking {
            "methods" => methods.clear(),
            "formats" => formats.clear(),
            _ => authentication.clear(),
        }
        assert_eq!(resource.routes(), [], "{lacking}");
        assert_eq!(resource.check().len(), 1, "{lacking}");
    }
}

#[test]
fn only_normalised_patterns_are_accepted() {
    for good in ["/", "/a", "/a/", "/orders/{id}", "/files/{*rest}"] {
        assert_eq!(check_pattern(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "a",
        "//a",
        "/a//b",
        "/./a",
        "/a/../b",
        "/a;b",
        "/a%2fb",
        "/a b",
        "/é",
        "/-/verify",
        "/a\\b",
        "/{*a}/b",
        "/{a",
        "/a?b",
    ] {
        assert!(check_pattern(bad).is_err(), "{bad}");
    }
}

fn proxied(path: &str, proxy: Option<Proxy>) -> Resource {
    let mut resource = Resource::entity_user();
    let Rules::Resource { formats, .. } = &mut resource.rules else { unreachable!() };
    *formats = ["any".to_owned()].into();
    Resource { handler: Handler::Proxy, path: Some(path.into()), proxy, ..resource }
}

fn proxy_to(upstreams: &[&str]) -> Option<Proxy> {
    let upstreams = upstreams.iter().map(|one| (*one).to_owned()).collect();
    Some(Proxy { upstreams, ..Proxy::default() })
}

#[test]
fn proxy_without_upstream_has_no_route() {
    for lacking in [None, proxy_to(&[])] {
        let resource = proxied("/api/{*rest}", lacking);
        assert_eq!(resource.routes(), []);
        assert_eq!(resource.check(), proxied("/x", None).check());
        assert_eq!(resource.check()[0].location, "proxy.upstreams");
    }
    let complete = proxied("/api/{*rest}", proxy_to(&["http://127.0.0.1:9000"]));
    assert_eq!((complete.check(), complete.routes().len()), (vec![], 1));
    let other = Resource { proxy: complete.proxy, ..Resource::entity_user() };
    assert_eq!(other.check()[0].location, "proxy");
}

#[test]
fn upstream_must_be_a_url_without_userinfo_query_or_fragment() {
    let target = Target::parse("http://[::1]:9000/base/").unwrap();
    assert_eq!((&*target.host, target.port), ("::1", 9000));
    assert_eq!((&*target.authority, &*target.base), ("[::1]:9000", "/base"));
    assert_eq!(Target::parse("http://a").unwrap().port, 80);
    assert_eq!(target.transport, Transport::Clear);
    let safe = Target::parse("https://a/base").unwrap();
    assert_eq!((safe.transport, safe.port, &*safe.authority), (Transport::Tls, 443, "a"));
    for bad in [
        "",
        "a:80",
        "ftp://a",
        "http://",
        "http:///x",
        "http://a:0",
        "http://a:65536",
        "http://a:x",
        "http://u:p@a",
        "http://[::1",
        "http://[::1]x",
        "http://[a]",
        "http://a/b//c",
        "http://a/../b",
        "http://a/%2e",
        "http://a/b?c",
        "http://a/b#c",
        "http://a?b",
        "http://a b",
        "http://a/ü",
        "https://a..b",
        "https://u:p@a",
    ] {
        assert!(Target::parse(bad).is_err(), "{bad}");
    }
    let found = proxied("/x", proxy_to(&["http://user:hunter2@a"])).check();
    assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
}

#[test]
fn stripped_prefix_must_begin_the_pattern() {
    let strips = |path: &str, prefix: &str| {
        let settings = proxy_to(&["http://a"])
            .map(|proxy| Proxy { strip_prefix: Some(prefix.into()), ..proxy });
        proxied(path, settings).check().is_empty()
    };
    assert!(strips("/api/{*rest}", "/api"));
    assert!(strips("/api", "/api"));
    assert!(strips("/api/v1/{id}", "/api/v1"));
    for (path, bad) in [
        ("/api/{id}", "/ap"),
        ("/api/{id}", "/api/"),
        ("/api", "/other"),
        ("/api", "api"),
        ("/api/{id}", "/api/{id}"),
    ] {
        assert!(!strips(path, bad), "{path} {bad}");
    }
}

#[test]
fn upgrade_to_http_and_bad_names_are_refused() {
    let upgrades = |name: &str| {
        let settings = proxy_to(&["http://a"])
            .map(|proxy| Proxy { upgrades: [name.to_owned()].into(), ..proxy });
        proxied("/x", settings).check().is_empty()
    };
    assert!(upgrades("websocket") && upgrades("spdy/3.1"));
    for bad in ["h2c", "http/2.0", "tls/1.0", "", "WebSocket", "a b", "*"] {
        assert!(!upgrades(bad), "{bad}");
    }
    let settings = proxy_to(&["http://a"]).map(|proxy| Proxy { response_seconds: 0, ..proxy });
    assert_eq!(proxied("/x", settings).check()[0].location, "proxy.response_seconds");
}

#[test]
fn authorities_must_be_certificates() {
    let signed = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let (authority, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let reads = |ca: &str| {
        let settings = proxy_to(&["https://a"]).map(|proxy| Proxy { ca: Some(ca.into()), ..proxy });
        proxied("/x", settings).check()
    };
    let (one, many) = (&authority, authority.repeat(8));
    assert_eq!(reads(one), []);
    assert_eq!(reads(&format!("# Ours\n{one}{one}")), []);
    let (cut, both) = (&one[..one.len() / 2], format!("{one}{key}"));
    let none = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for bad in ["", "ca.pem", &key, &both, cut, none, &many] {
        let found = reads(bad);
        assert_eq!(found[0].location, "proxy.ca", "{bad}");
        assert!(!format!("{found:?}").contains(key.lines().nth(1).unwrap()), "a key is shown");
    }
}
