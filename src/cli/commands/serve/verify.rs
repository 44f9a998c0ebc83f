//! The listeners for proxies that ask about requests: `verify.listen` and `verify.grpc_listen`.

use std::{path::Path, sync::Arc};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

use super::{listen_error, listen_on, observed, per_worker, stopped};
use crate::{
    cli::instance::unix_socket,
    config::{ListenAddress, Runtime, ServerSettings, VerifySettings},
    limits::Buffers,
    pipeline::record::{ListenerKind, RequestObserver},
    server::{BoundSocket, ConnectionLimits, Envoy, Listener, Verify, serve},
    tls::Certificates,
};

/// The bound sockets for proxies that ask.
pub(super) struct VerifyListeners {
    /// `None` means no such listener.
    pub http: Option<BoundSocket>,
    /// The listeners of the other workers. Empty if all workers share one runtime, or if the
    /// listener is a Unix socket.
    pub workers: Vec<std::net::TcpListener>,
    /// The listener for Envoy's external authorization.
    pub grpc: Option<BoundSocket>,
}

/// Binds the listeners. With a runtime for each worker, each worker has a TCP listener.
pub(super) async fn listen(
    server: &ServerSettings,
    settings: &VerifySettings,
) -> anyhow::Result<VerifyListeners> {
    let (http, workers) = match &settings.listen {
        None => (None, Vec::new()),
        Some(ListenAddress::Unix(path)) => (Some(listen_on_path(path)?), Vec::new()),
        Some(ListenAddress::Tcp(address)) if server.runtime == Runtime::PerWorker => {
            let all = per_worker::bind(*address, server.workers);
            let mut all =
                all.map_err(|problem| listen_error("verify.listen", address, &problem))?;
            let first = TcpListener::from_std(all.swap_remove(0))?;
            (Some(BoundSocket::Tcp(first)), all)
        }
        Some(ListenAddress::Tcp(address)) => {
            (Some(listen_on("verify.listen", *address).await?), Vec::new())
        }
    };
    let grpc = match settings.grpc_listen {
        Some(address) => Some(listen_on("verify.grpc_listen", address).await?),
        None => None,
    };
    Ok(VerifyListeners { http, workers, grpc })
}

/// Binds the Unix socket. The user and the group of the server may connect, so that a proxy that
/// runs as another user can be admitted through the group.
fn listen_on_path(path: &Path) -> anyhow::Result<BoundSocket> {
    use std::os::unix::fs::PermissionsExt as _;
    let bound = unix_socket::bind(path).and_then(|socket| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(socket)
    });
    let address = ListenAddress::Unix(path.to_owned());
    bound.map_err(|problem| listen_error("verify.listen", &address, &problem))
}

impl VerifyListeners {
    /// The address of the HTTP listener: `127.0.0.1:8082`, or `unix:/path`.
    pub(super) fn http_address(&self) -> Option<String> {
        self.http.as_ref().map(BoundSocket::display_address)
    }

    /// The address of the listener for Envoy.
    pub(super) fn grpc_address(&self) -> Option<String> {
        self.grpc.as_ref().map(BoundSocket::display_address)
    }

    /// Serves on all listeners until the server stops. Together they may have this number of
    /// connections.
    pub(super) async fn serve(
        self,
        service: Verify,
        buffers: Buffers,
        certificates: Option<Certificates>,
        observer: Option<Arc<dyn RequestObserver>>,
        (limits, connections): (ConnectionLimits, usize),
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let connections = Arc::new(Semaphore::new(connections));
        let limits = limits_for_proxies(limits);
        let service = service.with_head_limits(limits.head());
        let proxies = service.trusted_proxies().to_vec();
        let listen = move |socket| {
            let listener = Listener::from(socket).with_tls(certificates.clone());
            listener.with_buffers(buffers.clone(), proxies.iter().copied())
        };
        let listen = Arc::new(listen);
        let grpc = async {
            if let Some(socket) = self.grpc {
                let listener = observed(listen(socket), &observer, ListenerKind::Grpc);
                let (limits, connections) = (limits.clone(), connections.clone());
                let envoy = Envoy::new(service.clone());
                serve(listener, limits, connections, envoy, stopped(stop.clone())).await;
            }
        };
        let http = async {
            let Some(first) = self.http else { return Ok(()) };
            let (service, listen) = (service.clone(), listen.clone());
            let (limits, connections, stop) = (limits.clone(), connections.clone(), stop.clone());
            let observer = observer.clone();
            let serve_one = move |socket| {
                let listener = observed(listen(socket), &observer, ListenerKind::Verify);
                let (limits, connections) = (limits.clone(), connections.clone());
                serve(listener, limits, connections, service.clone(), stopped(stop.clone()))
            };
            per_worker::serve(first, self.workers, serve_one).await
        };
        let ((), served) = tokio::join!(grpc, http);
        served
    }
}

/// The limits for the requests of proxies. A proxy adds header fields that describe the client's
/// request. A request with as many fields as the public listener accepts must pass with them.
fn limits_for_proxies(limits: ConnectionLimits) -> ConnectionLimits {
    let (headers, header_bytes) = (limits.headers + 16, limits.header_bytes + 2048);
    ConnectionLimits { headers, header_bytes, ..limits }
}
