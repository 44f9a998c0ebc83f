//! Serves with one thread, one runtime and one listener for each worker. The kernel distributes
//! connections among the listeners, and a connection stays with its worker.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, UnixListener},
    runtime,
    sync::watch,
    task::JoinSet,
};

use crate::server::BoundSocket;

/// Binds the address once for each worker. For port 0, all sockets get the same free port.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    if address.port() != 0 {
        // This bind fails if another program listens at the address, even if that program uses
        // SO_REUSEPORT.
        bind_one(address, PortUse::Exclusive)?;
    }
    let first = bind_one(address, PortUse::Shared)?;
    let address = first.local_addr()?;
    let others = (1..workers).map(|_| bind_one(address, PortUse::Shared));
    std::iter::once(Ok(first)).chain(others).collect()
}

/// Whether several sockets may bind the port (SO_REUSEPORT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortUse {
    Exclusive,
    Shared,
}

fn bind_one(address: SocketAddr, port_use: PortUse) -> io::Result<std::net::TcpListener> {
    /// Tokio's default backlog.
    const BACKLOG: i32 = 1024;
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(port_use == PortUse::Shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves on the listeners of all workers until all workers have ended. If there are several
/// workers, each listener has its own thread.
pub async fn serve<F>(
    first: BoundSocket,
    others: Vec<std::net::TcpListener>,
    serve: impl Fn(BoundSocket) -> F + Send + Sync + 'static,
) -> anyhow::Result<()>
where
    F: Future<Output = ()>,
{
    let first = match first {
        BoundSocket::Tcp(first) if !others.is_empty() => first.into_std()?,
        only => {
            serve(only).await;
            return Ok(());
        }
    };
    let serve = Arc::new(serve);
    let mut threads = JoinSet::new();
    let all_done = Arc::new(watch::Sender::new(()));
    for listener in others.into_iter().chain([first]) {
        let (serve, all_done, serving) = (serve.clone(), all_done.clone(), all_done.subscribe());
        let work = move || -> io::Result<()> {
            runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                serve(BoundSocket::Tcp(TcpListener::from_std(listener)?)).await;
                // Keep this runtime until all workers are done: other workers may use connections
                // to upstreams that this runtime drives.
                drop(serving);
                all_done.closed().await;
                Ok(())
            })
        };
        threads.spawn(on_thread(work));
    }
    let mut outcome = Ok(());
    while let Some(ended) = threads.join_next().await {
        // The error is reported at once, because the other workers continue.
        if let Err(problem) = ended.map_err(io::Error::other).flatten() {
            tracing::error!("a worker has stopped: {problem}");
            outcome = Err(problem);
        }
    }
    Ok(outcome?)
}

/// Serves on a Unix socket with a thread and a runtime of its own, so that requests at other
/// listeners, however many, cannot delay its requests.
pub async fn serve_apart<F>(
    socket: UnixListener,
    serve: impl FnOnce(UnixListener) -> F + Send + 'static,
) -> anyhow::Result<()>
where
    F: Future<Output = ()>,
{
    let socket = socket.into_std()?;
    let work = move || -> io::Result<()> {
        runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            serve(UnixListener::from_std(socket)?).await;
            Ok(())
        })
    };
    Ok(on_thread(work).await?)
}

/// Runs `work` on a new thread.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, waiting) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("worker".into()).spawn(move || done.send(work()))?;
    waiting.await.map_err(|_| io::Error::other("a worker has stopped"))?
}
