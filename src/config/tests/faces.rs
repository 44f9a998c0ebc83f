//! Trusted proxies, and the names of the identity header fields.

use super::*;
use crate::tls::ClientAuth;

#[test]
fn proxies_are_addresses_and_networks() {
    let trusted = |text: &str| {
        let loaded = load_text(format!("[server]\ntrusted_proxies = {text:?}\n"), &[]);
        let show = |one: &ipnet::IpNet| one.to_string();
        loaded.map(|it| it.settings.server.trusted_proxies.iter().map(show).collect::<Vec<_>>())
    };
    assert_eq!(trusted(""), Ok(vec![]));
    let kept = ["10.0.0.5/32", "192.168.0.0/16", "::1/128"].map(str::to_owned);
    assert_eq!(trusted(" 10.0.0.5,192.168.0.0/16 , ::1"), Ok(kept.to_vec()));
    let said = "config.toml:2: server.trusted_proxies: This is not a list of addresses and networks. Use addresses and \
                networks with commas between them, such as 10.0.0.5, 192.168.0.0/16, ::1; leave it empty for none.";
    for bad in ["localhost", "10.0.0.0/33", "10.0.0.1 10.0.0.2", "*", "10.0.0.1:80"] {
        assert_eq!(trusted(bad), Err(said.into()), "{bad}");
    }
}

#[test]
fn an_identity_field_is_one_that_nothing_else_needs() {
    let user = |text: &str| load_text(format!("[identity]\nuser = {text:?}\n"), &[]);
    assert_eq!(user("Remote-User").unwrap().settings.identity.user, "remote-user");
    let said = "config.toml:2: identity.user: This cannot be the name of the header. Use letters, digits and hyphens, and no \
                name with another meaning; X-Keyward-User, for example.";
    for bad in ["", "a b", "X_User", "Host", "authorization", "X-Forwarded-User", "ü", "a:b"] {
        assert_eq!(user(bad).unwrap_err(), said, "{bad}");
    }
    let said = "config.toml:2: identity.user: Two of these have the same name. Give each a name of its own.";
    assert_eq!(user("x-keyward-ROLES").unwrap_err(), said);
}

#[test]
fn tls_is_a_certificate_and_what_belongs_to_it() {
    let tls =
        |text: &str| load_text(format!("[server]\n{text}\n"), &[]).map(|it| it.settings.server.tls);
    assert_eq!(tls(""), Ok(None));
    let alone = tls("tls_certificate = \"one.pem\"").unwrap().unwrap();
    assert_eq!((alone.certificate, alone.key), ("one.pem".into(), "one.pem".into()));
    assert_eq!(alone.clients, ClientAuth::Unrequested);
    let certificates = "tls_certificate = \"one.pem\"\ntls_client_ca = \"ca.pem\"";
    let with_ca = tls(certificates).unwrap().unwrap();
    assert_eq!(with_ca.clients, ClientAuth::Required("ca.pem".into()));
    let said = "config.toml:2: server.tls_key: Without a certificate there is no TLS. Set server.tls_certificate too, or leave this empty.";
    assert_eq!(tls("tls_key = \"key.pem\"").unwrap_err(), said);
    let said = "config.toml:2: server.tls_client_ca: Without a certificate there is no TLS. Set server.tls_certificate too, or leave this empty.";
    assert_eq!(tls("tls_client_ca = \"ca.pem\"").unwrap_err(), said);
    let said = "config.toml:2: server.tls_client_certificates: There is no such choice. Use \"required\" or \"optional\".";
    assert_eq!(tls("tls_client_certificates = \"none\"").unwrap_err(), said);
}

#[test]
fn the_admin_listener_with_tls_has_a_socket_for_the_command_line() {
    let said = "config.toml:3: admin.tls_certificate: A unix socket has no TLS, because its data does not leave the machine. Leave this empty, or set admin.listen to an address.";
    refused("[admin]\nlisten = \"unix:/run/k.sock\"\ntls_certificate = \"a.pem\"\n", said);
    let long = "d".repeat(100);
    let text =
        format!("[admin]\ntls_certificate = \"a.pem\"\n[store]\npath = \"/{long}/keyward\"\n");
    let said = "config.toml:4: store.path: The path of the socket beside the store, which the command line uses while admin.tls_certificate is set, \
                is longer than 107 bytes. Use a shorter path.";
    refused(&text, said);
    let text = text.replace("tls_certificate", "# tls_certificate");
    assert!(load_text(text, &[]).is_ok(), "without TLS nobody needs it");
}

#[test]
fn envoy_asks_at_a_port_of_its_own() {
    let grpc = |address: &str| load_text(format!("[server]\ngrpc_listen = {address:?}\n"), &[]);
    assert_eq!(grpc("").unwrap().settings.server.grpc_listen, None);
    let listen = grpc("[::1]:8082").unwrap().settings.server.grpc_listen;
    assert_eq!(listen, "[::1]:8082".parse().ok());
    let said = "config.toml:2: server.grpc_listen: The public listener and the one for gRPC have the same port. \
                Give server.listen and server.grpc_listen different ports.";
    assert_eq!(grpc("127.0.0.1:8080").unwrap_err(), said);
    let said = "config.toml:2: server.grpc_listen: The admin listener and the one for gRPC have the same port. \
                Give admin.listen and server.grpc_listen different ports.";
    assert_eq!(grpc("0.0.0.0:8081").unwrap_err(), said);
    assert!(grpc("nowhere").unwrap_err().contains("This is not an address to listen on."));
}
