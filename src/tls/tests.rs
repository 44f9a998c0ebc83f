//! What is promised of certificates: what is wrong is named, a bad one never replaces a good one, and nobody is taken for somebody else.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use tokio::sync::mpsc;

use super::{forge::Authority, *};

/// Why the files are refused, without the folder's name.
#[track_caller]
fn refused(files: &Files, folder: &Path) -> String {
    let Err(problem) = Certificates::load(files.clone()) else { panic!("they are taken") };
    problem.to_string().replace(&format!("{}/", folder.display()), "")
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
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
    for (name, text, said) in [
        ("server.pem", "", "server.pem: it is not PEM: "),
        ("server.pem", "\u{0}\u{1}", "server.pem: it is not PEM: "),
        ("server.pem", cut, "server.pem: it is not PEM to its end"),
        ("server.pem", pair.key.as_str(), "server.pem: there is no certificate in it"),
        ("server.pem", begin, "server.pem: a certificate cannot be read"),
        ("server.key", "", "server.key: it is not PEM: "),
        ("server.key", pair.certificate.as_str(), "server.key: there is no private key in it"),
        ("server.key", encrypted, "server.key: the private key is encrypted"),
    ] {
        pair.write(folder);
        fs::write(folder.join(name), text).unwrap();
        let problem = refused(&files, folder);
        assert!(problem.starts_with(said), "{problem}");
    }
    pair.write(folder);
    fs::write(&files.key, authority.signs("a.example").key).unwrap();
    let said =
        "the private key in server.key does not belong to the first certificate in server.pem";
    assert!(refused(&files, folder).starts_with(said));
    for name in ["server.pem", "server.key"] {
        pair.write(folder);
        fs::remove_file(folder.join(name)).unwrap();
        let said = format!("{name}: it cannot be read: No such file or directory (os error 2)");
        assert_eq!(refused(&files, folder), said);
    }
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Authority::new().signs("a.example");
    let files = pair.write(folder.path());
    for mode in [0o644, 0o640, 0o604] {
        fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
        let said = format!("server.key: it can be read by others (mode {mode:04o}).");
        assert!(refused(&files, folder.path()).starts_with(&said));
    }
    // One file for both is as secret as the key.
    let path = folder.path().join("both.pem");
    fs::write(&path, [pair.certificate, pair.key].concat()).unwrap();
    let both = Files { certificate: path.clone(), key: path.clone(), clients: Clients::Unasked };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refused(&both, folder.path()).starts_with("both.pem: it can be read by others"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Certificates::load(both).is_ok());
}

/// Both sides of a handshake.
async fn meet(certificates: &Certificates, caller: &Caller) -> io::Result<()> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (came, called) = tokio::join!(certificates.accept(near), caller.call(far));
    called?;
    came.map(drop).map_err(|(problem, _)| problem)
}

fn caller(authority: &Authority, host: &str) -> Caller {
    Caller::new(host, authority.roots(), b"h2").unwrap()
}

#[tokio::test]
async fn a_bad_pair_never_takes_the_place_of_a_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let files = old.signs("a.example").write(folder.path());
    let certificates = Certificates::load(files.clone()).unwrap();
    assert_eq!(certificates.reload().unwrap(), Reloaded::Unchanged);
    // The certificate is there, and its key has yet to come.
    let pair = new.signs("a.example");
    fs::write(&files.certificate, &pair.certificate).unwrap();
    assert!(matches!(certificates.reload(), Err(TlsError::Mismatch { .. })));
    fs::write(&files.certificate, "").unwrap();
    assert!(certificates.reload().is_err());
    meet(&certificates, &caller(&old, "a.example")).await.unwrap();
    pair.write(folder.path());
    assert_eq!(certificates.reload().unwrap(), Reloaded::New);
    meet(&certificates, &caller(&new, "a.example")).await.unwrap();
    meet(&certificates, &caller(&old, "a.example")).await.unwrap_err();
}

#[tokio::test]
async fn a_change_is_seen_and_what_is_wrong_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let pair = |name| Authority::new().signs(name);
    let files = pair("a.example").write(folder.path());
    let certificates = Certificates::load(files.clone()).unwrap();
    let (sender, mut said) = mpsc::unbounded_channel();
    let following = tokio::spawn(async move {
        certificates
            .follow(|outcome| {
                let text = outcome.as_ref().map_err(ToString::to_string).copied();
                sender.send(text).unwrap();
            })
            .await
            .unwrap();
    });
    let next = async |said: &mut mpsc::UnboundedReceiver<_>| {
        tokio::time::timeout(Duration::from_secs(20), said.recv()).await.unwrap().unwrap()
    };
    tokio::time::sleep(Duration::from_millis(400)).await;
    fs::write(&files.key, "none").unwrap();
    assert!(next(&mut said).await.is_err());
    // Something else changes beside it.
    fs::write(folder.path().join("other"), "").unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(said.try_recv().is_err(), "it was said before");
    // As whoever renews it does: new files in the place of the old ones.
    let new = tempfile::tempdir_in(folder.path()).unwrap();
    let fresh = pair("b.example").write(new.path());
    fs::rename(fresh.key, &files.key).unwrap();
    fs::rename(fresh.certificate, &files.certificate).unwrap();
    assert_eq!(next(&mut said).await, Ok(Reloaded::New));
    following.abort();
}

#[tokio::test]
async fn nobody_is_taken_for_somebody_else() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for (name, host) in [("a.example", "a.example"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        meet(&ours.signs(name).loaded(), &caller(&ours, host)).await.unwrap();
    }
    for (authority, name, host) in [
        (&theirs, "a.example", "a.example"),
        (&ours, "b.example", "a.example"),
        (&ours, "127.0.0.2", "127.0.0.1"),
        (&ours, "a.example", "127.0.0.1"),
    ] {
        let problem = meet(&authority.signs(name).loaded(), &caller(&ours, host)).await;
        let problem = problem.unwrap_err().to_string();
        assert!(problem.contains("invalid peer certificate"), "{problem}");
    }
    // The public authorities know nobody of ours.
    let public = Caller::new("a.example", None, b"h2").unwrap();
    let problem = meet(&ours.signs("a.example").loaded(), &public).await.unwrap_err();
    assert!(problem.to_string().contains("UnknownIssuer"), "{problem}");
}
