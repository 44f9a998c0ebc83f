//! The configuration file as written: sections, keys, defaults and descriptions.
//!
//! This is the only list of keys. The variables, the JSON Schema and the printed configuration are
//! derived from this list, and a test compares the shipped `config.toml` with it. Values are not
//! validated here: [`super::Settings`] is the validated form.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::{
    background::{AuditSection, BackupSection, WebhookSection},
    entity_user::EntityUserSection,
    identity::IdentitySection,
    log::LogSection,
    telemetry::{AccessLogSection, MetricsSection},
    upstreams::ProxySection,
    verify::VerifySection,
};

/// Keyward's configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Keyward configuration")]
pub struct File {
    /// The public listener, for clients and proxies.
    pub server: ServerSection,
    /// The listener for proxies that ask whether a request may pass.
    pub verify: VerifySection,
    /// The admin listener, for the API and health checks.
    pub admin: AdminSection,
    /// The header fields that tell an upstream who the caller is.
    pub identity: IdentitySection,
    /// The upstreams of resources with the handler proxy.
    pub proxy: ProxySection,
    /// The custom fields of the user entity.
    pub entity_user: EntityUserSection,
    /// The store of users, keys, roles, applications and resources.
    pub store: StoreSection,
    /// Backups that the server writes by itself.
    pub backup: BackupSection,
    /// The Rhai scripts.
    pub scripts: ScriptsSection,
    /// Limits of requests, connections and failed authentications.
    pub limits: LimitsSection,
    /// The audit trail of changes and denied requests.
    pub audit: AuditSection,
    /// Events of keys and users, for scripts/events.rhai and its webhooks.
    pub events: EventsSection,
    /// The log, which goes to standard error.
    pub log: LogSection,
    /// Counts of requests, for Prometheus and other programs.
    pub metrics: MetricsSection,
    /// A line for each request.
    pub access_log: AccessLogSection,
    /// The receivers of webhooks: a section `[webhooks.NAME]` for each receiver.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub webhooks: std::collections::BTreeMap<String, WebhookSection>,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSection {
    /// The address and port for requests. 0.0.0.0 or [::] means all interfaces, port 0 a free port.
    #[allow(rustdoc::broken_intra_doc_links, reason = "[::] is an address")]
    pub listen: String,
    /// The base URL of Location header fields, such as "https://api.example.com". Empty means that
    /// Keyward uses the request's Host.
    pub public_url: String,
    /// The trusted proxies in front: addresses and networks, separated by commas. Keyward believes
    /// what they say about their clients. Empty means that no proxy is trusted.
    pub trusted_proxies: String,
    /// The path of the health check on this listener, such as "/healthz", for load balancers. It
    /// needs no key and no Host. Empty means that there is none.
    pub health_path: String,
    /// Whether each connection begins with a PROXY protocol header (version 1 or 2) that contains
    /// the client's address: "off" or "on". With "on", only trusted_proxies may connect.
    #[schemars(extend("enum" = ["off", "on"]))]
    pub proxy_protocol: String,
    /// The file of the TLS certificate in PEM, followed by its intermediate certificates. Empty
    /// means no TLS.
    pub tls_certificate: String,
    /// The file of the certificate's private key in PEM, not readable by other users. Empty means
    /// that the key is in the certificate's file.
    pub tls_key: String,
    /// The file of the authorities that sign client certificates, in PEM. Empty means that clients
    /// are not asked for certificates.
    pub tls_client_ca: String,
    /// Whether a client without a certificate is rejected ("required") or accepted ("optional").
    #[schemars(extend("enum" = ["required", "optional"]))]
    pub tls_client_certificates: String,
    /// The number of worker threads. 0 means one thread per core.
    #[schemars(range(min = 0, max = 1024))]
    pub workers: i64,
    /// How workers share connections: "shared" means one listener and work stealing; "per_worker"
    /// means one listener per worker (SO_REUSEPORT), and a connection stays with its worker.
    #[schemars(extend("enum" = ["shared", "per_worker"]))]
    pub runtime: String,
    /// The time after which Keyward has stopped, in seconds. A fifth of it, at most 2 s, is for the
    /// last writes. Requests that need longer than the rest are cut off.
    #[schemars(range(min = 1, max = 3600))]
    pub shutdown_seconds: i64,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSection {
    /// The address and port, or "unix:/path/to.sock" for a Unix socket.
    pub listen: String,
    /// The names by which clients may address the admin listener, besides its address and
    /// localhost, separated by commas, such as "admin.example.com". Requests for other hosts are
    /// refused, because a web page can let its own name lead here.
    pub names: String,
    /// The file of the TLS certificate in PEM, followed by its intermediate certificates. Empty
    /// means no TLS.
    pub tls_certificate: String,
    /// The file of the certificate's private key in PEM, not readable by other users. Empty means
    /// that the key is in the certificate's file.
    pub tls_key: String,
    /// The file of the authorities that sign client certificates, in PEM. Empty means that clients
    /// are not asked for certificates.
    pub tls_client_ca: String,
    /// Whether a client without a certificate is rejected ("required") or accepted ("optional").
    #[schemars(extend("enum" = ["required", "optional"]))]
    pub tls_client_certificates: String,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSection {
    /// The storage engine: "sled" or "redb" on the disk, or "memory", which ends with the server.
    #[schemars(extend("enum" = ["sled", "redb", "memory"]))]
    pub engine: String,
    /// The store's folder, which Keyward creates at the first start.
    pub path: String,
    /// The file of the pepper, a secret that all key digests depend on. Empty means the store's
    /// path with .pepper appended.
    pub pepper_file: String,
    /// The file of the HMAC key for HMAC-SHA-256 key digests that were imported from another
    /// system, not readable by other users. Empty means none.
    pub hmac_key_file: String,
    /// The maximum size of the engine's page cache, in MiB.
    #[schemars(range(min = 16, max = 1024))]
    pub cache_mib: i64,
}

/// `[scripts]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScriptsSection {
    /// The folder of the scripts, which may be missing.
    pub dir: String,
    /// The folder of the scripts' secrets. Each file holds one secret, which has the file's name.
    /// Other users must not be able to read the files. The folder may be missing.
    pub secrets_dir: String,
    /// The maximum number of steps of one call.
    #[schemars(range(min = 1_000, max = 100_000_000))]
    pub operations: i64,
    /// The time limit of one call, in milliseconds.
    #[schemars(range(min = 1, max = 10_000))]
    pub call_milliseconds: i64,
    /// The maximum number of steps of one call of a script with `const BLOCKING = true;`.
    #[schemars(range(min = 1_000, max = 1_000_000_000))]
    pub blocking_operations: i64,
    /// The time limit of one blocking call, in milliseconds. Each blocking call has its own thread.
    #[schemars(range(min = 1, max = 60_000))]
    pub blocking_milliseconds: i64,
    /// The maximum number of concurrent calls of blocking scripts.
    #[schemars(range(min = 1, max = 256))]
    pub blocking_calls: i64,
    /// The maximum number of waiting calls of blocking scripts. Further calls are refused with 503.
    #[schemars(range(min = 0, max = 10_000))]
    pub blocking_queue: i64,
    /// The time limit of one `test_` function when scripts are loaded, in seconds.
    #[schemars(range(min = 1, max = 60))]
    pub test_seconds: i64,
    /// The maximum depth of nested function calls.
    #[schemars(range(min = 4, max = 64))]
    pub call_levels: i64,
    /// The maximum depth of nested expressions and blocks.
    #[schemars(range(min = 8, max = 64))]
    pub expression_depth: i64,
    /// The maximum size of a string, in bytes.
    #[schemars(range(min = 1_024, max = 16_777_216))]
    pub string_bytes: i64,
    /// The maximum number of elements of an array, and the maximum number of bytes of a blob.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub array_items: i64,
    /// The maximum number of entries of a map.
    #[schemars(range(min = 16, max = 100_000))]
    pub map_entries: i64,
    /// The maximum number of variables of a call.
    #[schemars(range(min = 16, max = 10_000))]
    pub variables: i64,
    /// The maximum memory of the variables of one call, in bytes.
    #[schemars(range(min = 65_536, max = 1_073_741_824))]
    pub call_bytes: i64,
    /// The maximum memory of the variables of all calls that run at the same time, in bytes.
    #[schemars(range(min = 1_048_576, max = 4_294_967_295_i64))]
    pub memory_bytes: i64,
    /// The maximum number of functions in a script file.
    #[schemars(range(min = 8, max = 1_024))]
    pub functions: i64,
    /// The maximum size of a script file, in bytes.
    #[schemars(range(min = 1_024, max = 4_194_304))]
    pub script_bytes: i64,
    /// The maximum number of script files in scripts.dir.
    #[schemars(range(min = 1, max = 10_000))]
    pub files: i64,
    /// The maximum number of log lines of one call.
    #[schemars(range(min = 0, max = 10_000))]
    pub log_lines: i64,
    /// The maximum number of notes that hooks may set on one request.
    #[schemars(range(min = 0, max = 1_024))]
    pub notes: i64,
    /// The maximum number of buckets of the script function `rate_limit`. A script may use a
    /// quarter, and a client half of this quarter. Beyond this limit, a new bucket counts as over
    /// its limit.
    #[schemars(range(min = 16, max = 16_777_216))]
    pub rate_buckets: i64,
    /// The maximum number of ids that `once` remembers. A script may use a quarter, and a client
    /// half of this quarter. Beyond this limit, a new id counts as seen.
    #[schemars(range(min = 16, max = 16_777_216))]
    pub replay_ids: i64,
    /// The number of calls within strike_seconds that exceed the limit of steps or time after
    /// which their client is shut out of the script (429).
    #[schemars(range(min = 1, max = 1_000))]
    pub strikes: i64,
    /// How many clients must cause that many strikes to switch the script off for all clients
    /// (503).
    #[schemars(range(min = 1, max = 1_000))]
    pub strike_clients: i64,
    /// The window in which strikes are counted, in seconds.
    #[schemars(range(min = 1, max = 3_600))]
    pub strike_seconds: i64,
    /// The time for which a client is shut out or a script is switched off, in seconds, unless a
    /// reload replaces the script earlier. Then one call decides whether the script is on again.
    #[schemars(range(min = 1, max = 86_400))]
    pub cool_down_seconds: i64,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// The maximum number of open connections of the public listener. The verify listeners together
    /// have the same limit, and the admin listener has a limit of 64.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: i64,
    /// The maximum size of the request line and header section together, in bytes.
    #[schemars(range(min = 8192, max = 1_048_576))]
    pub header_bytes: i64,
    /// The maximum number of header fields of a request.
    #[schemars(range(min = 16, max = 1024))]
    pub headers: i64,
    /// The maximum size of a request's body, in bytes.
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub body_bytes: i64,
    /// The maximum number of bytes of all request bodies that are in memory at one time, without
    /// those of the admin listener. One client's address may hold a quarter. Beyond this limit,
    /// requests with bodies get 503.
    #[schemars(range(min = 1_048_576, max = 4_294_967_295_i64))]
    pub buffered_bytes: i64,
    /// The part of buffered_bytes that clients may hold before their credential was checked, or
    /// without a credential. One address may hold a quarter.
    #[schemars(range(min = 65_536, max = 4_294_967_295_i64))]
    pub unauthenticated_bytes: i64,
    /// The maximum size of the header field with the credential, in bytes; at most header_bytes.
    #[schemars(range(min = 256, max = 65_536))]
    pub credential_bytes: i64,
    /// The time limit for receiving a request's header section, in seconds. A new connection has
    /// this time for its first request.
    #[schemars(range(min = 1, max = 600))]
    pub header_read_seconds: i64,
    /// The time limit for receiving a request's body, in seconds.
    #[schemars(range(min = 1, max = 3600))]
    pub body_read_seconds: i64,
    /// The time after which a connection without a request is closed, in seconds.
    #[schemars(range(min = 1, max = 3600))]
    pub idle_seconds: i64,
    /// The maximum number of concurrent requests of one HTTP/2 connection.
    #[schemars(range(min = 1, max = 10_000))]
    pub http2_streams: i64,
    /// The maximum number of concurrent password checks, which need 19 MiB of memory each. 0 means
    /// one check per core.
    #[schemars(range(min = 0, max = 256))]
    pub password_checks: i64,
    /// The maximum number of a user's keys, not counting revoked and expired keys.
    #[schemars(range(min = 1, max = 100_000))]
    pub keys_per_user: i64,
    /// The interval at which key uses and spent credits are written to the store, in seconds. A
    /// server that is killed loses the uses since the last write.
    #[schemars(range(min = 1, max = 3600))]
    pub usage_write_seconds: i64,
    /// The window in which failed authentications are counted, in seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub failure_seconds: i64,
    /// The maximum number of wrong passwords for one user name from one address (IPv6: one /64) per
    /// window. Beyond this limit, passwords are not checked. 0 means no limit.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub password_failures: i64,
    /// The maximum number of wrong passwords for all user names from one address. 0 means no limit.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub password_failures_per_address: i64,
    /// The maximum number of wrong credentials of any kind from one address. Beyond this limit,
    /// wrong credentials are refused with 429, and correct keys are accepted. 0 means no limit.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub failures_per_address: i64,
    /// Addresses and networks whose failures are not counted, separated by commas, such as a proxy
    /// for many clients.
    pub failure_exempt: String,
    /// The maximum number of addresses and user names whose failures are counted. Beyond this
    /// limit, an entry that expires soon is evicted.
    #[schemars(range(min = 16, max = 16_777_216))]
    pub failure_entries: i64,
}

/// `[events]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EventsSection {
    /// The days before a key's expiry on which on_key_expiring is called, separated by commas.
    pub expiring_days: String,
    /// The maximum number of pending webhooks. Beyond this limit, new webhooks are dropped.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub webhooks_waiting: i64,
    /// The maximum number of delivery attempts of a webhook.
    #[schemars(range(min = 1, max = 20))]
    pub webhook_tries: i64,
    /// The wait before the second attempt, in seconds. Each further wait is four times as long. A
    /// wait varies at random by up to a quarter.
    #[schemars(range(min = 1, max = 3_600))]
    pub webhook_retry_seconds: i64,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
            public_url: String::new(),
            health_path: String::new(),
            trusted_proxies: String::new(),
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

impl Default for AdminSection {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8081".into(),
            names: String::new(),
            tls_certificate: String::new(),
            tls_key: String::new(),
            tls_client_ca: String::new(),
            tls_client_certificates: "required".into(),
        }
    }
}

impl Default for StoreSection {
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

impl Default for ScriptsSection {
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
            rate_buckets: 262_144,
            replay_ids: 1_048_576,
            call_bytes: 16_777_216,
            memory_bytes: 268_435_456,
            strikes: 5,
            strike_clients: 5,
            strike_seconds: 60,
            cool_down_seconds: 60,
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_bytes: 16_384,
            headers: 100,
            body_bytes: 1_048_576,
            buffered_bytes: 134_217_728,
            unauthenticated_bytes: 16_777_216,
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

impl Default for AuditSection {
    fn default() -> Self {
        Self {
            entries: 100_000,
            denials: "sampled".into(),
            denial_sample: 100,
            denial_entries: 1_000,
        }
    }
}

impl Default for EventsSection {
    fn default() -> Self {
        Self {
            expiring_days: "30, 7, 1".into(),
            webhooks_waiting: 10_000,
            webhook_tries: 8,
            webhook_retry_seconds: 5,
        }
    }
}
