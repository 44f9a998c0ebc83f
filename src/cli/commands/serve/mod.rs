//! `keyward serve`: serves on all listeners until a signal.

mod observers;
pub(super) mod per_worker;
mod shutdown;
mod verify;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tokio::{
    net::TcpListener,
    signal::unix::Signal,
    sync::{Semaphore, watch},
};

use crate::{
    accounts::{Accounts, BackupSchedule},
    api::HostNames,
    cli::{
        CliError,
        instance::{
            accounts::{self, NewStore},
            admin_service::{AdminFace, body_limits},
            control_file::ControlFile,
            descriptors::{self, ConnectionBudget},
            scripts, tls, unix_socket, webhooks,
        },
        terminal::welcome,
    },
    config::{
        self, ListenAddress, Loaded, LogSettings, ProxyProtocol, Runtime, ServerSettings, Settings,
    },
    handlers::Handlers,
    limits::Buffers,
    pipeline::{
        Gate,
        record::{ListenerKind, RequestObserver},
    },
    server::{BoundSocket, ConnectionLimits, Listener, PeerLimit, Public, Verify, serve},
    telemetry::{UnloggedLines, start_logs},
    webhooks::Sender,
};

#[derive(Debug, Default, Args)]
pub struct Serve {
    /// Believe the machine's clock although it is behind the newest time in the store, because that
    /// time is wrong; keys that have expired since can become valid again
    #[arg(long)]
    accept_clock: bool,
}

/// Serves until SIGTERM or SIGINT. `server.shutdown_seconds` after the signal, the process has
/// ended.
pub async fn run(options: Serve, loaded: Loaded) -> anyhow::Result<()> {
    let unknown = config::unknown_variables(&loaded);
    let settings = loaded.settings;
    let unlogged = start_logging(&settings.log)?;
    if let Some(warning) = unknown {
        tracing::warn!("{warning}");
    }
    tokio::spawn(report_unlogged_lines(unlogged));
    let descriptors = descriptors::raise_limit();
    // The listeners are bound before the store is created: if the server cannot listen, it must not
    // leave a new store behind whose first key was never shown.
    let certificates = tls::load(&settings)?;
    let (public, workers) = listen_public(&settings.server).await?;
    let verify = verify::listen(&settings.server, &settings.verify).await?;
    let admin = listen_admin(&settings).await?;
    let accounts = accounts::open(&settings, NewStore::OnlyWithNewPepper);
    let accounts = accounts.map_err(CliError::from)?;
    if options.accept_clock {
        let newest = accounts.accept_machine_clock().await?;
        tracing::warn!(%newest, now = %accounts.clock().now(), "the machine's clock was accepted");
    }
    scripts::load(&settings.scripts, &accounts).await?;
    let webhooks = webhooks::sender(&settings, &accounts)?;
    let listen = public.tcp_address().context("the public listener has no address")?;
    first_start(&settings, &accounts, listen).await?;
    // Before the server says that it is ready: from then on, a supervisor may stop it.
    let signals = Signals {
        stop: shutdown::stop_signal(settings.server.shutdown)?,
        scripts: scripts::hangup_signal()?,
        certificates: scripts::hangup_signal()?,
        log: scripts::hangup_signal()?,
    };
    let cli_socket = listen_for_cli(&settings)?;
    let listening = [Some(&public), Some(&admin), verify.http.as_ref(), verify.grpc.as_ref()];
    let tcp = listening.into_iter().flatten();
    accounts.set_own_listeners(tcp.filter_map(BoundSocket::tcp_address).collect());
    let budget = descriptors::divide(&settings, descriptors)?;
    let listeners = Listeners { public, workers, verify, admin, cli_socket, certificates };
    let control_file = write_control_file(&settings, &accounts, &listeners)?;
    if let Some(Err(problem)) = settings.backup.as_ref().map(BackupSchedule::check_dir) {
        tracing::warn!("backups cannot be written: {problem}");
    }
    let (users, keys) = accounts.directory().counts();
    tracing::info!(
        public = %listeners.public.display_address(),
        verify = listeners.verify.http_address().map(display),
        grpc = listeners.verify.grpc_address().map(display),
        admin = %listeners.admin.display_address(),
        users = users.saturating_sub(1),
        keys = keys.saturating_sub(1),
        "ready"
    );
    serve_all(&settings, accounts, listeners, budget, signals, webhooks).await?;
    drop(control_file);
    tracing::info!("stopped");
    Ok(())
}

/// Fills a new store, and shows its first key: on standard output or, under a service manager that
/// would keep the output in a journal, in a file.
async fn first_start(
    settings: &Settings,
    accounts: &Accounts,
    listen: SocketAddr,
) -> anyhow::Result<()> {
    let base_url = welcome::base_url(settings, listen);
    // Created before the key, so that a key is never lost because of the file.
    let file = if welcome::is_kept_output() && accounts.is_new()? {
        Some(welcome::KeyFile::create(&settings.store.path)?)
    } else {
        None
    };
    match (accounts.first_start().await?, file) {
        (Some(first), Some(file)) => file.write(&first, base_url.as_deref()),
        (Some(first), None) => welcome::print(&first, base_url.as_deref()),
        (None, Some(unused)) => unused.remove(),
        (None, None) => Ok(()),
    }
}

fn start_logging(settings: &LogSettings) -> anyhow::Result<UnloggedLines> {
    start_logs(&settings.level, settings.format, settings.clients)
        .map_err(|problem| anyhow::anyhow!("log.level: {problem}"))
}

/// Logs once a minute how many lines about clients were left out.
async fn report_unlogged_lines(unlogged: UnloggedLines) {
    let mut minutes = tokio::time::interval(Duration::from_secs(60));
    loop {
        minutes.tick().await;
        match unlogged.take() {
            0 => {}
            lines => tracing::info!(
                lines,
                "lines about refused clients were left out of the log (log.clients = \"sampled\")"
            ),
        }
    }
}

async fn listen_on(key: &str, address: SocketAddr) -> anyhow::Result<BoundSocket> {
    let listener = TcpListener::bind(address).await;
    Ok(BoundSocket::Tcp(listener.map_err(|problem| listen_error(key, &address, &problem))?))
}

/// Binds the public listener. If each worker has its own listener, the second value contains the
/// listeners of the other workers.
async fn listen_public(
    settings: &ServerSettings,
) -> anyhow::Result<(BoundSocket, Vec<std::net::TcpListener>)> {
    let ServerSettings { listen, workers, .. } = settings;
    if settings.runtime == Runtime::Shared {
        return Ok((listen_on("server.listen", *listen).await?, Vec::new()));
    }
    let all = per_worker::bind(*listen, *workers);
    let mut all = all.map_err(|problem| listen_error("server.listen", listen, &problem))?;
    let first = TcpListener::from_std(all.swap_remove(0))?;
    Ok((BoundSocket::Tcp(first), all))
}

async fn listen_admin(settings: &Settings) -> anyhow::Result<BoundSocket> {
    match &settings.admin.listen {
        ListenAddress::Tcp(address) => listen_on("admin.listen", *address).await,
        ListenAddress::Unix(path) => unix_socket::bind(path)
            .map_err(|problem| listen_error("admin.listen", &settings.admin.listen, &problem)),
    }
}

/// Binds the Unix socket that is for the command line alone. So an administrator on the machine can
/// revoke a key even if clients have filled the admin listener. The command line also needs the
/// socket if that listener has TLS, because it has no client certificate. `None` means that the
/// admin listener is this socket, or that the socket cannot be bound and is not needed.
fn listen_for_cli(settings: &Settings) -> anyhow::Result<Option<BoundSocket>> {
    let path = &settings.store.socket_file;
    if matches!(&settings.admin.listen, ListenAddress::Unix(admin) if admin == path) {
        return Ok(None);
    }
    match unix_socket::bind(path) {
        Ok(listener) => Ok(Some(listener)),
        Err(problem) if settings.admin.tls.is_none() => {
            tracing::warn!(
                "cannot listen on {}, the socket of the command line: {problem}. The command line \
                 uses the admin listener",
                path.display()
            );
            Ok(None)
        }
        Err(problem) => Err(problem).with_context(|| {
            format!("cannot listen on {}, the socket of the command line", path.display())
        }),
    }
}

/// Returns the error of a failed bind, with the configuration key to change.
fn listen_error(key: &str, address: &impl std::fmt::Display, problem: &io::Error) -> anyhow::Error {
    let why = match problem.kind() {
        io::ErrorKind::AddrInUse => {
            "the address is in use by another program. Stop that program, or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "this user has no permission to use the port. Choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have the address. Use an address of this machine, or 0.0.0.0 for all addresses"
        }
        _ => return anyhow::anyhow!("{key}: cannot listen on {address}: {problem}"),
    };
    anyhow::anyhow!("{key}: cannot listen on {address}: {why}")
}

/// Writes the control file, with which the command line finds this server and authenticates.
fn write_control_file(
    settings: &Settings,
    accounts: &Accounts,
    listeners: &Listeners,
) -> anyhow::Result<ControlFile> {
    let Listeners { public, verify, admin, cli_socket, .. } = listeners;
    let cli_socket = cli_socket.as_ref();
    let operator = accounts.create_operator_key();
    // The command line cannot use an admin listener that has TLS.
    let address = if settings.admin.tls.is_some() { cli_socket.unwrap_or(admin) } else { admin };
    ControlFile::write(
        &settings.store.control_file,
        address.display_address(),
        cli_socket.map(BoundSocket::display_address),
        public.display_address(),
        verify.http_address().as_deref(),
        &operator.key,
    )
}

/// The bound sockets and their certificates.
struct Listeners {
    public: BoundSocket,
    /// The public listeners of the other workers. Empty if all workers share one runtime.
    workers: Vec<std::net::TcpListener>,
    verify: verify::VerifyListeners,
    admin: BoundSocket,
    /// The socket for the command line. `None` means that the admin listener is a socket itself.
    cli_socket: Option<BoundSocket>,
    certificates: tls::ListenerCertificates,
}

/// The signals that the server handles.
struct Signals {
    /// Becomes true with the first SIGTERM or SIGINT.
    stop: watch::Receiver<bool>,
    /// SIGHUP, for the scripts.
    scripts: Signal,
    /// SIGHUP, for the certificates.
    certificates: Signal,
    /// SIGHUP, for the access log.
    log: Signal,
}

async fn serve_all(
    settings: &Settings,
    accounts: Accounts,
    Listeners { public, workers, verify, admin, cli_socket, certificates }: Listeners,
    budget: ConnectionBudget,
    signals: Signals,
    webhooks: Sender,
) -> anyhow::Result<()> {
    let limits = &settings.limits;
    let scripts = accounts.scripts().clone();
    let observers = observers::start(settings)?;
    let observer = observers.observer();
    let observation = observer.as_ref().map(|one| one.observation()).unwrap_or_default();
    let gate = Gate::new(&accounts, limits.credential_bytes).observed(observation);
    let handlers = Handlers::new(accounts.clone(), body_limits(settings))
        .with_identity_fields(settings.identity.clone())
        .with_custom_fields(settings.custom_fields.clone())
        .with_upstream_networks(settings.upstream_networks.iter().copied());
    let asked = Verify::new(gate.clone(), handlers.clone())
        .with_trusted_proxies(settings.verify.trusted_proxies.iter().copied());
    let mut service = Public::new(gate.clone(), handlers, settings.server.public_url.clone())
        .with_trusted_proxies(settings.server.trusted_proxies.iter().copied());
    let (usage, denials, events) = (accounts.clone(), accounts.clone(), accounts.clone());
    let (trail, store) = (accounts.clone(), accounts.clone());
    let backups = settings.backup.clone().map(|schedule| (accounts.clone(), schedule));
    let clock = accounts.clone();
    // The admin listener has a budget of its own.
    let (buffers, admin_buffers) = (accounts.buffers().clone(), Buffers::new(limits.buffers));
    let verify_buffers = buffers.clone();
    let usage_interval = limits.usage_write;
    let names = admin
        .tcp_address()
        .map(|address| HostNames::new(address, settings.admin.names.iter().cloned()));
    let metrics = observers::page(settings, &observers, &accounts)?;
    let api = AdminFace::new(gate, accounts, settings).with_host_names(names).with_metrics(metrics);
    let api = api.with_certificates(certificates.clone());

    let stop = signals.stop;
    if let Some(path) = &settings.server.health_path {
        service = service.with_health_path(path, stop.clone());
    }
    let connections = Arc::new(Semaphore::new(budget.public));
    // The admin listener has a separate limit: a client that fills the public listener must not
    // prevent an administrator from revoking a key.
    let admin_connections = Arc::new(Semaphore::new(budget.admin));
    let connection_limits = connection_limits(settings);
    // One address gets half of a listener's connections. The workers share the count.
    let trusted = settings.server.trusted_proxies.iter().copied();
    let public_peers = PeerLimit::new(budget.public.div_ceil(2), trusted);
    let serve_public = {
        let (settings, certificate) = (settings.server.clone(), certificates.public.clone());
        let observer = observer.clone();
        let (limits, connections) = (connection_limits.clone(), connections.clone());
        let stop = stop.clone();
        move |socket| {
            let listener = public_listener(&settings, socket).with_tls(certificate.clone());
            let listener = listener
                .with_peer_limit(public_peers.clone())
                .with_buffers(buffers.clone(), settings.trusted_proxies.iter().copied());
            let listener = observed(listener, &observer, ListenerKind::Public);
            let (limits, connections) = (limits.clone(), connections.clone());
            serve(listener, limits, connections, service.clone(), stopped(stop.clone()))
        }
    };
    // The verify listeners have a limit of their own too: a client that fills the public listener
    // must not keep proxies from asking.
    let verify = Box::pin(verify.serve(
        asked,
        verify_buffers,
        certificates.verify.clone(),
        observer.clone(),
        (connection_limits.clone(), budget.verify),
        stop.clone(),
    ));
    let admin_peers = PeerLimit::new(budget.admin.div_ceil(2), []);
    let admin =
        Listener::from(admin).with_tls(certificates.admin.clone()).with_peer_limit(admin_peers);
    let admin = observed(admin.with_buffers(admin_buffers, []), &observer, ListenerKind::Admin);
    let scripts = tokio::spawn(scripts::reload_on_change(scripts, signals.scripts));
    let log_reopened = tokio::spawn(observers::reopen_on_hangup(observers.clone(), signals.log));
    let certificates = tokio::spawn(certificates.reload_on_change(signals.certificates));
    let cli_socket = async {
        let Some(BoundSocket::Unix(socket, path)) = cli_socket else { return Ok(()) };
        let (limits, api, stop) = (connection_limits.clone(), api.clone(), stop.clone());
        let observer = observer.clone();
        let connections = Arc::new(Semaphore::new(budget.cli));
        per_worker::serve_apart(socket, move |socket| async move {
            let listener = Listener::from(BoundSocket::Unix(socket, path.clone()));
            let listener = observed(listener, &observer, ListenerKind::CommandLine);
            serve(listener, limits, connections, api, stopped(stop)).await;
            let _ = std::fs::remove_file(&path);
        })
        .await
    };
    // Dropping the sender ends the background tasks after their last write.
    let (last_request_done, end) = watch::channel(());
    let (usage_end, denials_end) = (sender_dropped(end.clone()), sender_dropped(end.clone()));
    let (events_end, webhooks_end) = (sender_dropped(end.clone()), sender_dropped(end.clone()));
    let backups_end = sender_dropped(end.clone());
    let stopping = stopped(stop.clone());
    let trail = tokio::spawn(async move { trail.verify_audit_in_background(stopping).await });
    let stopping = stopped(stop.clone());
    let store_check = tokio::spawn(async move { store.verify_store(stopping).await });
    let backups = tokio::spawn(async move {
        if let Some((accounts, schedule)) = backups {
            accounts.write_backups_periodically(schedule, backups_end).await;
        }
    });
    let clock = tokio::spawn(async move { clock.watch_clock(sender_dropped(end)).await });
    let days = settings.events.expiring_days.clone();
    let events = tokio::spawn(async move { events.monitor_events(&days, events_end).await });
    let webhooks = tokio::spawn(webhooks.run(webhooks_end));
    let usage = tokio::spawn(async move {
        usage.write_usage_periodically(usage_interval, usage_end).await;
    });
    let denials =
        tokio::spawn(async move { denials.write_denials_periodically(denials_end).await });
    let (served, verified, (), cli_served) = tokio::join!(
        per_worker::serve(public, workers, serve_public),
        verify,
        serve(
            admin,
            connection_limits.clone(),
            admin_connections,
            api.clone(),
            stopped(stop.clone())
        ),
        cli_socket,
    );
    served?;
    verified?;
    cli_served?;
    scripts.abort();
    certificates.abort();
    log_reopened.abort();
    // The background tasks now write the uses and denials of the last requests. All other changes
    // were written before their responses were sent.
    drop(last_request_done);
    trail.await?;
    store_check.await?;
    usage.await?;
    denials.await?;
    events.await?;
    webhooks.await?;
    backups.await?;
    clock.await?;
    observers::flush(observers).await;
    Ok(())
}

/// The listener, with its observer if there is one.
fn observed(
    listener: Listener,
    observer: &Option<Arc<dyn RequestObserver>>,
    kind: ListenerKind,
) -> Listener {
    match observer {
        Some(observer) => listener.observed_by(observer.clone(), kind),
        None => listener,
    }
}

fn public_listener(settings: &ServerSettings, socket: BoundSocket) -> Listener {
    let listener = Listener::from(socket);
    match settings.proxy_protocol {
        ProxyProtocol::Off => listener,
        ProxyProtocol::On => listener.with_proxy_protocol(settings.trusted_proxies.iter().copied()),
    }
}

fn connection_limits(settings: &Settings) -> ConnectionLimits {
    let limits = &settings.limits;
    ConnectionLimits {
        header_bytes: limits.header_bytes,
        headers: limits.headers,
        header_read: limits.header_read,
        idle: limits.idle,
        http2_streams: limits.http2_streams,
        drain: shutdown::time_of_requests(settings.server.shutdown),
    }
}

/// Waits until the sender of the channel is dropped.
async fn sender_dropped(mut end: watch::Receiver<()>) {
    while end.changed().await.is_ok() {}
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender lives as long as the process, so waiting cannot fail.
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
}
