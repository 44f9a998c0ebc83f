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
    /// The headers that tell an upstream who asks.
    pub identity: Identity,
    /// Where users, keys, roles, applications and resources are kept.
    pub store: Store,
    /// The Rhai scripts.
    pub scripts: Scripts,
    /// What one client may take of the machine.
    pub limits: Limits,
    /// The audit trail: who changed what, and who was refused.
    pub audit: Audit,
    /// What is told of keys and users: scripts/events.rhai, and its webhooks.
    pub events: Events,
    /// What Keyward writes to standard error.
    pub log: Log,
    /// Where webhooks go: a section `[webhooks.NAME]` for each.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub webhooks: std::collections::BTreeMap<String, Webhook>,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// The address and port for requests; 0.0.0.0 or [::] is every interface, port 0 a free one.
    #[allow(rustdoc::broken_intra_doc_links, reason = "[::] is an address")]
    pub listen: String,
    /// The address and port where Envoy asks over gRPC (envoy.service.auth.v3), with this section's TLS and for trusted_proxies alone; empty: nowhere.
    pub grpc_listen: String,
    /// The absolute base of Location headers, such as "https://api.example.com"; empty: taken from the Host header.
    pub public_url: String,
    /// The addresses and networks of the proxies in front that are believed, with commas between them; they alone may ask at /-/verify.
    pub trusted_proxies: String,
    /// Whether connections begin with a PROXY header, version 1 or 2, that names the client: "off", or "on", and then only trusted_proxies may connect.
    #[schemars(extend("enum" = ["off", "on"]))]
    pub proxy_protocol: String,
    /// The certificate for TLS in PEM, with those that signed it below; empty: no TLS.
    pub tls_certificate: String,
    /// The certificate's private key in PEM, which others may not read; empty: it stands in the certificate's file.
    pub tls_key: String,
    /// The certificates in PEM of those that sign clients' certificates; empty: clients are asked for none.
    pub tls_client_ca: String,
    /// What becomes of a client without such a certificate: with "required" it is turned away, with "optional" it comes in.
    #[schemars(extend("enum" = ["required", "optional"]))]
    pub tls_client_certificates: String,
    /// The threads that serve requests; 0: one for each core.
    #[schemars(range(min = 0, max = 1024))]
    pub workers: i64,
    /// How they share the work: "shared", they take connections from one listener and help each other out; "per_worker", each has its own (SO_REUSEPORT) and keeps what the kernel gives it.
    #[schemars(extend("enum" = ["shared", "per_worker"]))]
    pub runtime: String,
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
    /// The certificate for TLS in PEM, with those that signed it below; empty: no TLS.
    pub tls_certificate: String,
    /// The certificate's private key in PEM, which others may not read; empty: it stands in the certificate's file.
    pub tls_key: String,
    /// The certificates in PEM of those that sign clients' certificates; empty: clients are asked for none.
    pub tls_client_ca: String,
    /// What becomes of a client without such a certificate: with "required" it is turned away, with "optional" it comes in.
    #[schemars(extend("enum" = ["required", "optional"]))]
    pub tls_client_certificates: String,
}

/// `[identity]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// The header with the user's name; copies from a client are taken away, whatever these are called.
    pub user: String,
    /// The header with the user's number.
    pub user_id: String,
    /// The header with the ids of the user's roles.
    pub roles: String,
    /// The header with the public id of the key.
    pub key_id: String,
    /// The header with the id of the application.
    pub application: String,
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
    /// The file of the key with which another system made HMAC-SHA-256 of its keys, where such were imported; others may not read it. Empty: none.
    pub hmac_key_file: String,
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
    /// The folder of the scripts' secrets, a file each: its name is the secret's, and others may not read it. It may be missing.
    pub secrets_dir: String,
    /// The steps that one call of a script may take.
    #[schemars(range(min = 1_000, max = 100_000_000))]
    pub operations: i64,
    /// The milliseconds that one call may take.
    #[schemars(range(min = 1, max = 10_000))]
    pub call_milliseconds: i64,
    /// The steps that one call may take of a script that says `const BLOCKING = true;`.
    #[schemars(range(min = 1_000, max = 1_000_000_000))]
    pub blocking_operations: i64,
    /// The milliseconds that such a call may take, on a thread of its own.
    #[schemars(range(min = 1, max = 60_000))]
    pub blocking_milliseconds: i64,
    /// The calls of blocking scripts that run at the same time.
    #[schemars(range(min = 1, max = 256))]
    pub blocking_calls: i64,
    /// The calls of blocking scripts that may wait for their turn; one more is refused with 503.
    #[schemars(range(min = 0, max = 10_000))]
    pub blocking_queue: i64,
    /// The seconds that one `test_` function may take when scripts are loaded.
    #[schemars(range(min = 1, max = 60))]
    pub test_seconds: i64,
    /// How deep functions may call functions.
    #[schemars(range(min = 4, max = 64))]
    pub call_levels: i64,
    /// How deep expressions and blocks may be nested.
    #[schemars(range(min = 8, max = 64))]
    pub expression_depth: i64,
    /// The bytes of a text in a script.
    #[schemars(range(min = 1_024, max = 16_777_216))]
    pub string_bytes: i64,
    /// The elements of an array, and the bytes of a blob.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub array_items: i64,
    /// The entries of a map.
    #[schemars(range(min = 16, max = 100_000))]
    pub map_entries: i64,
    /// The variables of a call.
    #[schemars(range(min = 16, max = 10_000))]
    pub variables: i64,
    /// The functions of a file.
    #[schemars(range(min = 8, max = 1_024))]
    pub functions: i64,
    /// The bytes of a file.
    #[schemars(range(min = 1_024, max = 4_194_304))]
    pub script_bytes: i64,
    /// The files of the folder.
    #[schemars(range(min = 1, max = 10_000))]
    pub files: i64,
    /// The lines that one call may write into the log.
    #[schemars(range(min = 0, max = 10_000))]
    pub log_lines: i64,
    /// The notes that hooks may leave on one request.
    #[schemars(range(min = 0, max = 1_024))]
    pub notes: i64,
    /// The buckets of `rate_limit` that are remembered; a new one beyond them is over its limit.
    #[schemars(range(min = 16, max = 16_777_216))]
    pub rate_buckets: i64,
    /// The ids of `once` that are remembered; a new one beyond them counts as seen.
    #[schemars(range(min = 16, max = 16_777_216))]
    pub replay_ids: i64,
    /// How often a script may run out of its budget within strike_seconds before it is switched off.
    #[schemars(range(min = 1, max = 1_000))]
    pub strikes: i64,
    /// The seconds in which that is counted.
    #[schemars(range(min = 1, max = 3_600))]
    pub strike_seconds: i64,
    /// The seconds for which a script stays switched off, unless it is loaded again.
    #[schemars(range(min = 1, max = 86_400))]
    pub cool_down_seconds: i64,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The connections that are open at the same time on the public listener; the admin listener has 64 of its own.
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
    /// The seconds after which the use of keys and spent credits are written down: what a killed server forgets of them.
    #[schemars(range(min = 1, max = 3600))]
    pub usage_write_seconds: i64,
    /// The seconds in which wrong credentials are counted.
    #[schemars(range(min = 1, max = 86_400))]
    pub failure_seconds: i64,
    /// The wrong passwords of one user name from one address (IPv6: from one /64) in that time, before they are not looked at any more; 0: no limit.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub password_failures: i64,
    /// The wrong passwords from one address, of all user names together; 0: no limit.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub password_failures_per_address: i64,
    /// The wrong credentials of any kind from one address, before they are answered with 429; a right key always passes; 0: no limit.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub failures_per_address: i64,
    /// The addresses and networks whose failures are not counted, with commas between them; a proxy for many clients is one.
    pub failure_exempt: String,
    /// The addresses and user names whose failures are remembered; when there are more, those go that would be forgotten soonest.
    #[schemars(range(min = 16, max = 16_777_216))]
    pub failure_entries: i64,
}

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// The entries that are kept; when there are more, the oldest go. Each takes some 500 bytes.
    #[schemars(range(min = 1000, max = 10_000_000))]
    pub entries: i64,
    /// Which refused requests get an entry: "none", "sampled", or "all".
    #[schemars(extend("enum" = ["none", "sampled", "all"]))]
    pub denials: String,
    /// With "sampled", of those that are alike the first in a minute gets one, and then each after so many.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub denial_sample: i64,
    /// The entries that refused requests get in a day, a quarter of them at once and never more than a tenth of entries; the rest is counted in one entry an hour.
    #[schemars(range(min = 4, max = 1_000_000))]
    pub denial_entries: i64,
}

/// `[events]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// The days before a key's end on which on_key_expiring is called, with commas between them.
    pub expiring_days: String,
    /// The webhooks that wait for their delivery; when there are more, the newest are left out.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub webhooks_waiting: i64,
    /// How often a webhook is tried before it is given up.
    #[schemars(range(min = 1, max = 20))]
    pub webhook_tries: i64,
    /// The seconds until the second try; until each further one it is four times as long, give or take a quarter.
    #[schemars(range(min = 1, max = 3_600))]
    pub webhook_retry_seconds: i64,
}

/// `[webhooks.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// Where it is sent: http:// or https://, a host, perhaps a port and a path.
    pub url: String,
    /// The name of the secret it is signed with, a file of scripts.secrets_dir: `whsec_` and base64, or any other text.
    pub secret: String,
    /// The certificates in PEM of those that sign the receiver's; empty: the public authorities.
    pub ca: String,
    /// The seconds in which one try has to be answered.
    #[schemars(range(min = 1, max = 120))]
    pub timeout_seconds: i64,
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
            grpc_listen: String::new(),
            public_url: String::new(),
            trusted_proxies: "127.0.0.0/8, ::1".into(),
            proxy_protocol: "off".into(),
            tls_certificate: String::new(),
            tls_key: String::new(),
            tls_client_ca: String::new(),
            tls_client_certificates: "required".into(),
            workers: 0,
            runtime: "shared".into(),
            shutdown_seconds: 10,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8081".into(),
            tls_certificate: String::new(),
            tls_key: String::new(),
            tls_client_ca: String::new(),
            tls_client_certificates: "required".into(),
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            user: "X-Keyward-User".into(),
            user_id: "X-Keyward-User-Id".into(),
            roles: "X-Keyward-Roles".into(),
            key_id: "X-Keyward-Key-Id".into(),
            application: "X-Keyward-Application".into(),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            engine: "sled".into(),
            path: "data/keyward".into(),
            pepper_file: String::new(),
            hmac_key_file: String::new(),
            cache_mib: 32,
        }
    }
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            dir: "scripts".into(),
            secrets_dir: "secrets".into(),
            operations: 100_000,
            call_milliseconds: 50,
            blocking_operations: 1_000_000,
            blocking_milliseconds: 2_000,
            blocking_calls: 8,
            blocking_queue: 64,
            test_seconds: 5,
            call_levels: 24,
            expression_depth: 32,
            string_bytes: 262_144,
            array_items: 1_024,
            map_entries: 512,
            variables: 256,
            functions: 128,
            script_bytes: 262_144,
            files: 256,
            log_lines: 32,
            notes: 32,
            rate_buckets: 65_536,
            replay_ids: 262_144,
            strikes: 5,
            strike_seconds: 60,
            cool_down_seconds: 60,
        }
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
            usage_write_seconds: 10,
            failure_seconds: 900,
            password_failures: 5,
            password_failures_per_address: 20,
            failures_per_address: 100,
            failure_exempt: String::new(),
            failure_entries: 65_536,
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            entries: 100_000,
            denials: "sampled".into(),
            denial_sample: 100,
            denial_entries: 1_000,
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self {
            expiring_days: "30, 7, 1".into(),
            webhooks_waiting: 10_000,
            webhook_tries: 8,
            webhook_retry_seconds: 5,
        }
    }
}

impl Default for Webhook {
    fn default() -> Self {
        Self { url: String::new(), secret: String::new(), ca: String::new(), timeout_seconds: 15 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: "text".into() }
    }
}
