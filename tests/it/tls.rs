//! TLS with the real program: public clients, certificates that change, and the command line that needs none.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::harness::{PATIENCE, Server, Site};

struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// One whose certificate lies in the folder as `ca.pem`.
    fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Of another name than what it signs: openssl takes a certificate for its own signer else.
        params.distinguished_name.push(DnType::CommonName, "An authority");
        let key = KeyPair::generate().unwrap();
        fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self(Issuer::new(params, key))
    }

    /// Puts a certificate for this machine and its key into the folder. Returns the certificate.
    fn signs(&self, folder: &Path, name: &str) -> String {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        let path = folder.join(format!("{name}.key"));
        fs::write(&path, key.serialize_pem()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        certificate.pem()
    }
}

/// A folder with certificates, named for both listeners.
fn site() -> (Site, Authority, String) {
    let site = Site::new();
    let authority = Authority::new(site.path());
    let certificate = authority.signs(site.path(), "server");
    let site = site
        .with("KEYWARD_SERVER__TLS_CERTIFICATE", "server.pem")
        .with("KEYWARD_SERVER__TLS_KEY", "server.key")
        .with("KEYWARD_ADMIN__TLS_CERTIFICATE", "server.pem")
        .with("KEYWARD_ADMIN__TLS_KEY", "server.key");
    (site, authority, certificate)
}

/// What curl says with these arguments.
fn curl(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "30", "-w", "\n%{http_version} %{http_code}"])
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    [output.stdout, output.stderr].concat().iter().map(|byte| char::from(*byte)).collect()
}

/// The certificate that a listener shows, as openssl reads it.
fn shown(to: SocketAddr) -> String {
    let script = format!(
        "openssl s_client -connect {to} -servername localhost -alpn h2 -showcerts </dev/null 2>&1"
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("ALPN protocol: h2"), "{text}");
    text
}

/// The lines of a certificate that make it another one than the next.
fn middle(certificate: &str) -> &str {
    certificate.lines().nth(3).unwrap()
}

#[test]
fn public_clients_and_the_command_line_come_in() {
    let (site, _authority, _) = site();
    let server = site.start();
    let folder = server.site.path();
    let url = format!("https://{}/user/1?_format=json", server.public);
    let key = format!("API-KEY: {}", server.administrator());
    for (version, said) in [("--http2", "2 200"), ("--http1.1", "1.1 200")] {
        let text = curl(folder, &["--cacert", "ca.pem", version, &url, "-H", &key]);
        assert!(text.ends_with(said), "{text}");
    }
    let admin = format!("https://{}/health/ready", server.admin);
    let text = curl(folder, &["--cacert", "ca.pem", "--http2", &admin]);
    assert!(text.ends_with("2 200"), "{text}");
    // Without the authority nobody believes it, and in the clear nobody is answered.
    assert!(curl(folder, &[&admin]).contains("certificate"));
    let clear = curl(folder, &[&format!("http://{}/health/ready", server.admin)]);
    assert!(clear.contains("0 000"), "{clear}");

    let checked = server.site.run(&["healthcheck"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    server.user("ada", &[]);
    let socket = folder.join("data/keyward.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let explained = server.site.run(&["explain", "-H", &key, "/nowhere"]);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains("https://localhost/nowhere"), "{explained}");
    let made = curl(
        folder,
        &[
            "-i",
            "--cacert",
            "ca.pem",
            &url.replace("/user/1?", "/entity/user?"),
            "-H",
            &key,
            "--json",
            r#"{"name":[{"value":"eve"}]}"#,
        ],
    );
    assert!(
        made.to_lowercase().contains(&format!("location: https://{}/user/", server.public)),
        "{made}"
    );
}

#[test]
fn the_socket_goes_with_its_server_and_one_that_was_killed_is_in_nobodys_way() {
    let (site, ..) = site();
    let server = site.start();
    let key = server.key.clone();
    let site = server.kill();
    let socket = site.path().join("data/keyward.sock");
    assert!(socket.exists());
    let mut server = Server::start(site, key);
    assert!(server.site.run(&["healthcheck"]).status.success());
    assert!(server.stop().success());
    assert!(!socket.exists());
    let checked = server.site.run(&["healthcheck"]);
    assert_eq!(checked.status.code(), Some(1));
}

#[test]
fn the_admin_listener_may_ask_for_certificates_and_the_command_line_has_none() {
    let (site, authority, _) = site();
    authority.signs(site.path(), "client");
    let server = site.with("KEYWARD_ADMIN__TLS_CLIENT_CA", "ca.pem").start();
    let folder = server.site.path();
    let admin = format!("https://{}/health/ready", server.admin);
    let without = curl(folder, &["--cacert", "ca.pem", &admin]);
    assert!(without.contains("0 000"), "{without}");
    let shown = ["--cacert", "ca.pem", "--cert", "client.pem", "--key", "client.key", &admin];
    let with = curl(folder, &shown);
    assert!(with.ends_with("2 200"), "{with}");
    assert!(server.site.run(&["healthcheck"]).status.success());
    server.user("ada", &[]);
}

/// Waits until both listeners show this certificate.
fn show(server: &Server, certificate: &str) {
    let until = Instant::now() + PATIENCE;
    while ![server.public, server.admin].iter().all(|one| shown(*one).contains(middle(certificate)))
    {
        assert!(Instant::now() < until, "{}", server.logged());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn certificates_change_without_a_restart_and_bad_ones_do_not() {
    let (site, authority, first) = site();
    let server = site.start();
    let folder: PathBuf = server.site.path().to_owned();
    show(&server, &first);
    // As certificates are renewed: beside the old ones, and then in their place.
    let second = authority.signs(&folder, "new");
    fs::rename(folder.join("new.key"), folder.join("server.key")).unwrap();
    fs::rename(folder.join("new.pem"), folder.join("server.pem")).unwrap();
    show(&server, &second);
    fs::write(folder.join("server.pem"), "no certificate").unwrap();
    let said = "the certificate of [server] stays as it was: server.pem: it is not PEM";
    server.tells(said);
    show(&server, &second);
    fs::write(folder.join("server.pem"), &second).unwrap();
    let third = authority.signs(&folder, "server");
    show(&server, &third);
    // Asked for, whether anything has changed or not.
    let control = fs::read_to_string(folder.join("data/keyward.control")).unwrap();
    let control: serde_json::Value = serde_json::from_str(&control).unwrap();
    let asked = Command::new("kill").args(["-HUP", &control["pid"].to_string()]).status().unwrap();
    assert!(asked.success());
    server.tells("the certificate of [admin] is the same");
}

#[test]
fn a_start_with_a_certificate_that_is_not_in_order_says_why_and_makes_no_store() {
    let (site, authority, _) = site();
    fs::set_permissions(site.path().join("server.key"), fs::Permissions::from_mode(0o644)).unwrap();
    for args in [["serve"].as_slice(), &["config", "check"]] {
        let output = site.run(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !site.store().exists());
        let said = "the TLS of [server]: server.key: it can be read by others (mode 0644). Take it from them with chmod 600";
        assert!(text.contains(said), "{text}");
    }
    authority.signs(site.path(), "other");
    let site = site.with("KEYWARD_SERVER__TLS_KEY", "other.key");
    let output = site.run(&["serve"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("the private key in other.key does not belong to"), "{text}");
}

/// The program behind a proxy that names the client: the key's networks are those of the client.
#[test]
fn the_client_that_a_proxy_names_is_the_client() {
    let site = Site::new().with("KEYWARD_SERVER__PROXY_PROTOCOL", "on");
    let server = site.start();
    server.user("ada", &[]);
    let there = server.key("ada", &["--network", "203.0.113.0/24"]);
    let ask = |header: &str| {
        let head = format!(
            "{header}GET /user/2?_format=json HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAPI-KEY: {}\r\n\r\n",
            there.credential
        );
        crate::harness::exchange(server.public, head.as_bytes())
    };
    assert_eq!(ask("PROXY TCP4 203.0.113.7 127.0.0.1 5555 80\r\n").status, 200);
    assert_eq!(ask("PROXY TCP4 198.51.100.7 127.0.0.1 5555 80\r\n").status, 401);
    assert_eq!(ask("PROXY UNKNOWN\r\n").status, 401);
    server.tells("client=198.51.100.7");
}

#[test]
fn who_is_no_trusted_proxy_does_not_come_in_and_the_log_says_why() {
    let site = Site::new().with("KEYWARD_SERVER__PROXY_PROTOCOL", "on");
    let server = site.with("KEYWARD_SERVER__TRUSTED_PROXIES", "203.0.113.0/24").start();
    let text =
        curl(server.site.path(), &["--haproxy-protocol", &format!("http://{}/", server.public)]);
    assert!(text.contains("0 000"), "{text}");
    let said = "server.proxy_protocol is on, and this client is not in server.trusted_proxies";
    server.tells(said);
}

#[test]
fn envoy_finds_its_listener() {
    let server = Site::new().with("KEYWARD_SERVER__GRPC_LISTEN", "127.0.0.1:0").start();
    let until = Instant::now() + PATIENCE;
    let grpc = loop {
        let logged = server.logged();
        if let Some((_, rest)) = logged.split_once("grpc=") {
            break rest.split(' ').next().unwrap().to_owned();
        }
        assert!(Instant::now() < until, "{logged}");
        thread::sleep(Duration::from_millis(5));
    };
    let url = format!("http://{grpc}/envoy.service.auth.v3.Authorization/Check");
    let call = |more: &[&str]| {
        let args = ["-i", "--http2-prior-knowledge", "-H", "content-type: application/grpc", &url];
        curl(server.site.path(), &[args.as_slice(), more].concat())
    };
    // A message of no bytes, which names no request.
    fs::write(server.site.path().join("empty"), [0; 5]).unwrap();
    let answer = call(&["--data-binary", "@empty"]);
    assert!(answer.contains("grpc-status: 3") && answer.ends_with("2 200"), "{answer}");
}
