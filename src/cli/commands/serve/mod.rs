//! `keyward serve`: both listeners, until a signal.

pub(super) mod per_worker;

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context as _;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, watch},
};

use crate::{
    accounts::Accounts,
    cli::{
        instance::{
            accounts,
            admin_service::{AdminFace, body_limits},
            control_file::ControlFile,
            scripts, tls, webhooks,
        },
        terminal::welcome,
    },
    config::{
        AdminListen, LimitSettings, Loaded, LogFormat, LogSettings, ProxyProtocol, Runtime,
        ServerSettings, Settings,
    },
    handlers::{Handlers, IdentityFields},
    pipeline::Gate,
    server::{Listener, Envoy, ConnectionLimits, BoundSocket, Public, serve},
    telemetry::{LogForm, start_logs},
    webhooks::Sender,
};

/// The connections that are open at the same time on the admin listener.
const ADMIN_CONNECTIONS: usize = 64;

/// Serves until SIGTERM or SIGINT, and then until requests in flight are answered or their time is over.
pub async fn run(loaded: Loaded) -> anyhow::Result<()> {
    let settings = loaded.settings;
    start_logging(&settings.log)?;
    // Before anything is made: a server that cannot listen must not leave a store behind whose key nobody saw.
    let certificates = tls::load(&settings)?;
    let (public, others) = listen_public(&settings.server).await?;
    let grpc = match settings.server.grpc_listen {
        Some(address) => Some(listen_on("server.grpc_listen", address).await?),
        None => None,
    };
    let admin = listen_admin(&settings).await?;
    let accounts = accounts::open(&settings)?;
    scripts::load(&settings.scripts, &accounts).await?;
    let webhooks = webhooks::sender(&settings, &accounts)?;
    if let Some(first) = accounts.first_start().await? {
        welcome::print(&first, &base_url(&settings, &public)?)?;
    }
    let hangups = (scripts::hangups()?, scripts::hangups()?);
    let aside = listen_aside(&settings)?;
    let control = announce(&settings, &accounts, &public, aside.as_ref().unwrap_or(&admin))?;
    let (users, keys) = accounts.directory().counts();
    tracing::info!(
        public = %public.display_address(),
        admin = %admin.display_address(),
        grpc = grpc.as_ref().map(|grpc| display(grpc.display_address())),
        users = users.saturating_sub(1),
        keys = keys.saturating_sub(1),
        "ready"
    );
    let doors = Doors { public, others, grpc, admin, aside, certificates };
    serve_all(&settings, accounts, doors, hangups, webhooks).await?;
    drop(control);
    tracing::info!("stopped");
    Ok(())
}

fn start_logging(settings: &LogSettings) -> anyhow::Result<()> {
    let form = match settings.format {
        LogFormat::Text => LogForm::Text,
        LogFormat::Json => LogForm::Json,
    };
    start_logs(&settings.level, form).map_err(|problem| anyhow::anyhow!("log.level: {problem}"))
}

async fn listen_on(key: &str, address: SocketAddr) -> anyhow::Result<BoundSocket> {
    let listener = TcpListener::bind(address).await;
    Ok(BoundSocket::Tcp(listener.map_err(|problem| unbound(key, &address, &problem))?))
}

/// The public listener, and those of the other workers where each has its own.
async fn listen_public(
    settings: &ServerSettings,
) -> anyhow::Result<(BoundSocket, Vec<std::net::TcpListener>)> {
    let ServerSettings { listen, workers, .. } = settings;
    if settings.runtime == Runtime::Shared {
        return Ok((listen_on("server.listen", *listen).await?, Vec::new()));
    }
    let all = per_worker::bind(*listen, *workers);
    let mut all = all.map_err(|problem| unbound("server.listen", listen, &problem))?;
    let first = TcpListener::from_std(all.swap_remove(0))?;
    Ok((BoundSocket::Tcp(first), all))
}

async fn listen_admin(settings: &Settings) -> anyhow::Result<BoundSocket> {
    match &settings.admin.listen {
        AdminListen::Tcp(address) => listen_on("admin.listen", *address).await,
        AdminListen::Unix(path) => listen_on_socket(path)
            .map_err(|problem| unbound("admin.listen", &settings.admin.listen, &problem)),
    }
}

/// Where the admin listener has TLS, the command line comes in here: it has no certificate, and need not know whom to trust.
fn listen_aside(settings: &Settings) -> anyhow::Result<Option<BoundSocket>> {
    let path = &settings.store.socket_file;
    if settings.admin.tls.is_none() {
        return Ok(None);
    }
    let listener = listen_on_socket(path);
    Ok(Some(listener.with_context(|| format!("the command line's socket {}", path.display()))?))
}

fn listen_on_socket(path: &Path) -> io::Result<BoundSocket> {
    use std::os::unix::fs::PermissionsExt as _;
    // A socket that nobody answers on is left over from a server that was killed.
    if std::os::unix::net::UnixStream::connect(path)
        .is_err_and(|problem| problem.kind() == io::ErrorKind::ConnectionRefused)
    {
        let _ = std::fs::remove_file(path);
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(BoundSocket::Unix(listener, path.to_owned()))
}

/// Says which key of the configuration is to be changed.
fn unbound(key: &str, address: &impl std::fmt::Display, problem: &io::Error) -> anyhow::Error {
    let why = match problem.kind() {
        io::ErrorKind::AddrInUse => {
            "it is in use by another program. Stop that one, or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "it may not be used by this user. Choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have the address. Use one of its own, or 0.0.0.0 for all"
        }
        _ => return anyhow::anyhow!("{key}: cannot listen on {address}: {problem}"),
    };
    anyhow::anyhow!("{key}: cannot listen on {address}: {why}")
}

/// Where clients on this machine reach the public listener.
fn base_url(settings: &Settings, public: &BoundSocket) -> anyhow::Result<String> {
    if let Some(url) = &settings.server.public_url {
        return Ok(url.clone());
    }
    let mut address = public.tcp_address().context("the public listener has no address")?;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(format!("{}://{address}", welcome::scheme(settings)))
}

/// Leaves the control file, with which the command line finds this server and is let in.
fn announce(
    settings: &Settings,
    accounts: &Accounts,
    public: &BoundSocket,
    admin: &BoundSocket,
) -> anyhow::Result<ControlFile> {
    let operator = accounts.create_operator_key();
    ControlFile::write(&settings.store.control_file, admin.display_address(), public.display_address(), &operator.key)
}

/// What is listened on.
struct Doors {
    public: BoundSocket,
    /// The public listeners of the other workers.
    others: Vec<std::net::TcpListener>,
    /// For Envoy.
    grpc: Option<BoundSocket>,
    admin: BoundSocket,
    /// For the command line alone.
    aside: Option<BoundSocket>,
    certificates: tls::Loaded,
}

async fn serve_all(
    settings: &Settings,
    accounts: Accounts,
    Doors { public, others, grpc, admin, aside, certificates }: Doors,
    hangups: (Signal, Signal),
    webhooks: Sender,
) -> anyhow::Result<()> {
    let limits = &settings.limits;
    let scripts = accounts.scripts().clone();
    let gate = Gate::new(&accounts, limits.credential_bytes);
    let handlers =
        Handlers::new(accounts.clone(), body_limits(settings)).with_identity_fields(identity_fields(settings));
    let face = Public::new(gate.clone(), handlers, settings.server.public_url.clone())
        .with_trusted_proxies(settings.server.trusted_proxies.iter().copied());
    let (used, every) = (accounts.clone(), limits.usage_write);
    let (refused, told) = (accounts.clone(), accounts.clone());
    let api = AdminFace::new(gate, accounts, settings);

    let stop = stop_signal()?;
    let connections = Arc::new(Semaphore::new(limits.connections));
    // Of its own: whoever fills the public listener must not keep out the one who could revoke a key.
    let admins = Arc::new(Semaphore::new(ADMIN_CONNECTIONS));
    let edge = edge_limits(limits, settings);
    let front = {
        let (settings, certificate) = (settings.server.clone(), certificates.public.clone());
        let (edge, connections) = (edge.clone(), connections.clone());
        let (face, stop) = (face.clone(), stop.clone());
        move |listener| {
            let door = public_door(&settings, listener).with_tls(certificate.clone());
            let (edge, connections) = (edge.clone(), connections.clone());
            serve(door, edge, connections, face.clone(), stopped(stop.clone()))
        }
    };
    let grpc = grpc.map(|grpc| Listener::from(grpc).with_tls(certificates.public.clone()));
    let grpc = async {
        if let Some(grpc) = grpc {
            let envoy = Envoy::new(face.clone());
            serve(grpc, edge.clone(), connections.clone(), envoy, stopped(stop.clone())).await;
        }
    };
    let admin = Listener::from(admin).with_tls(certificates.admin.clone());
    let scripts = tokio::spawn(scripts::follow(scripts, hangups.0));
    let certificates = tokio::spawn(certificates.follow(hangups.1));
    let aside = async {
        if let Some(aside) = aside {
            let few = Arc::new(Semaphore::new(ADMIN_CONNECTIONS));
            serve(aside, edge.clone(), few, api.clone(), stopped(stop.clone())).await;
            let _ = std::fs::remove_file(&settings.store.socket_file);
        }
    };
    let (answered, end) = watch::channel(());
    let (usage_end, denials_end) = (ended(end.clone()), ended(end.clone()));
    let (events_end, webhooks_end) = (ended(end.clone()), ended(end));
    let days = settings.events.expiring_days.clone();
    let events = tokio::spawn(async move { told.monitor_events(&days, events_end).await });
    let webhooks = tokio::spawn(webhooks.run(webhooks_end));
    let usage = tokio::spawn(async move { used.write_usage_periodically(every, usage_end).await });
    let denials = tokio::spawn(async move { refused.write_denials_periodically(denials_end).await });
    let (served, ..) = tokio::join!(
        per_worker::serve(public, others, front),
        grpc,
        serve(admin, edge.clone(), admins, api.clone(), stopped(stop.clone())),
        aside,
    );
    served?;
    scripts.abort();
    certificates.abort();
    // What the last requests used, and who was refused; everything else was written before it was answered.
    drop(answered);
    usage.await?;
    denials.await?;
    events.await?;
    webhooks.await?;
    Ok(())
}

fn public_door(settings: &ServerSettings, listener: BoundSocket) -> Listener {
    let door = Listener::from(listener);
    match settings.proxy_protocol {
        ProxyProtocol::Off => door,
        ProxyProtocol::On => door.with_proxy_protocol(settings.trusted_proxies.iter().copied()),
    }
}

fn identity_fields(settings: &Settings) -> IdentityFields {
    let names = settings.identity.clone();
    IdentityFields {
        user: names.user,
        user_id: names.user_id,
        roles: names.roles,
        key_id: names.key_id,
        application: names.application,
    }
}

fn edge_limits(limits: &LimitSettings, settings: &Settings) -> ConnectionLimits {
    ConnectionLimits {
        header_bytes: limits.header_bytes,
        headers: limits.headers,
        header_read: limits.header_read,
        idle: limits.idle,
        http2_streams: limits.http2_streams,
        drain: settings.server.shutdown,
    }
}

/// Turns true with the first SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        sender.send_replace(true);
        // A second one does not wait for anybody.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("stopping at once");
        at_once();
    });
    Ok(receiver)
}

#[expect(clippy::exit, reason = "somebody has asked twice; what was answered is on the disk")]
fn at_once() -> ! {
    std::process::exit(1)
}

/// When the other end of the channel is gone.
async fn ended(mut end: watch::Receiver<()>) {
    while end.changed().await.is_ok() {}
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error would mean that the sender is gone, which lives as long as the process.
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
}
