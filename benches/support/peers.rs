//! Starts other programs that check API keys. The configuration of each program is minimal and
//! follows the program's manual.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Outcome, Server};

/// A program to compare Keyward with.
#[derive(Debug, Clone, Copy)]
pub enum Peer {
    Nginx,
    Haproxy,
    Envoy,
    Caddy,
    Traefik,
}

/// The program's action after a successful check of the key.
#[derive(Debug, Clone, Copy)]
pub enum AfterCheck<'a> {
    /// The program sends the response.
    Respond,
    /// The program forwards the request to this address.
    Forward(SocketAddr),
    /// nginx has no keys, but sends a subrequest (`auth_request`) to this address and path before
    /// it responds. The last value is the header field that clients send. Only for nginx.
    AuthRequest(SocketAddr, &'static str, &'a str),
}

/// Number of keys in each program's configuration.
const KEYS: usize = 1000;

pub const ALL: [Peer; 5] = [Peer::Nginx, Peer::Haproxy, Peer::Envoy, Peer::Caddy, Peer::Traefik];

/// The key with this number. Clients send key 0. The other keys only make the lookup realistic.
fn key(number: usize) -> String {
    format!("kw-bench-{number:04}-7Qb9xT2mVn4LsR8c")
}

impl Peer {
    fn program(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
        }
    }

    /// The name in the printed table: the program and how it checks keys.
    pub fn label(self, after_check: AfterCheck<'_>) -> &'static str {
        match (self, after_check) {
            (Self::Nginx, AfterCheck::AuthRequest(..)) => "nginx `auth_request`",
            (Self::Nginx, _) => "nginx, `map` of keys",
            (Self::Haproxy, _) => "HAProxy, map of keys",
            (Self::Envoy, _) => "Envoy, `api_key_auth`",
            (Self::Caddy, _) => "Caddy, `map` of keys",
            (Self::Traefik, _) => "Traefik, `basicAuth` with SHA-1",
        }
    }

    fn credential(self, key: &str) -> String {
        match self {
            Self::Traefik => {
                format!("Authorization: Basic {}", STANDARD.encode(format!("user0:{key}")))
            }
            _ => format!("X-API-Key: {key}"),
        }
    }

    /// Starts the program in `folder`. If the program is not installed, prints a notice and returns
    /// `None`.
    pub fn start(self, folder: &Path, after_check: AfterCheck<'_>) -> Outcome<Option<Server>> {
        let Some(program) = find(self.program()) else {
            println!("{} is not installed and is left out", self.program());
            return Ok(None);
        };
        std::fs::create_dir_all(folder)?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(program);
        command.args(self.configure(folder, address, after_check)?).current_dir(folder);
        let log = std::fs::File::create(folder.join("log"))?;
        let begun = Instant::now();
        let child = command
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let header = match after_check {
            AfterCheck::AuthRequest(_, _, header) => header.to_owned(),
            _ => self.credential(&key(0)),
        };
        let mut server = Server::new(self.label(after_check), address, header, child);
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).is_err() || !accepts(&server, &server.header)? {
            if Instant::now() > until {
                let log = std::fs::read_to_string(folder.join("log"))?;
                return Err(format!("{} did not become ready: {log}", self.program()).into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        server.ready = begun.elapsed();
        if !matches!(after_check, AfterCheck::AuthRequest(..))
            && accepts(&server, &self.credential("kw-wrong"))?
        {
            return Err(format!("{} accepts a wrong key", self.program()).into());
        }
        Ok(Some(server))
    }

    /// Writes the configuration files and returns the command-line arguments.
    fn configure(
        self,
        folder: &Path,
        address: SocketAddr,
        after_check: AfterCheck<'_>,
    ) -> Outcome<Vec<String>> {
        let write = |file: &str, text: &str| std::fs::write(folder.join(file), text);
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        match self {
            Self::Nginx => {
                write("keys.map", &lines(|number, key| format!("{key} user{number};")))?;
                write("nginx.conf", &nginx(address, after_check))?;
                Ok(words("-p . -c nginx.conf"))
            }
            Self::Haproxy => {
                write("keys.map", &lines(|number, key| format!("{key} user{number}")))?;
                write("haproxy.cfg", &haproxy(address, after_check))?;
                Ok(words("-db -f haproxy.cfg"))
            }
            Self::Envoy => {
                write("envoy.json", &envoy(address, after_check).to_string())?;
                Ok(words("-c envoy.json --concurrency 2 --disable-hot-restart --log-level error"))
            }
            Self::Caddy => {
                write("Caddyfile", &caddy(address, after_check))?;
                Ok(words("run --adapter caddyfile --config Caddyfile"))
            }
            Self::Traefik => {
                write("users", &htpasswd()?)?;
                let (static_config, dynamic_config) = traefik(address, after_check);
                write("traefik.yml", &static_config.to_string())?;
                write("dynamic.yml", &dynamic_config.to_string())?;
                Ok(words("--configFile=traefik.yml"))
            }
        }
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn accepts(server: &Server, header: &str) -> Outcome<bool> {
    let head = server.get("/app/1", header).map(|(head, _)| head).unwrap_or_default();
    Ok(head.starts_with("HTTP/1.1 20"))
}

fn lines(line: impl Fn(usize, &str) -> String) -> String {
    (0..KEYS).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "{}", line(number, &key(number)));
        text
    })
}

fn nginx(address: SocketAddr, after_check: AfterCheck<'_>) -> String {
    let (upstream, action) = match after_check {
        AfterCheck::Respond => (None, "add_header X-User $user; return 204;".to_owned()),
        AfterCheck::Forward(to) => {
            (Some(to), "proxy_set_header X-User $user; proxy_pass http://there;".into())
        }
        AfterCheck::AuthRequest(at, ..) => {
            (Some(at), "auth_request /ask; try_files /none =204;".into())
        }
    };
    let check = match after_check {
        AfterCheck::AuthRequest(_, path, _) => format!(
            "location = /ask {{ internal; proxy_pass http://there{path}; proxy_pass_request_body off; \
             proxy_set_header Content-Length \"\"; proxy_set_header X-Original-URI $request_uri; \
             proxy_set_header X-Original-Method $request_method; proxy_set_header X-Original-Host $http_host; \
             proxy_set_header X-Forwarded-For $remote_addr; }}"
        ),
        _ => String::new(),
    };
    let keys = match after_check {
        AfterCheck::AuthRequest(..) => "",
        _ => "if ($user = \"\") { return 401; }",
    };
    let there = upstream
        .map(|to| {
            format!("upstream there {{ server {to}; keepalive 64; keepalive_requests 1000000; }}")
        })
        .unwrap_or_default();
    format!(
        "daemon off; worker_processes 2; pid nginx.pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000; server_tokens off;
    client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    map_hash_max_size 8192; map_hash_bucket_size 128;
    map $http_x_api_key $user {{ default \"\"; include keys.map; }}
    proxy_http_version 1.1; {there}
    server {{
        listen {address} backlog=1024; root .;
        proxy_set_header Connection \"\";
        {check}
        location / {{ {keys} {action} }}
    }}
}}
"
    )
    // A location with a `proxy_set_header` inherits none from the server block, so each location
    // repeats `Connection`.
    .replace("proxy_set_header X-User", "proxy_set_header Connection \"\"; proxy_set_header X-User")
    .replace("proxy_set_header Content-Length", "proxy_set_header Connection \"\"; proxy_set_header Content-Length")
}

fn haproxy(address: SocketAddr, after_check: AfterCheck<'_>) -> String {
    let action = match after_check {
        AfterCheck::Forward(to) => format!(
            " http-request set-header X-User %[var(txn.user)]\n default_backend there\n\
             backend there\n http-reuse always\n server there {to}"
        ),
        _ => " http-request return status 204 hdr X-User %[var(txn.user)]".into(),
    };
    format!(
        "global
 nbthread 2
 maxconn 4096
defaults
 mode http
 timeout client 30s
 timeout connect 5s
 timeout server 30s
frontend here
 bind {address}
 http-request set-var(txn.user) req.hdr(x-api-key),map_str(keys.map)
 http-request deny deny_status 401 unless {{ var(txn.user) -m found }}
{action}
"
    )
}

fn envoy(address: SocketAddr, after_check: AfterCheck<'_>) -> Value {
    let at = |address: SocketAddr| json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
    let filter = "type.googleapis.com/envoy.extensions.filters";
    let keys: Vec<Value> = (0..KEYS)
        .map(|number| json!({ "key": key(number), "client": format!("user{number}") }))
        .collect();
    let (route, clusters) = match after_check {
        AfterCheck::Forward(to) => (
            json!({ "match": { "prefix": "/" }, "route": { "cluster": "there" } }),
            json!([{ "name": "there", "type": "STATIC", "connect_timeout": "1s", "load_assignment": {
                "cluster_name": "there",
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at(to) } }] }] } }]),
        ),
        _ => {
            (json!({ "match": { "prefix": "/" }, "direct_response": { "status": 204 } }), json!([]))
        }
    };
    json!({ "static_resources": {
        "clusters": clusters,
        "listeners": [{ "name": "here", "address": at(address), "filter_chains": [{ "filters": [{
            "name": "http",
            "typed_config": {
                "@type": format!("{filter}.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "here", "generate_request_id": false,
                "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
                "http_filters": [
                    { "name": "keys", "typed_config": {
                        "@type": format!("{filter}.http.api_key_auth.v3.ApiKeyAuth"),
                        "credentials": keys, "key_sources": [{ "header": "x-api-key" }] } },
                    { "name": "router", "typed_config": { "@type": format!("{filter}.http.router.v3.Router") } }
                ] } }] }] }] } })
}

fn caddy(address: SocketAddr, after_check: AfterCheck<'_>) -> String {
    let action = match after_check {
        AfterCheck::Forward(to) => format!("reverse_proxy {to}"),
        _ => "respond 204".into(),
    };
    let keys = lines(|number, key| format!("        {key} user{number}"));
    format!(
        "{{
    admin off
    auto_https off
}}
http://{address} {{
    map {{header.X-API-Key}} {{user}} {{
{keys}        default \"\"
    }}
    @bad vars {{user}} \"\"
    respond @bad 401
    header X-User {{user}}
    {action}
}}
"
    )
}

fn traefik(address: SocketAddr, after_check: AfterCheck<'_>) -> (Value, Value) {
    let (service, services) = match after_check {
        AfterCheck::Forward(to) => {
            let servers = json!([{ "url": format!("http://{to}") }]);
            ("there", json!({ "there": { "loadBalancer": { "servers": servers } } }))
        }
        _ => ("ping@internal", Value::Null),
    };
    let mut http = json!({
        "routers": { "all": { "rule": "PathPrefix(`/`)", "service": service, "middlewares": ["keys"] } },
        "middlewares": { "keys": { "basicAuth": { "usersFile": "users" } } },
    });
    if !services.is_null() {
        http["services"] = services;
    }
    let static_config = json!({
        "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
        "entryPoints": { "web": { "address": address.to_string() } },
        "ping": { "manualRouting": true },
        "log": { "level": "WARN" },
        "providers": { "file": { "filename": "dynamic.yml", "watch": false } },
    });
    (static_config, json!({ "http": http }))
}

/// A password file in which only user 0 can log in. SHA-1 is the fastest format that Traefik reads.
fn htpasswd() -> Outcome<String> {
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha1", "-binary"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    openssl.stdin.take().ok_or("no stdin")?.write_all(key(0).as_bytes())?;
    let digest = STANDARD.encode(openssl.wait_with_output()?.stdout);
    let unusable = STANDARD.encode([0; 20]);
    Ok(lines(|number, _| match number {
        0 => format!("user0:{{SHA}}{digest}"),
        _ => format!("user{number}:{{SHA}}{unusable}"),
    }))
}
