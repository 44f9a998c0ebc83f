//! The validated configuration, with every default and derived path filled in.

mod audit;
mod backup;
mod buffers;
mod entity_user;
mod events;
mod faces;
mod failures;
mod listen_address;
mod scripts;
mod telemetry;
mod tls;
mod verify;

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

pub use audit::AuditSettings;
pub use events::EventSettings;
use ipnet::IpNet;
pub use listen_address::ListenAddress;
pub use scripts::ScriptSettings;
use telemetry::AccessLogSettings;
pub use telemetry::{LogSettings, MetricsSettings};
use tracing_subscriber::EnvFilter;
pub use verify::VerifySettings;

use super::{
    file::{self, File},
    paths::Origin,
};
use crate::{
    accounts::BackupSchedule,
    handlers::{CustomField, IdentityFields},
    limits::{BufferLimits, FailureLimits},
    tls::TlsFiles,
};

/// The validated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The public listener.
    pub server: ServerSettings,
    /// The listener for proxies that ask about requests.
    pub verify: VerifySettings,
    /// The admin listener.
    pub admin: AdminSettings,
    /// The identity header fields.
    pub identity: IdentityFields,
    /// The networks in which upstreams may be. Empty means the default.
    pub upstream_networks: Vec<IpNet>,
    /// The custom fields of the user entity, sorted by name.
    pub custom_fields: Vec<CustomField>,
    /// The store.
    pub store: StoreSettings,
    /// The backups that the server writes. `None` means none.
    pub backup: Option<BackupSchedule>,
    /// The Rhai scripts.
    pub scripts: ScriptSettings,
    /// Limits of requests, connections and failed authentications.
    pub limits: LimitSettings,
    /// The audit trail.
    pub audit: AuditSettings,
    /// Events and webhooks.
    pub events: EventSettings,
    /// The log.
    pub log: LogSettings,
    /// The metrics. `None` means none.
    pub metrics: Option<MetricsSettings>,
    /// The access log. `None` means none.
    pub access_log: Option<AccessLogSettings>,
    /// The places that the paths come from.
    pub origin: Origin,
}

/// The public listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// The address; port 0 means a free port.
    pub listen: SocketAddr,
    /// The base URL of Location header fields, without a trailing slash. `None` means the request's
    /// Host.
    pub public_url: Option<String>,
    /// The path of the health check on the public listener. `None` means none.
    pub health_path: Option<String>,
    /// The trusted proxies.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: ProxyProtocol,
    /// The TLS files. `None` means no TLS.
    pub tls: Option<TlsFiles>,
    /// The number of worker threads, at least one.
    pub workers: usize,
    /// How workers share connections.
    pub runtime: Runtime,
    /// The time that running requests have to finish when the program stops.
    pub shutdown: Duration,
}

/// How workers share the public listener's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// One listener for all workers.
    Shared,
    /// One listener per worker, on the same address.
    PerWorker,
}

/// Whether connections begin with a PROXY protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Connections begin without a header.
    Off,
    /// Each connection begins with a header. Only trusted proxies may connect.
    On,
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// The address.
    pub listen: ListenAddress,
    /// The names by which clients may address the listener, besides its address.
    pub names: Vec<String>,
    /// The TLS files. `None` means no TLS.
    pub tls: Option<TlsFiles>,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The engine.
    pub engine: Engine,
    /// The store's folder.
    pub path: PathBuf,
    /// The pepper file, always outside `path`.
    pub pepper_file: PathBuf,
    /// The file of another system's HMAC key, for digests that were imported from that system.
    pub hmac_key_file: Option<PathBuf>,
    /// The control file of a running server, for the command line: `path` with `.control` appended.
    pub control_file: PathBuf,
    /// The socket through which the command line reaches a server whose admin listener has TLS:
    /// `path` with `.sock` appended, as an absolute path.
    pub socket_file: PathBuf,
    /// The maximum size of the page cache, in MiB.
    pub cache_mib: u64,
}

/// The storage engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Stores on disk, with sled.
    Sled,
    /// Stores on disk, with redb.
    Redb,
    /// Stores in memory, until the program stops.
    Memory,
}

/// Limits of requests, connections and failed authentications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSettings {
    /// The maximum number of open connections of the public listener.
    pub connections: usize,
    /// The maximum size of request line and header section, in bytes.
    pub header_bytes: usize,
    /// The maximum number of header fields.
    pub headers: usize,
    /// The maximum size of a body, in bytes.
    pub body_bytes: usize,
    /// The memory of request bodies.
    pub buffers: BufferLimits,
    /// The maximum size of the credential's header field, in bytes; at most `header_bytes`.
    pub credential_bytes: usize,
    /// The time limit for receiving a header section.
    pub header_read: Duration,
    /// The time limit for receiving a body.
    pub body_read: Duration,
    /// The time after which an idle connection is closed.
    pub idle: Duration,
    /// The maximum number of concurrent requests of one HTTP/2 connection.
    pub http2_streams: u32,
    /// The maximum number of concurrent password checks, at least one.
    pub password_checks: usize,
    /// The maximum number of a user's active keys.
    pub keys_per_user: usize,
    /// The interval at which key uses and spent credits are written to the store.
    pub usage_write: Duration,
    /// The limits of failed authentications.
    pub failures: FailureLimits,
}

/// Validates `file`. For each broken rule, calls `report` with the rule's keys, the problem and the
/// fix. If `report` was called, the returned settings contain placeholders and must not be used.
pub(super) fn resolve(file: &File, report: impl FnMut(&[&str], String, String)) -> Settings {
    let mut check = Check { report };
    let settings = Settings {
        server: check.server(&file.server),
        verify: check.verify(&file.verify),
        admin: check.admin(&file.admin),
        identity: check.identity(&file.identity),
        upstream_networks: check.networks("proxy.allowed_networks", &file.proxy.allowed_networks),
        custom_fields: check.custom_fields(&file.entity_user),
        backup: check.backup(&file.backup, &file.store.path),
        store: check.store(&file.store),
        scripts: check.scripts(&file.scripts),
        limits: check.limits(&file.limits),
        audit: check.audit(&file.audit),
        events: check.events(&file.events, &file.webhooks),
        log: check.log(&file.log),
        metrics: check.metrics(&file.metrics),
        access_log: check.access_log(&file.access_log),
        origin: Origin::default(),
    };
    check.together(&settings);
    settings
}

/// Validates sections, and reports broken rules.
struct Check<R> {
    report: R,
}

impl<R: FnMut(&[&str], String, String)> Check<R> {
    fn broken(&mut self, key: &str, message: &str, fix: impl Into<String>) {
        (self.report)(&[key], message.into(), fix.into());
    }

    fn server(&mut self, raw: &file::ServerSection) -> ServerSettings {
        ServerSettings {
            listen: self.address("server.listen", &raw.listen, ""),
            public_url: self.public_url("server.public_url", &raw.public_url),
            health_path: self.health_path("server.health_path", &raw.health_path),
            trusted_proxies: self.networks("server.trusted_proxies", &raw.trusted_proxies),
            proxy_protocol: self.choice(
                "server.proxy_protocol",
                &raw.proxy_protocol,
                [("off", ProxyProtocol::Off), ("on", ProxyProtocol::On)],
            ),
            tls: self.tls(raw),
            workers: or_cores(self.size("server.workers", raw.workers, 0..=1024)),
            runtime: self.choice(
                "server.runtime",
                &raw.runtime,
                [("shared", Runtime::Shared), ("per_worker", Runtime::PerWorker)],
            ),
            shutdown: self.seconds("server.shutdown_seconds", raw.shutdown_seconds, 1..=3600),
        }
    }

    fn store(&mut self, raw: &file::StoreSection) -> StoreSettings {
        let path = self.store_path("store.path", &raw.path);
        let pepper_file = match raw.pepper_file.as_str() {
            "" => appended(&path, ".pepper"),
            given => given.into(),
        };
        if lies_in(&pepper_file, &path) {
            self.broken(
                "store.pepper_file",
                "The pepper would be in the store's folder, and so in every copy of the store.",
                "Use a file outside of store.path.",
            );
        }
        let hmac_key_file = Some(&raw.hmac_key_file).filter(|path| !path.is_empty());
        let engines = [("sled", Engine::Sled), ("redb", Engine::Redb), ("memory", Engine::Memory)];
        StoreSettings {
            engine: self.choice("store.engine", &raw.engine, engines),
            control_file: appended(&path, ".control"),
            socket_file: tls::socket_file(&path),
            path,
            pepper_file,
            hmac_key_file: hmac_key_file.map(PathBuf::from),
            cache_mib: self.number("store.cache_mib", raw.cache_mib, 16..=1024),
        }
    }

    fn limits(&mut self, raw: &file::LimitsSection) -> LimitSettings {
        let streams = self.number("limits.http2_streams", raw.http2_streams, 1..=10_000);
        LimitSettings {
            connections: self.size("limits.connections", raw.connections, 1..=1_000_000),
            header_bytes: self.size("limits.header_bytes", raw.header_bytes, 8192..=1_048_576),
            headers: self.size("limits.headers", raw.headers, 16..=1024),
            body_bytes: self.size("limits.body_bytes", raw.body_bytes, 1..=1_073_741_824),
            buffers: self.buffers(raw),
            credential_bytes: self.size(
                "limits.credential_bytes",
                raw.credential_bytes,
                256..=65_536,
            ),
            header_read: self.seconds(
                "limits.header_read_seconds",
                raw.header_read_seconds,
                1..=600,
            ),
            body_read: self.seconds("limits.body_read_seconds", raw.body_read_seconds, 1..=3600),
            idle: self.seconds("limits.idle_seconds", raw.idle_seconds, 1..=3600),
            http2_streams: u32::try_from(streams).unwrap_or(u32::MAX),
            password_checks: or_cores(self.size(
                "limits.password_checks",
                raw.password_checks,
                0..=256,
            )),
            keys_per_user: self.size("limits.keys_per_user", raw.keys_per_user, 1..=100_000),
            usage_write: self.seconds(
                "limits.usage_write_seconds",
                raw.usage_write_seconds,
                1..=3600,
            ),
            failures: self.failures(raw),
        }
    }

    /// Checks the rules that concern several keys.
    fn together(&mut self, settings: &Settings) {
        self.ports(settings);
        self.admin_tls(settings);
        self.proxy_protocol(&settings.server);
        if settings.limits.credential_bytes > settings.limits.header_bytes {
            self.broken(
                "limits.credential_bytes",
                "The number is greater than limits.header_bytes, which is checked first.",
                "Use a smaller number, or raise limits.header_bytes.",
            );
        }
    }

    fn address(&mut self, key: &str, text: &str, more: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            let fix = "Use an IP address with a port, such as 127.0.0.1:8080, [::1]:8080, or 0.0.0.0:8080 for all interfaces.";
            self.broken(key, "The value is not an address to listen on.", format!("{fix}{more}"));
            // Port 0 never collides with another listener's port, so one mistake is reported only
            // once.
            (Ipv4Addr::LOCALHOST, 0).into()
        })
    }

    fn tcp_or_unix(&mut self, key: &str, text: &str) -> ListenAddress {
        match text.strip_prefix("unix:") {
            Some(path) => ListenAddress::Unix(self.socket(key, path)),
            None => {
                let more = " Write a Unix socket as unix:/path/to.sock.";
                ListenAddress::Tcp(self.address(key, text, more))
            }
        }
    }

    fn socket(&mut self, key: &str, path: &str) -> PathBuf {
        if !path.starts_with('/') || path.ends_with('/') || !unix_path_fits(Path::new(path)) {
            self.broken(
                key,
                "The value is not the path of a Unix socket.",
                format!("Use unix: and a path that has at most {MAX_SOCKET_PATH} bytes with its folder, such as unix:/run/keyward/admin.sock."),
            );
        }
        path.into()
    }

    fn path(&mut self, key: &str, text: &str) -> PathBuf {
        if text.trim().is_empty() {
            self.broken(key, "The path is empty.", "Use the path of a folder.");
        }
        text.into()
    }

    /// Returns the store's folder without a trailing slash, because the paths of other files are
    /// made by appending to this path.
    fn store_path(&mut self, key: &str, text: &str) -> PathBuf {
        let path: PathBuf = Path::new(text).components().collect();
        if text.trim().is_empty() || path.file_name().is_none() {
            self.broken(
                key,
                "The path does not end with the name of a folder.",
                "Use the path of a folder that only the store uses, such as data/keyward.",
            );
            return "unnamed".into();
        }
        path
    }

    fn directives(&mut self, key: &str, text: &str) -> String {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let joined = parts.join(",");
        if !parts.iter().all(|part| is_directive(part))
            || EnvFilter::builder().parse(&joined).is_err()
        {
            self.broken(
                key,
                "The value is not a log level.",
                "Use error, warn, info, debug, trace or off, or directives such as info,keyward=debug.",
            );
        }
        joined
    }

    fn choice<T: Copy, const N: usize>(
        &mut self,
        key: &str,
        text: &str,
        known: [(&str, T); N],
    ) -> T {
        let (_, stand_in) = known[0];
        known.into_iter().find(|(name, _)| *name == text).map_or_else(
            || {
                let names = known.map(|(name, _)| format!("{name:?}"));
                let fix = format!("Use {}.", names.join(" or "));
                self.broken(key, "The value is not one of the choices.", fix);
                stand_in
            },
            |(_, value)| value,
        )
    }

    /// Returns the number, clamped to the allowed range. Reports a number out of range.
    fn number(&mut self, key: &str, number: i64, allowed: RangeInclusive<u32>) -> u64 {
        let (min, max) = (i64::from(*allowed.start()), i64::from(*allowed.end()));
        if !(min..=max).contains(&number) {
            self.broken(
                key,
                "This number is out of range.",
                format!("Use a whole number from {min} to {max}."),
            );
        }
        number.clamp(min, max).unsigned_abs()
    }

    fn size(&mut self, key: &str, number: i64, allowed: RangeInclusive<u32>) -> usize {
        usize::try_from(self.number(key, number, allowed)).unwrap_or(usize::MAX)
    }

    fn seconds(&mut self, key: &str, number: i64, allowed: RangeInclusive<u32>) -> Duration {
        Duration::from_secs(self.number(key, number, allowed))
    }
}

/// Returns `number`, or the number of cores if `number` is 0.
fn or_cores(number: usize) -> usize {
    match number {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        number => number,
    }
}

/// The maximum length of a Unix socket's path, in bytes. The address of a Unix socket has 108
/// bytes, of which the last is a NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

fn unix_path_fits(path: &Path) -> bool {
    path.as_os_str().len() <= MAX_SOCKET_PATH
}

fn appended(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Whether the path `file` is equal to the path `folder` or below it. Links are not followed.
fn lies_in(file: &Path, folder: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute(file).starts_with(absolute(folder))
}

/// Whether two listeners have the same port and share an IP address, so that one cannot be bound.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    one.port() != 0
        && one.port() == other.port()
        && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// Whether `part` is a level or `target=level`. `EnvFilter` accepts more: it reads an unknown word
/// as a target, so a misspelled `info` would silence all other targets.
fn is_directive(part: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
    LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level))
}
