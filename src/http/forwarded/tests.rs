//! Tests of the reports of trusted proxies.

use super::*;

fn networks() -> Vec<IpNet> {
    ["127.0.0.0/8", "::1/128", "10.0.0.0/8"].map(|text| text.parse().unwrap()).into()
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// The client that these fields report.
fn client_of(fields: &[(&'static str, &str)]) -> Result<String, ReportError> {
    let found = client(&headers(fields), &networks())?;
    Ok(found.map_or_else(|| "none".into(), |address| address.to_string()))
}

#[test]
fn client_is_the_last_address_that_is_not_a_trusted_proxy() {
    let client = |chain: &[&str]| {
        let fields: Vec<_> = chain.iter().map(|value| ("x-forwarded-for", *value)).collect();
        client_of(&fields)
    };
    assert_eq!(client(&["1.1.1.1, 203.0.113.7, 10.1.1.1"]).as_deref(), Ok("203.0.113.7"));
    assert_eq!(client(&["junk, 203.0.113.7"]).as_deref(), Ok("203.0.113.7"));
    assert_eq!(client(&["1.1.1.1", "203.0.113.7,127.0.0.1"]).as_deref(), Ok("203.0.113.7"));
    assert_eq!(client(&["10.0.0.2, 127.0.0.1"]).as_deref(), Ok("10.0.0.2"));
    assert_eq!(client(&["[2001:db8::1]:443"]).as_deref(), Ok("2001:db8::1"));
    assert_eq!(client(&["\"[2001:db8::1]:443\""]).as_deref(), Ok("2001:db8::1"));
    assert_eq!(client(&["203.0.113.7:5555"]).as_deref(), Ok("203.0.113.7"));
    assert_eq!(client(&["::ffff:203.0.113.7"]).as_deref(), Ok("203.0.113.7"));
    assert_eq!(client(&["203.0.113.7, ::ffff:10.0.0.1"]).as_deref(), Ok("203.0.113.7"));
    assert_eq!(client(&[]).as_deref(), Ok("none"));
    for bad in ["", "unknown", "_hidden", "203.0.113.7, ", "junk, 127.0.0.1", "\"203.0.113.7"] {
        assert_eq!(client(&[bad]), Err(ReportError::Malformed("x-forwarded-for")), "{bad}");
    }
}

#[test]
fn forwarded_names_the_client_by_the_same_rule() {
    let client = |values: &[&str]| {
        let fields: Vec<_> = values.iter().map(|value| ("forwarded", *value)).collect();
        client_of(&fields)
    };
    for (value, expected) in [
        ("for=1.1.1.1, for=203.0.113.7;proto=https, for=10.1.1.1", "203.0.113.7"),
        ("For=\"[2001:db8::1]:443\"", "2001:db8::1"),
        ("for=\"203.0.113.7:5555\"", "203.0.113.7"),
        ("for=unknown, for=203.0.113.7", "203.0.113.7"),
        ("for=10.0.0.2, for=127.0.0.1", "10.0.0.2"),
        ("for=\"::ffff:203.0.113.7\"", "203.0.113.7"),
        ("by=x;for=203.0.113.7", "203.0.113.7"),
        ("", "none"),
    ] {
        assert_eq!(client(&[value]).as_deref(), Ok(expected), "{value}");
    }
    assert_eq!(client(&["for=\"junk", "for=203.0.113.7"]).as_deref(), Ok("203.0.113.7"));
    for bad in [
        "for=unknown",
        "for=_hidden",
        "proto=https",
        "for=203.0.113.7, for=unknown",
        "for=203.0.113.7, proto=http",
        "for=\"203.0.113.7",
        "for=\"x, for=\"[2001:db8::1]\"",
        "for=1.1.1.1;for=203.0.113.7",
    ] {
        assert_eq!(client(&[bad]), Err(ReportError::Malformed("forwarded")), "{bad}");
    }
}

#[test]
fn both_fields_must_report_one_client() {
    let both = |list: &str, forwarded: &str| {
        client_of(&[("x-forwarded-for", list), ("forwarded", forwarded)])
    };
    let (client, other) = ("203.0.113.7", "for=203.0.113.8");
    assert_eq!(both(client, "for=203.0.113.7").as_deref(), Ok(client));
    assert_eq!(both("1.1.1.1, 203.0.113.7", "for=203.0.113.7").as_deref(), Ok(client));
    assert_eq!(both(client, other), Err(ReportError::Several("forwarded")));
    assert_eq!(both("junk", other), Err(ReportError::Malformed("x-forwarded-for")));
    assert_eq!(both(client, "for=unknown"), Err(ReportError::Malformed("forwarded")));
}

#[test]
fn report_contains_the_chain_and_the_request_of_the_client() {
    let peer = "127.0.0.1".parse().unwrap();
    let chain = |report: &Report<'_>| {
        let all = std::iter::once(&report.client).chain(&report.proxies);
        all.map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let listed = headers(&[
        ("x-forwarded-for", "1.1.1.1, 203.0.113.7, 10.0.0.1, 10.0.0.2"),
        ("x-forwarded-proto", "HTTPS"),
        ("x-forwarded-host", "shop.example:8443"),
        ("x-forwarded-port", "8443"),
        ("x-forwarded-prefix", "/shop/"),
    ]);
    let report = Report::of_proxy(&listed, peer, &networks()).unwrap();
    assert_eq!(chain(&report), "203.0.113.7 10.0.0.1 10.0.0.2 127.0.0.1");
    let Report { scheme, host, port, prefix, .. } = report;
    assert_eq!((scheme, host), (Some(UrlScheme::Https), Some("shop.example:8443")));
    assert_eq!((port, prefix), (Some(8443), Some("/shop")));

    let element = "for=203.0.113.7;host=shop.example;proto=https, for=10.0.0.1;proto=http";
    let described = headers(&[("forwarded", element)]);
    let report = Report::of_proxy(&described, peer, &networks()).unwrap();
    assert_eq!(chain(&report), "203.0.113.7 10.0.0.1 127.0.0.1");
    assert_eq!((report.scheme, report.host), (Some(UrlScheme::Https), Some("shop.example")));

    let nothing = HeaderMap::new();
    let none = Report::of_proxy(&nothing, peer, &networks()).unwrap();
    assert_eq!(none, Report::without_proxy(peer));
    let trusted_only = headers(&[("x-forwarded-for", "10.0.0.9")]);
    let report = Report::of_proxy(&trusted_only, peer, &networks()).unwrap();
    assert_eq!(chain(&report), "10.0.0.9 127.0.0.1");
}

#[test]
fn contradictions_and_unreadable_values_are_rejected() {
    let problem = |fields: &[(&'static str, &str)]| {
        let peer = "127.0.0.1".parse().unwrap();
        Report::of_proxy(&headers(fields), peer, &networks()).err()
    };
    for name in ["x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"] {
        let (one, other) = match name {
            "x-forwarded-proto" => ("https", "http"),
            "x-forwarded-host" => ("a.example", "b.example"),
            _ => ("443", "80"),
        };
        assert_eq!(problem(&[(name, one), (name, one)]), None, "{name}");
        assert_eq!(problem(&[(name, one), (name, other)]), Some(ReportError::Several(name)));
        let list = format!("{one}, {other}");
        assert_eq!(problem(&[(name, &list)]), Some(ReportError::Several(name)));
        assert_eq!(problem(&[(name, "")]), None, "{name}");
    }
    for (name, bad) in [
        ("x-forwarded-proto", "ftp"),
        ("x-forwarded-host", "a b"),
        ("x-forwarded-host", "a.example/x"),
        ("x-forwarded-port", "0"),
        ("x-forwarded-port", "65536"),
        ("x-forwarded-port", "+80"),
        ("x-forwarded-prefix", "shop"),
        ("x-forwarded-prefix", "//evil.example"),
        ("x-forwarded-prefix", "/a/../b"),
        ("x-forwarded-prefix", "/a?b"),
        ("x-forwarded-prefix", "/\\evil.example"),
    ] {
        assert_eq!(problem(&[(name, bad)]), Some(ReportError::Malformed(name)), "{bad}");
    }
    for (element, field) in [
        ("for=203.0.113.7;proto=http", ("x-forwarded-proto", "https")),
        ("for=203.0.113.7;host=a.example", ("x-forwarded-host", "b.example")),
    ] {
        let fields = [("forwarded", element), field];
        assert_eq!(problem(&fields), Some(ReportError::Several("forwarded")), "{element}");
    }
}
