//! Tests of the listeners' settings: trusted proxies, identity header fields, TLS and ports.

use super::*;
use crate::tls::ClientAuth;

#[test]
fn trusted_proxies_are_addresses_and_networks() {
    let trusted = |text: &str| {
        let loaded = load_text(format!("[server]\ntrusted_proxies = {text:?}\n"), &[]);
        let text = |network: &ipnet::IpNet| network.to_string();
        loaded.map(|loaded| {
            loaded.settings.server.trusted_proxies.iter().map(text).collect::<Vec<_>>()
        })
    };
    assert_eq!(trusted(""), Ok(vec![]));
    let networks = ["10.0.0.5/32", "192.168.0.0/16", "::1/128"].map(str::to_owned);
    assert_eq!(trusted(" 10.0.0.5,192.168.0.0/16 , ::1"), Ok(networks.to_vec()));
    let expected = "config.toml:2: server.trusted_proxies: The value is not a list of addresses and networks. Use addresses and \
                networks with commas between them, such as 10.0.0.5, 192.168.0.0/16, ::1, or \"\" for none.";
    for bad in ["localhost", "10.0.0.0/33", "10.0.0.1 10.0.0.2", "*", "10.0.0.1:80"] {
        assert_eq!(trusted(bad), Err(expected.into()), "{bad}");
    }
}

#[test]
fn identity_field_has_a_free_and_unique_name() {
    let user = |text: &str| load_text(format!("[identity]\nuser = {text:?}\n"), &[]);
    assert_eq!(user("Remote-User").unwrap().settings.identity.user, "remote-user");
    let expected = "config.toml:2: identity.user: The value cannot be the name of an identity header field. \
                Use letters, digits and hyphens, such as X-Keyward-User, and no name that has another meaning in HTTP.";
    for bad in
        ["", "a b", "X_User", "Host", "authorization", "X-Forwarded-User", "X-Real-IP", "ü", "a:b"]
    {
        assert_eq!(user(bad).unwrap_err(), expected, "{bad}");
    }
    let expected = "config.toml:2: identity.user: Two identity header fields have the same name. Give each field a different name.";
    assert_eq!(user("x-keyward-ROLES").unwrap_err(), expected);
}

#[test]
fn other_tls_keys_need_a_certificate() {
    let tls = |text: &str| {
        load_text(format!("[server]\n{text}\n"), &[]).map(|loaded| loaded.settings.server.tls)
    };
    assert_eq!(tls(""), Ok(None));
    let alone = tls("tls_certificate = \"/one.pem\"").unwrap().unwrap();
    assert_eq!((alone.certificate, alone.key), ("/one.pem".into(), "/one.pem".into()));
    assert_eq!(alone.clients, ClientAuth::Unrequested);
    let certificates = "tls_certificate = \"/one.pem\"\ntls_client_ca = \"/ca.pem\"";
    let with_ca = tls(certificates).unwrap().unwrap();
    assert_eq!(with_ca.clients, ClientAuth::Required("/ca.pem".into()));
    let expected = "config.toml:2: server.tls_key: Without a certificate, the listener has no TLS and this key has no effect. Set server.tls_certificate too, or leave this key empty.";
    assert_eq!(tls("tls_key = \"key.pem\"").unwrap_err(), expected);
    let expected = "config.toml:2: server.tls_client_ca: Without a certificate, the listener has no TLS and this key has no effect. Set server.tls_certificate too, or leave this key empty.";
    assert_eq!(tls("tls_client_ca = \"/ca.pem\"").unwrap_err(), expected);
    let expected = "config.toml:2: server.tls_client_certificates: The value is not one of the choices. Use \"required\" or \"optional\".";
    assert_eq!(tls("tls_client_certificates = \"none\"").unwrap_err(), expected);
}

#[test]
fn admin_listener_with_tls_needs_a_socket_for_the_command_line() {
    let expected = "config.toml:3: admin.tls_certificate: A Unix socket has no TLS, because its data does not leave the machine. Leave this key empty, or set admin.listen to an address.";
    assert_refused(
        "[admin]\nlisten = \"unix:/run/k.sock\"\ntls_certificate = \"a.pem\"\n",
        expected,
    );
    let long = "d".repeat(100);
    let text =
        format!("[admin]\ntls_certificate = \"a.pem\"\n[store]\npath = \"/{long}/keyward\"\n");
    let expected = "config.toml:4: store.path: While admin.tls_certificate is set, the command line uses a socket beside the store, \
                and the path of this socket is longer than 107 bytes. Use a shorter path.";
    assert_refused(&text, expected);
    let text = text.replace("tls_certificate", "# tls_certificate");
    assert!(load_text(text, &[]).is_ok(), "without TLS, the command line needs no socket");
}

#[test]
fn each_listener_has_a_separate_port() {
    let load = |section: &str, key: &str, address: &str| {
        load_text(format!("[{section}]\n{key} = {address:?}\n"), &[])
    };
    let grpc = |address: &str| load("verify", "grpc_listen", address);
    assert_eq!(grpc("").unwrap().settings.verify.grpc_listen, None);
    let listen = grpc("[::1]:8083").unwrap().settings.verify.grpc_listen;
    assert_eq!(listen, "[::1]:8083".parse().ok());
    assert_eq!(load("verify", "listen", "").unwrap().settings.verify.listen, None);
    for (key, address, problem) in [
        (
            "grpc_listen",
            "127.0.0.1:8080",
            "The public listener and the gRPC listener have the same port. Give server.listen and verify.grpc_listen different ports.",
        ),
        (
            "grpc_listen",
            "0.0.0.0:8081",
            "The admin listener and the gRPC listener have the same port. Give admin.listen and verify.grpc_listen different ports.",
        ),
        (
            "grpc_listen",
            "127.0.0.1:8082",
            "The verify listener and the gRPC listener have the same port. Give verify.listen and verify.grpc_listen different ports.",
        ),
        (
            "listen",
            "0.0.0.0:8080",
            "The public listener and the verify listener have the same port. Give server.listen and verify.listen different ports.",
        ),
        (
            "listen",
            "127.0.0.1:8081",
            "The admin listener and the verify listener have the same port. Give admin.listen and verify.listen different ports.",
        ),
    ] {
        let expected = format!("config.toml:2: verify.{key}: {problem}");
        assert_eq!(load("verify", key, address).unwrap_err(), expected, "{key} {address}");
    }
    let moved = load("server", "listen", "127.0.0.1:8082").unwrap_err();
    assert!(moved.starts_with("config.toml:2: server.listen: The public listener and the verify"));
    assert!(grpc("nowhere").unwrap_err().contains("The value is not an address to listen on."));
}

#[test]
fn listeners_need_different_unix_sockets() {
    let text = "[admin]\nlisten = \"unix:/run/k.sock\"\n[verify]\nlisten = \"unix:/run/k.sock\"\n";
    let expected = "config.toml:4: verify.listen: The admin listener and the verify listener have the same Unix socket. \
                Give admin.listen and verify.listen different paths.";
    assert_refused(text, expected);
    let text = "[store]\npath = \"k\"\n[verify]\nlisten = \"unix:./k.sock\"\n";
    let expected = "config.toml:4: verify.listen: The command line's listener and the verify listener have the same Unix socket. \
                Give store.path and verify.listen different paths.";
    assert_refused(text, expected);
    let loaded = load_text("[verify]\nlisten = \"unix:/run/v.sock\"\n", &[]).unwrap();
    assert_eq!(loaded.settings.verify.listen, Some(ListenAddress::Unix("/run/v.sock".into())));
    for bad in ["unix:", "unix:v/", "localhost:1"] {
        let problem = load_text(format!("[verify]\nlisten = {bad:?}\n"), &[]).unwrap_err();
        assert!(
            problem.starts_with("config.toml:2: verify.listen: The value is not "),
            "{problem}"
        );
    }
}

#[test]
fn tls_of_a_verify_listener_without_an_address_is_refused() {
    let tls = "tls_certificate = \"a.pem\"\n";
    let expected = "config.toml:3: verify.tls_certificate: Neither listener of this section has TLS: a Unix socket has none, because its data does not leave the machine. \
                Leave this key empty, or set verify.listen or verify.grpc_listen to an address.";
    assert_refused(&format!("[verify]\nlisten = \"unix:/run/k.sock\"\n{tls}"), expected);
    assert_refused(&format!("[verify]\nlisten = \"\"\n{tls}"), expected);
    let with_grpc = format!("[verify]\nlisten = \"\"\ngrpc_listen = \"127.0.0.1:1\"\n{tls}");
    assert!(load_text(with_grpc, &[]).unwrap().settings.verify.tls.is_some());
}

#[test]
fn moved_key_names_its_new_place() {
    let text = "[server]\ngrpc_listen = \"127.0.0.1:8083\"\n";
    let expected = "config.toml:2: server.grpc_listen: This key has moved. Use verify.grpc_listen.";
    assert_refused(text, expected);
    assert_variable_refused(
        "KEYWARD_SERVER__GRPC_LISTEN",
        "127.0.0.1:8083",
        "KEYWARD_SERVER__GRPC_LISTEN: The key of this variable has moved. Use KEYWARD_VERIFY__GRPC_LISTEN.",
    );
}

#[test]
fn proxy_protocol_needs_a_trusted_proxy() {
    let expected = "config.toml:2: server.proxy_protocol: Only trusted proxies may connect with this value, and server.trusted_proxies is empty. \
                Set server.trusted_proxies to the addresses of the proxies, or use \"off\".";
    assert_refused("[server]\nproxy_protocol = \"on\"\n", expected);
}

#[test]
fn schema_describes_the_file_and_rejects_unknown_keys() {
    let schema: Json = serde_json::from_str(&schema()).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["title"], "Keyward configuration");
    assert_eq!(schema["additionalProperties"], false);
    for (name, section) in schema["$defs"].as_object().unwrap() {
        assert_eq!(section["additionalProperties"], false, "{name}");
    }
    assert_eq!(schema["$defs"]["StoreSection"]["properties"]["engine"]["enum"][2], "memory");
}
