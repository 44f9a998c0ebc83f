//! Serving with a thread, a runtime and a listener for each worker. The kernel shares the connections out, and a connection stays with its worker.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{net::TcpListener, runtime, sync::watch, task::JoinSet};

use crate::server::BoundSocket;

/// Binds one address several times over; port 0: the same free port each time.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    if address.port() != 0 {
        is_free(address)?;
    }
    let first = bind_one(address, Port::Shared)?;
    let address = first.local_addr()?;
    let others = (1..workers).map(|_| bind_one(address, Port::Shared));
    std::iter::once(Ok(first)).chain(others).collect()
}

/// Fails where another program listens, even one that would share the port with whoever asks.
fn is_free(address: SocketAddr) -> io::Result<()> {
    bind_one(address, Port::Alone).map(drop)
}

/// Whether a port is for one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Alone,
    Shared,
}

fn bind_one(address: SocketAddr, port: Port) -> io::Result<std::net::TcpListener> {
    /// As many as tokio takes.
    const WAITING: i32 = 1024;
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(port == Port::Shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(WAITING)?;
    Ok(socket.into())
}

/// Serves on the first listener and on those of the other workers, until all have ended. Where there are others, each has a thread of its own.
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
        alone => {
            serve(alone).await;
            return Ok(());
        }
    };
    let serve = Arc::new(serve);
    let mut threads = JoinSet::new();
    let served = Arc::new(watch::Sender::new(()));
    for listener in others.into_iter().chain([first]) {
        let (serve, served, serving) = (serve.clone(), served.clone(), served.subscribe());
        let work = move || -> io::Result<()> {
            runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                serve(BoundSocket::Tcp(TcpListener::from_std(listener)?)).await;
                // Its runtime drives connections to upstreams, over which others may still be answered.
                drop(serving);
                served.closed().await;
                Ok(())
            })
        };
        threads.spawn(on_thread(work));
    }
    let mut outcome = Ok(());
    while let Some(ended) = threads.join_next().await {
        // Told at once: the others go on, and may do so for years.
        if let Err(problem) = ended.map_err(io::Error::other).flatten() {
            tracing::error!("a worker has stopped: {problem}");
            outcome = Err(problem);
        }
    }
    Ok(outcome?)
}

/// What comes of `work` on a thread of its own.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, waiting) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("worker".into()).spawn(move || done.send(work()))?;
    waiting.await.map_err(|_| io::Error::other("a worker has stopped"))?
}
