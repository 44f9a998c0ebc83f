//! A connection, watched: what moves is noted for the [watch](super::watch), and hyper's own refusals get a body.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::oneshot,
};

use super::{
    head::Head,
    refusal,
    watch::{Expects, Watch},
};

/// How long, and for how many bytes, a client that was refused is heard out, so that it reads the answer: closing a socket that still holds
/// bytes makes the kernel send a reset, and the client's kernel then throws the answer away.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 8 * 1024 * 1024;

/// A socket, shared between hyper and the one who waits for hyper's end.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(parts),
            Self::Unix(stream) => stream.try_write_vectored(parts),
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    /// Ends both directions, whoever holds the socket.
    pub fn end(&self) {
        let _ = match self {
            Self::Tcp(stream) => socket2::SockRef::from(stream).shutdown(Shutdown::Both),
            Self::Unix(stream) => socket2::SockRef::from(stream).shutdown(Shutdown::Both),
        };
    }

    fn end_writing(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => socket2::SockRef::from(stream).shutdown(Shutdown::Write),
            Self::Unix(stream) => socket2::SockRef::from(stream).shutdown(Shutdown::Write),
        }
    }

    /// Reads and forgets what a client still sends after its answer.
    pub async fn linger(&self) {
        let _ = self.end_writing();
        let hear_out = async {
            let mut buffer = vec![0; 16 * 1024];
            let mut heard = 0;
            while heard < LINGER_BYTES {
                match self.try_read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) => heard += read,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        if self.readable().await.is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, hear_out).await;
    }

    /// Whether bytes have come that nobody read.
    pub fn has_unread(&self) -> bool {
        self.try_read(&mut [0]).is_ok_and(|read| read > 0)
    }
}

/// What hyper reads from and writes to.
pub(super) struct Watched {
    socket: Arc<Socket>,
    watch: Arc<Watch>,
    /// What is left to be written of an answer that was put in the place of hyper's.
    instead: Vec<u8>,
    /// The head of the request that is arriving.
    head: Head,
    /// Goes with this, and so tells the listener that nobody reads or writes any more.
    _held: oneshot::Sender<Infallible>,
}

impl Watched {
    /// A watched socket, and what ends when it is let go.
    pub fn new(socket: Arc<Socket>, watch: Arc<Watch>) -> (Self, oneshot::Receiver<Infallible>) {
        let (held, released) = oneshot::channel();
        (Self { socket, watch, instead: Vec::new(), head: Head::default(), _held: held }, released)
    }

    /// Where what came makes a request ambiguous, if it does.
    fn look(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.watch.expects() {
            Expects::Other => return None,
            Expects::NewHead => self.head = Head::default(),
            Expects::Head => {}
        }
        self.head.look(bytes)
    }

    fn poll_send(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.try_write(parts) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.watch.cannot_write();
                    ready!(self.socket.poll_writable(cx))?;
                }
                Ok(sent) => {
                    self.watch.wrote();
                    return Poll::Ready(Ok(sent));
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let sent = ready!(self.poll_send(cx, &[IoSlice::new(&self.instead)]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

/// Ends a head so that hyper refuses it: no line may hold this.
fn end_badly(buffer: &mut ReadBuf<'_>) {
    const END: &[u8] = b"\0\r\n\r\n";
    let fits = END.len().min(buffer.remaining());
    buffer.put_slice(&END[..fits]);
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.socket.try_read(buffer.initialize_unfilled()) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_readable(cx))?;
                }
                Ok(read) => {
                    let bytes = &buffer.initialize_unfilled()[..read];
                    if read > 0 {
                        self.watch.read(bytes);
                    }
                    match self.look(bytes) {
                        None => buffer.advance(read),
                        Some(at) => {
                            buffer.advance(at);
                            end_badly(buffer);
                        }
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        if self.watch.may_refuse()
            && let Some(first) = parts.iter().find(|part| !part.is_empty())
            && let Some(answer) = refusal::instead_of(first)
        {
            self.watch.refused();
            let length = first.len();
            self.instead = answer;
            // Tried at once; what does not fit goes with the next flush.
            if let Poll::Ready(Err(e)) = self.poll_instead(cx) {
                return Poll::Ready(Err(e));
            }
            return Poll::Ready(Ok(length));
        }
        self.poll_send(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_instead(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        match self.socket.end_writing() {
            // The other side was faster.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended),
        }
    }
}
