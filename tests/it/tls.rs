//! Tests of TLS with the real program: clients, renewed certificates, the command line (which needs
//! no certificate), and the PROXY protocol.

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

use crate::harness::{Server, Site, TIMEOUT};

/// A certificate authority.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// Creates an authority, and writes the authority's certificate to `ca.pem` in this folder.
    fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // The authority needs another name than the certificates that it signs. Otherwise openssl
        // reports these certificates as self-signed.
        params.distinguished_name.push(DnType::CommonName, "An authority");
        let key = KeyPair::generate().unwrap();
        fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self(Issuer::new(params, key))
    }

    /// Writes a certificate for this machine and its private key into the folder. Returns the
    /// certificate.
    fn issue(&self, folder: &Path, name: &str) -> String {
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

/// A site with one certificate for all listeners, the authority that signed the certificate, and
/// the certificate.
fn site() -> (Site, Authority, String) {
    let site = Site::new();
    let authority = Authority::new(site.path());
    let certificate = authority.issue(site.path(), "server");
    let site = site
        .with_env("KEYWARD_SERVER__TLS_CERTIFICATE", "server.pem")
        .with_env("KEYWARD_SERVER__TLS_KEY", "server.key")
        .with_env("KEYWARD_VERIFY__TLS_CERTIFICATE", "server.pem")
        .with_env("KEYWARD_VERIFY__TLS_KEY", "server.key")
        .with_env("KEYWARD_ADMIN__TLS_CERTIFICATE", "server.pem")
        .with_env("KEYWARD_ADMIN__TLS_KEY", "server.key");
    (site, authority, certificate)
}

/// Runs curl with these arguments and returns everything that it prints.
fn curl(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "30", "-w", "\n%{http_version} %{http_code}"])
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    [output.stdout, output.stderr].concat().iter().map(|byte| char::from(*byte)).collect()
}

/// The certificate that a listener presents, as openssl prints it.
fn presented_certificate(listener: SocketAddr) -> String {
    let script = format!(
        "openssl s_client -connect {listener} -servername localhost -alpn h2 -showcerts </dev/null 2>&1"
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("ALPN protocol: h2"), "{text}");
    text
}

/// A line of a certificate in PEM that differs between the certificates of a test.
fn distinct_line(certificate: &str) -> &str {
    certificate.lines().nth(3).unwrap()
}

#[test]
fn https_clients_and_the_command_line_can_connect() {
    let (site, _authority, _) = site();
    let server = site.start();
    let folder = server.site.path();
    let url = format!("https://{}/user/1?_format=json", server.public);
    let key = format!("API-KEY: {}", server.admin_credential());
    for (version, ending) in [("--http2", "2 200"), ("--http1.1", "1.1 200")] {
        let text = curl(folder, &["--cacert", "ca.pem", version, &url, "-H", &key]);
        assert!(text.ends_with(ending), "{text}");
    }
    let admin = format!("https://{}/health/ready", server.admin);
    let text = curl(folder, &["--cacert", "ca.pem", "--http2", &admin]);
    assert!(text.ends_with("2 200"), "{text}");
    // A client that does not know the authority fails, and so does a client without TLS.
    assert!(curl(folder, &[&admin]).contains("certificate"));
    let clear = curl(folder, &[&format!("http://{}/health/ready", server.admin)]);
    assert!(clear.contains("0 000"), "{clear}");

    let checked = server.site.run(&["healthcheck"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    server.add_user("ada", &[]);
    let socket = folder.join("data/keyward.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let explained = server.site.run(&["explain", "-H", &key, "/nowhere"]);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains("https://localhost/nowhere"), "{explained}");
    let created = curl(
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
        created.to_lowercase().contains(&format!("location: https://{}/user/", server.public)),
        "{created}"
    );
}

#[test]
fn socket_is_removed_on_stop_and_replaced_after_a_kill() {
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
fn client_certificates_on_the_admin_listener_do_not_affect_the_command_line() {
    let (site, authority, _) = site();
    authority.issue(site.path(), "client");
    let server = site.with_env("KEYWARD_ADMIN__TLS_CLIENT_CA", "ca.pem").start();
    let folder = server.site.path();
    let admin = format!("https://{}/health/ready", server.admin);
    let without = curl(folder, &["--cacert", "ca.pem", &admin]);
    assert!(without.contains("0 000"), "{without}");
    let args = ["--cacert", "ca.pem", "--cert", "client.pem", "--key", "client.key", &admin];
    let with = curl(folder, &args);
    assert!(with.ends_with("2 200"), "{with}");
    assert!(server.site.run(&["healthcheck"]).status.success());
    server.add_user("ada", &[]);
}

/// Waits until all listeners present this certificate.
fn wait_for_certificate(server: &Server, certificate: &str) {
    let deadline = Instant::now() + TIMEOUT;
    while ![server.public, server.verify.unwrap(), server.admin]
        .iter()
        .all(|address| presented_certificate(*address).contains(distinct_line(certificate)))
    {
        assert!(Instant::now() < deadline, "{}", server.logged());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn valid_certificates_are_reloaded_and_invalid_ones_ignored() {
    let (site, authority, first) = site();
    let server = site.start();
    let folder: PathBuf = server.site.path().to_owned();
    wait_for_certificate(&server, &first);
    // Renew the certificate in the usual way: write new files, and rename them over the old files.
    let second = authority.issue(&folder, "new");
    fs::rename(folder.join("new.key"), folder.join("server.key")).unwrap();
    fs::rename(folder.join("new.pem"), folder.join("server.pem")).unwrap();
    wait_for_certificate(&server, &second);
    fs::write(folder.join("server.pem"), "no certificate").unwrap();
    let file = folder.join("server.pem").display().to_string();
    server.wait_for_log(&format!(
        "cannot reload the certificate of [server], so the old certificate stays in use: {file}: the file is not PEM"
    ));
    wait_for_certificate(&server, &second);
    fs::write(folder.join("server.pem"), &second).unwrap();
    let third = authority.issue(&folder, "server");
    wait_for_certificate(&server, &third);
    // SIGHUP reloads the certificates even if the files have not changed.
    let control = fs::read_to_string(folder.join("data/keyward.control")).unwrap();
    let control: serde_json::Value = serde_json::from_str(&control).unwrap();
    let signaled =
        Command::new("kill").args(["-HUP", &control["pid"].to_string()]).status().unwrap();
    assert!(signaled.success());
    server.wait_for_log("the certificate of [verify] is unchanged");
    server.wait_for_log("the certificate of [admin] is unchanged");
}

#[test]
fn invalid_certificate_stops_the_start_and_creates_no_store() {
    let (site, authority, _) = site();
    fs::set_permissions(site.path().join("server.key"), fs::Permissions::from_mode(0o644)).unwrap();
    for args in [["serve"].as_slice(), &["config", "check"]] {
        let output = site.run(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !site.store().exists());
        let key = site.path().join("server.key").display().to_string();
        let expected = format!(
            "the TLS of [server]: {key}: other users can read it (mode 0644). Run chmod 600 on it"
        );
        assert!(text.contains(&expected), "{text}");
    }
    authority.issue(site.path(), "other");
    let site = site.with_env("KEYWARD_SERVER__TLS_KEY", "other.key");
    let output = site.run(&["serve"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let key = site.path().join("other.key").display().to_string();
    let expected = format!("the private key in {key} does not belong to");
    assert!(text.contains(&expected), "{text}");
}

/// Writes a self-signed certificate that is valid from the first day of one year to that of
/// another.
fn self_signed(folder: &Path, name: &str, years: std::ops::Range<i32>) -> String {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    let key = KeyPair::generate().unwrap();
    let text = [params.self_signed(&key).unwrap().pem(), key.serialize_pem()].concat();
    // In one step, as certificate tools do.
    let draft = folder.join("draft");
    fs::write(&draft, &text).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(draft, folder.join(name)).unwrap();
    text
}

#[test]
fn expired_certificate_is_reported_and_replaces_no_valid_one() {
    let site = Site::new().with_env("KEYWARD_SERVER__TLS_CERTIFICATE", "own.pem");
    let folder = site.path().to_owned();
    let checked = |site: &Site| {
        let output = site.run(&["config", "check"]);
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    self_signed(&folder, "own.pem", 2001..2002);
    let warning = "the certificate of [server] expired at 2002-01-01T00:00:00Z";
    assert!(checked(&site).contains(warning));
    let server = site.start();
    server.wait_for_log(warning);
    let checked_health = server.site.run(&["healthcheck"]);
    assert!(checked_health.status.success());
    assert!(String::from_utf8_lossy(&checked_health.stdout).contains(warning));
    let ready = server.site.json(&["healthcheck"]);
    assert_eq!(ready["certificate_problem"], warning);
    // A valid one takes its place, and a later expired one does not.
    let valid = self_signed(&folder, "own.pem", 2001..4000);
    server.wait_for_log("reloaded the certificate of [server]");
    assert_eq!(server.site.json(&["healthcheck"])["certificate_problem"], serde_json::Value::Null);
    assert_eq!(checked(&server.site), "");
    self_signed(&folder, "own.pem", 2002..2003);
    server.wait_for_log("own.pem: the new certificate expired");
    assert!(server.logged().contains("so the old certificate stays in use: "));
    assert!(presented_certificate(server.public).contains(distinct_line(&valid)));
    assert_eq!(server.site.json(&["healthcheck"])["certificate_problem"], serde_json::Value::Null);
}

#[test]
fn new_certificate_behind_a_link_is_loaded() {
    let site = Site::new().with_env("KEYWARD_SERVER__TLS_CERTIFICATE", "own.pem");
    let acme = site.path().join("acme");
    fs::create_dir(&acme).unwrap();
    std::os::unix::fs::symlink("acme/own.pem", site.path().join("own.pem")).unwrap();
    self_signed(&acme, "own.pem", 2001..4000);
    let server = site.start();
    for _ in 0..2 {
        let new = self_signed(&acme, "own.pem", 2001..4000);
        let deadline = Instant::now() + TIMEOUT;
        while !presented_certificate(server.public).contains(distinct_line(&new)) {
            assert!(Instant::now() < deadline, "{}", server.logged());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The networks of a key are compared with the client address from the PROXY protocol.
#[test]
fn proxy_protocol_sets_the_client_address() {
    let site = Site::new().with_env("KEYWARD_SERVER__PROXY_PROTOCOL", "on");
    let server = site.with_env("KEYWARD_SERVER__TRUSTED_PROXIES", "127.0.0.1").start();
    server.add_user("ada", &[]);
    let network_bound = server.generate_key("ada", &["--network", "203.0.113.0/24"]);
    let status = |header: &str| {
        let head = format!(
            "{header}GET /user/2?_format=json HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAPI-KEY: {}\r\n\r\n",
            network_bound.credential
        );
        crate::harness::exchange(server.public, head.as_bytes()).status
    };
    assert_eq!(status("PROXY TCP4 203.0.113.7 127.0.0.1 5555 80\r\n"), 200);
    assert_eq!(status("PROXY TCP4 198.51.100.7 127.0.0.1 5555 80\r\n"), 401);
    assert_eq!(status("PROXY UNKNOWN\r\n"), 401);
    server.wait_for_log("client=198.51.100.7");
}

#[test]
fn untrusted_proxy_is_disconnected_and_logged() {
    let site = Site::new().with_env("KEYWARD_SERVER__PROXY_PROTOCOL", "on");
    let server = site.with_env("KEYWARD_SERVER__TRUSTED_PROXIES", "203.0.113.0/24").start();
    let text =
        curl(server.site.path(), &["--haproxy-protocol", &format!("http://{}/", server.public)]);
    assert!(text.contains("0 000"), "{text}");
    let expected = "server.proxy_protocol is on, and this client is not in server.trusted_proxies";
    server.wait_for_log(expected);
}

#[test]
fn late_proxy_header_is_logged() {
    let site = Site::new().with_env("KEYWARD_SERVER__PROXY_PROTOCOL", "on");
    let site = site.with_env("KEYWARD_SERVER__TRUSTED_PROXIES", "127.0.0.0/8");
    let server = site.with_env("KEYWARD_LIMITS__HEADER_READ_SECONDS", "1").start();
    let mut late = std::net::TcpStream::connect(server.public).unwrap();
    std::io::Write::write_all(&mut late, b"PROXY TCP4 203").unwrap();
    server.wait_for_log("the PROXY header was not complete within limits.header_read_seconds");
}

#[test]
fn grpc_listener_responds_to_envoy() {
    let server = Site::new().with_env("KEYWARD_VERIFY__GRPC_LISTEN", "127.0.0.1:0").start();
    let deadline = Instant::now() + TIMEOUT;
    let grpc = loop {
        let logged = server.logged();
        if let Some((_, rest)) = logged.split_once("grpc=") {
            break rest.split(' ').next().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "{logged}");
        thread::sleep(Duration::from_millis(5));
    };
    let url = format!("http://{grpc}/envoy.service.auth.v3.Authorization/Check");
    let call = |more: &[&str]| {
        let args = ["-i", "--http2-prior-knowledge", "-H", "content-type: application/grpc", &url];
        curl(server.site.path(), &[args.as_slice(), more].concat())
    };
    // An empty gRPC message is invalid, because the message does not describe a request.
    fs::write(server.site.path().join("empty"), [0; 5]).unwrap();
    let response = call(&["--data-binary", "@empty"]);
    assert!(response.contains("grpc-status: 3") && response.ends_with("2 200"), "{response}");
}
