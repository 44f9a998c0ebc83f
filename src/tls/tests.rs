//! Tests of certificates: errors name the problem, an invalid certificate never replaces a valid
//! one, and only a trusted certificate for the right host is accepted.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use tokio::sync::mpsc;

use super::{test_authority::Authority, *};

/// The error of loading the files, without the folder's path.
#[track_caller]
fn load_error(files: &TlsFiles, folder: &Path) -> String {
    let Err(problem) = Certificates::load(files.clone()) else { panic!("the files were accepted") };
    problem.to_string().replace(&format!("{}/", folder.display()), "")
}

#[test]
fn error_names_the_file_and_the_problem() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new();
    let pair = authority.signs("a.example");
    let files = pair.write(folder);
    assert!(Certificates::load(files.clone()).is_ok());
    let cut = &pair.certificate[..pair.certificate.len() / 2];
    let begin = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    // The form of openssl 1, with fields at the beginning of the block.
    let with_fields = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let with_key = [pair.certificate.as_str(), with_fields].concat();
    let unrelated = [pair.certificate.as_str(), &Authority::new().signs("b").certificate].concat();
    for (name, text, expected) in [
        ("server.pem", "", "server.pem: the file is not PEM: "),
        ("server.pem", "\u{0}\u{1}", "server.pem: the file is not PEM: "),
        ("server.pem", cut, "server.pem: the file is not valid PEM: a block"),
        ("server.pem", pair.key.as_str(), "server.pem: the file contains no certificate"),
        ("server.pem", begin, "server.pem: a certificate cannot be read"),
        ("server.key", "", "server.key: the file is not PEM: "),
        ("server.key", pair.certificate.as_str(), "server.key: the file contains no private key"),
        ("server.key", encrypted, "server.key: the private key is encrypted"),
        ("server.key", with_fields, "server.key: the private key is encrypted"),
        ("server.pem", &with_key, "server.pem: the private key is encrypted"),
        ("server.pem", &unrelated, "server.pem: certificate 2 in the file signed none of"),
    ] {
        pair.write(folder);
        fs::write(folder.join(name), text).unwrap();
        let problem = load_error(&files, folder);
        assert!(problem.starts_with(expected), "{problem}");
    }
    pair.write(folder);
    fs::write(&files.key, authority.signs("a.example").key).unwrap();
    let expected =
        "the private key in server.key does not belong to the first certificate in server.pem";
    assert!(load_error(&files, folder).starts_with(expected));
    for name in ["server.pem", "server.key"] {
        pair.write(folder);
        fs::remove_file(folder.join(name)).unwrap();
        let expected = format!("{name}: it cannot be read: No such file or directory (os error 2)");
        assert_eq!(load_error(&files, folder), expected);
    }
}

#[test]
fn certificates_that_signed_the_certificate_may_follow_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let pair = authority.signs("a.example");
    let files = pair.write(folder.path());
    let (own, root) = (pair.certificate.as_str(), authority.certificate.as_str());
    for chain in [vec![own, root], vec![own, own, root], vec![own, root, root]] {
        fs::write(&files.certificate, chain.concat()).unwrap();
        assert!(Certificates::load(files.clone()).is_ok(), "{}", chain.len());
    }
}

#[test]
fn authority_of_clients_may_sign_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let files = authority.signs("a.example").write(folder.path());
    let ca = folder.path().join("ca.pem");
    for clients in [ClientAuth::Required(ca.clone()), ClientAuth::Optional(ca.clone())] {
        let files = TlsFiles { clients, ..files.clone() };
        fs::write(&ca, &authority.certificate).unwrap();
        assert!(Certificates::load(files.clone()).is_ok());
        let leaf = authority.signs("client").certificate;
        fs::write(&ca, [authority.certificate.as_str(), &leaf].concat()).unwrap();
        let problem = load_error(&files, folder.path());
        assert!(problem.starts_with("ca.pem: the certificate of CN=client"), "{problem}");
    }
}

#[test]
fn weak_key_and_missing_key_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Authority::new().signs("a.example");
    let files = pair.write(folder.path());
    let weak = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=a", "-keyout"])
        .args([&files.key, Path::new("-out"), &files.certificate])
        .output()
        .unwrap();
    assert!(weak.status.success());
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
    let problem = load_error(&files, folder.path());
    assert!(problem.contains("RSA with 2048 to 4096 bits"), "{problem}");
    // Without tls_key, the key is expected in the file of the certificate.
    let files = TlsFiles { key: files.certificate, ..pair.write(folder.path()) };
    for mode in [0o600, 0o644] {
        fs::set_permissions(&files.certificate, fs::Permissions::from_mode(mode)).unwrap();
        let problem = load_error(&files, folder.path());
        let expected = "server.pem: the file contains no private key. Set tls_key to";
        assert!(problem.starts_with(expected), "{problem}");
    }
}

#[tokio::test]
async fn certificate_that_is_not_valid_now_never_replaces_a_valid_one() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let files = authority.signs("a.example").write(folder.path());
    let certificates = Certificates::load(files.clone()).unwrap();
    assert_eq!(certificates.warning(), None);
    for (years, expected) in [
        (2001..2002, "the new certificate expired at 2002-01-01T00:00:00Z"),
        (4000..4001, "the new certificate is not valid before 4000-01-01T00:00:00Z"),
    ] {
        authority.signs_in("a.example", years).write(folder.path());
        let problem = certificates.reload().unwrap_err().to_string();
        assert!(problem.ends_with(expected), "{problem}");
        handshake(&certificates, &client(&authority, "a.example")).await.unwrap();
        assert_eq!(certificates.warning(), None);
    }
    // At the start there is no better one. Any other one may replace it.
    let expired =
        Certificates::load(authority.signs_in("a.example", 2001..2002).write(folder.path()));
    let expired = expired.unwrap();
    assert_eq!(expired.warning().as_deref(), Some("expired at 2002-01-01T00:00:00Z"));
    handshake(&expired, &client(&authority, "a.example")).await.unwrap_err();
    authority.signs_in("a.example", 2002..2003).write(folder.path());
    assert_eq!(expired.reload().unwrap(), Reloaded::New);
    authority.signs("a.example").write(folder.path());
    assert_eq!(expired.reload().unwrap(), Reloaded::New);
    handshake(&expired, &client(&authority, "a.example")).await.unwrap();
}

#[test]
fn key_that_other_users_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Authority::new().signs("a.example");
    let files = pair.write(folder.path());
    for mode in [0o644, 0o640, 0o604] {
        fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
        let expected = format!("server.key: other users can read it (mode {mode:04o}).");
        assert!(load_error(&files, folder.path()).starts_with(&expected));
    }
    // A file that contains certificate and key is as secret as the key.
    let path = folder.path().join("both.pem");
    fs::write(&path, [pair.certificate, pair.key].concat()).unwrap();
    let both =
        TlsFiles { certificate: path.clone(), key: path.clone(), clients: ClientAuth::Unrequested };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(load_error(&both, folder.path()).starts_with("both.pem: other users can read it"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Certificates::load(both).is_ok());
}

/// Runs both sides of a handshake.
async fn handshake(certificates: &Certificates, client: &TlsClient) -> io::Result<()> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (accepted, connected) = tokio::join!(certificates.accept(near), client.handshake(far));
    connected?;
    accepted.map(drop).map_err(|(problem, _)| problem)
}

fn client(authority: &Authority, host: &str) -> TlsClient {
    TlsClient::new(host, authority.roots(), b"h2").unwrap()
}

#[tokio::test]
async fn invalid_pair_never_replaces_a_valid_one() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let files = old.signs("a.example").write(folder.path());
    let certificates = Certificates::load(files.clone()).unwrap();
    assert_eq!(certificates.reload().unwrap(), Reloaded::Unchanged);
    // The new certificate is written before its key.
    let pair = new.signs("a.example");
    fs::write(&files.certificate, &pair.certificate).unwrap();
    assert!(matches!(certificates.reload(), Err(TlsError::Mismatch { .. })));
    fs::write(&files.certificate, "").unwrap();
    assert!(certificates.reload().is_err());
    handshake(&certificates, &client(&old, "a.example")).await.unwrap();
    pair.write(folder.path());
    assert_eq!(certificates.reload().unwrap(), Reloaded::New);
    handshake(&certificates, &client(&new, "a.example")).await.unwrap();
    handshake(&certificates, &client(&old, "a.example")).await.unwrap_err();
}

#[tokio::test]
async fn changes_are_noticed_and_a_problem_is_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let pair = |name| Authority::new().signs(name);
    let files = pair("a.example").write(folder.path());
    let certificates = Certificates::load(files.clone()).unwrap();
    let (sender, mut reports) = mpsc::unbounded_channel();
    let following = tokio::spawn(async move {
        certificates
            .follow(|outcome| {
                let text = outcome.as_ref().map_err(ToString::to_string).copied();
                sender.send(text).unwrap();
            })
            .await
            .unwrap();
    });
    let next = async |reports: &mut mpsc::UnboundedReceiver<_>| {
        tokio::time::timeout(Duration::from_secs(20), reports.recv()).await.unwrap().unwrap()
    };
    tokio::time::sleep(Duration::from_millis(400)).await;
    fs::write(&files.key, "none").unwrap();
    assert!(next(&mut reports).await.is_err());
    // Another file in the folder changes.
    fs::write(folder.path().join("other"), "").unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(reports.try_recv().is_err(), "a known problem was reported again");
    // A renewal replaces the files.
    let new = tempfile::tempdir_in(folder.path()).unwrap();
    let fresh = pair("b.example").write(new.path());
    fs::rename(fresh.key, &files.key).unwrap();
    fs::rename(fresh.certificate, &files.certificate).unwrap();
    assert_eq!(next(&mut reports).await, Ok(Reloaded::New));
    following.abort();
}

#[tokio::test]
async fn certificate_is_accepted_only_for_its_host_and_authority() {
    let (trusted, untrusted) = (Authority::new(), Authority::new());
    for (name, host) in [("a.example", "a.example"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        handshake(&trusted.signs(name).loaded(), &client(&trusted, host)).await.unwrap();
    }
    for (authority, name, host) in [
        (&untrusted, "a.example", "a.example"),
        (&trusted, "b.example", "a.example"),
        (&trusted, "127.0.0.2", "127.0.0.1"),
        (&trusted, "a.example", "127.0.0.1"),
    ] {
        let problem = handshake(&authority.signs(name).loaded(), &client(&trusted, host)).await;
        let problem = problem.unwrap_err().to_string();
        assert!(problem.contains("invalid peer certificate"), "{problem}");
    }
    // The public authorities did not sign the certificate.
    let public = TlsClient::new("a.example", None, b"h2").unwrap();
    let problem = handshake(&trusted.signs("a.example").loaded(), &public).await.unwrap_err();
    assert!(problem.to_string().contains("UnknownIssuer"), "{problem}");
}
