//! The file as it is written: sections, keys, their defaults and their sentences.
//!
//! This is the one list of keys. The environment, the JSON Schema and the printed configuration are made from it, and a test holds the
//! shipped `config.toml` against it. Nothing is validated here; [`super::Settings`] is what the program runs on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Keyward's configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Keyward configuration")]
pub struct File {
    /// The public listener: what clients and proxies reach.
    pub server: Server,
    /// The admin listener: the API, the web console, health and metrics.
    pub admin: Admin,
    /// Where users, keys, roles, applications and resources are kept.
    pub store: Store,
    /// The Rhai scripts.
    pub scripts: Scripts,
    /// What one client may take of the machine.
    pub limits: Limits,
    /// The audit trail: who changed what.
    pub audit: Audit,
    /// What Keyward writes to standard error.
    pub log: Log,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// The address and port for requests; 0.0.0.0 or [::] is every interface, port 0 a free one.
    #[allow(rustdoc::broken_intra_doc_links, reason = "[::] is an address")]
    pub listen: String,
    /// The absolute base of Location headers, such as "https://api.example.com"; empty: taken from the Host header.
    pub public_url: String,
    /// The threads that serve requests; 0: one for each core.
    #[schemars(range(min = 0, max = 1024))]
    pub workers: i64,
    /// The seconds that requests in flight get to finish when Keyward stops; what is left then is cut off.
    #[schemars(range(min = 1, max = 3600))]
    pub shutdown_seconds: i64,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// The address and port, or "unix:/path/to.sock" for a unix socket.
    pub listen: String,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The storage engine: "sled" keeps everything on disk, "memory" forgets everything on stop.
    #[schemars(extend("enum" = ["sled", "memory"]))]
    pub engine: String,
    /// The store's folder, which Keyward makes at the first start.
    pub path: String,
    /// The file of the pepper that key digests are made with; empty: the store's path with .pepper appended.
    pub pepper_file: String,
    /// The most memory that the engine's page cache takes, in MiB.
    #[schemars(range(min = 16, max = 1024))]
    pub cache_mib: i64,
}

/// `[scripts]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scripts {
    /// The folder of the scripts, which may be missing where there are none.
    pub dir: String,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The connections that are open at the same time, on all listeners together.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: i64,
    /// The bytes of a request's line and headers together.
    #[schemars(range(min = 8192, max = 1_048_576))]
    pub header_bytes: i64,
    /// The header fields of a request.
    #[schemars(range(min = 16, max = 1024))]
    pub headers: i64,
    /// The bytes of a request's body.
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub body_bytes: i64,
    /// The bytes of the header field that carries the credential; never more than header_bytes.
    #[schemars(range(min = 256, max = 65_536))]
    pub credential_bytes: i64,
    /// The seconds in which a request's headers have to arrive.
    #[schemars(range(min = 1, max = 600))]
    pub header_read_seconds: i64,
    /// The seconds in which a request's body has to arrive.
    #[schemars(range(min = 1, max = 3600))]
    pub body_read_seconds: i64,
    /// The seconds that a connection stays open without a request.
    #[schemars(range(min = 1, max = 3600))]
    pub idle_seconds: i64,
    /// The requests that run at the same time on one HTTP/2 connection.
    #[schemars(range(min = 1, max = 10_000))]
    pub http2_streams: i64,
    /// The passwords that are checked at the same time, each in 19 MiB of memory; 0: one for each core.
    #[schemars(range(min = 0, max = 256))]
    pub password_checks: i64,
    /// The keys that a user may have at the same time, without those that are revoked or have expired.
    #[schemars(range(min = 1, max = 100_000))]
    pub keys_per_user: i64,
}

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// The entries that are kept; when there are more, the oldest go. Each takes some 500 bytes.
    #[schemars(range(min = 1000, max = 10_000_000))]
    pub entries: i64,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level (error, warn, info, debug, trace, off), or directives such as "info,keyward=debug".
    pub level: String,
    /// The form of a log line: "text" for people, "json" for programs.
    #[schemars(extend("enum" = ["text", "json"]))]
    pub format: String,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            public_url: String::new(),
            workers: 0,
            shutdown_seconds: 10,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8081".into() }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            engine: "sled".into(),
            path: "data/keyward".into(),
            pepper_file: String::new(),
            cache_mib: 32,
        }
    }
}

impl Default for Scripts {
    fn default() -> Self {
        Self { dir: "scripts".into() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_bytes: 16_384,
            headers: 100,
            body_bytes: 1_048_576,
            credential_bytes: 4096,
            header_read_seconds: 10,
            body_read_seconds: 30,
            idle_seconds: 75,
            http2_streams: 128,
            password_checks: 0,
            keys_per_user: 100,
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { entries: 100_000 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: "text".into() }
    }
}
