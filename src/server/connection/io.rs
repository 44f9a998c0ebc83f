//! A connection, watched: what moves is noted for the [watch](super::timeouts), and hyper's own refusals get a body.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::oneshot,
};
use tokio_rustls::server::TlsStream;

use super::{
    framing::Head,
    malformed,
    timeouts::{Expects, Watch},
};

/// How long, and for how many bytes, a client that was refused is heard out, so that it reads the answer: closing a socket that still holds
/// bytes makes the kernel send a reset, and the client's kernel then throws the answer away.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 8 * 1024 * 1024;

/// A socket.
#[derive(Debug)]
pub(in crate::server) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<Noted>>),
}

/// Does the same with every kind.
macro_rules! either {
    ($socket:expr, $stream:ident => $does:expr) => {
        match $socket {
            Socket::Tcp($stream) => $does,
            Socket::Unix($stream) => $does,
            Socket::Tls($stream) => $does,
        }
    };
}

/// Does the same with the socket below, whatever is spoken on it.
macro_rules! below {
    ($socket:expr, $stream:ident => $does:expr) => {
        match $socket {
            Socket::Tcp($stream) => $does,
            Socket::Unix($stream) => $does,
            Socket::Tls(tls) => {
                let $stream = &tls.get_ref().0.stream;
                $does
            }
        }
    };
}

impl Socket {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        below!(self, stream => stream.try_read(buffer))
    }

    fn end_writing(&self) -> io::Result<()> {
        below!(self, stream => socket2::SockRef::from(stream).shutdown(Shutdown::Write))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, parts))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(self.end_writing()),
            // With TLS's own end before it, so that nobody else can have ended it (RFC 8446, section 6.1).
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
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
                        if below!(self, stream => stream.readable().await).is_err() {
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

/// A socket below TLS. What moves is noted here: TLS takes an answer long before the client does.
#[derive(Debug)]
pub(in crate::server) struct Noted {
    stream: TcpStream,
    watch: Arc<Watch>,
}

impl Noted {
    pub fn new(stream: TcpStream, watch: Arc<Watch>) -> Self {
        Self { stream, watch }
    }

    pub fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn note(&self, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match sent {
            Poll::Ready(_) => self.watch.wrote(),
            Poll::Pending => self.watch.cannot_write(),
        }
        sent
    }
}

impl AsyncRead for Noted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Noted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note(sent)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where a socket is left when hyper has done with it, and how it is ended while somebody else holds it.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Left(Arc<Mutex<Slot>>);

#[derive(Debug, Default)]
struct Slot {
    socket: Option<Socket>,
    is_ended: bool,
    /// Who waits to read, and who to write.
    waiting: [Option<Waker>; 2],
}

impl Left {
    pub fn take(&self) -> Option<Socket> {
        self.slot().socket.take()
    }

    /// Ends a connection that was handed over: whoever reads or writes gets an error.
    pub fn end(&self) {
        let mut slot = self.slot();
        slot.is_ended = true;
        slot.waiting.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }

    fn leave(&self, socket: Option<Socket>) {
        self.slot().socket = socket;
    }

    /// Whether the connection was ended; if not, `cx` hears of it.
    fn is_ended(&self, direction: usize, cx: &Context<'_>) -> bool {
        let mut slot = self.slot();
        slot.waiting[direction] = Some(cx.waker().clone());
        slot.is_ended
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const READ: usize = 0;
const WRITE: usize = 1;

/// What hyper reads from and writes to.
pub(in crate::server) struct Watched {
    /// There until this is dropped.
    socket: Option<Socket>,
    left: Left,
    watch: Arc<Watch>,
    /// What is left to be written of an answer that was put in the place of hyper's.
    instead: Vec<u8>,
    /// The head of the request that is arriving.
    head: Head,
    /// Goes with this, and so tells the listener that nobody reads or writes any more.
    _held: oneshot::Sender<Infallible>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.left.leave(self.socket.take());
    }
}

impl Watched {
    /// A watched socket; where it comes to in the end; and what ends when it is let go.
    pub fn new(socket: Socket, watch: Arc<Watch>) -> (Self, Left, oneshot::Receiver<Infallible>) {
        let (held, released) = oneshot::channel();
        let left = Left::default();
        let watched = Self {
            socket: Some(socket),
            left: left.clone(),
            watch,
            instead: Vec::new(),
            head: Head::default(),
            _held: held,
        };
        (watched, left, released)
    }

    /// Where what came makes a request ambiguous, if it does.
    fn look(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.watch.expects() {
            Expects::Other => return None,
            Expects::Next if self.head.is_over() => self.head = Head::default(),
            Expects::Next | Expects::More => {}
        }
        self.head.look(bytes)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.go_on(WRITE, cx)?;
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(0)) };
        let is_noted = matches!(socket, Socket::Tls(_));
        match socket.poll_write(cx, parts) {
            sent if is_noted => sent,
            Poll::Ready(sent) => {
                self.watch.wrote();
                Poll::Ready(sent)
            }
            Poll::Pending => {
                self.watch.cannot_write();
                Poll::Pending
            }
        }
    }

    /// An error for whoever goes on with a connection that was handed over and has been ended. It costs the others nothing.
    fn go_on(&self, direction: usize, cx: &Context<'_>) -> io::Result<()> {
        match self.watch.is_handed_over() && self.left.is_ended(direction, cx) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }

    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let instead = std::mem::take(&mut self.instead);
            let sent = self.poll_send(cx, &[IoSlice::new(&instead)]);
            self.instead = instead;
            let sent = ready!(sent)?;
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
        self.go_on(READ, cx)?;
        let before = buffer.filled().len();
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(())) };
        ready!(socket.poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.watch.read(&buffer.filled()[before..]);
            if let Some(at) = self.look(&buffer.filled()[before..]) {
                buffer.set_filled(before + at);
                end_badly(buffer);
            }
        }
        Poll::Ready(Ok(()))
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
            && let Some(answer) = malformed::instead_of(first)
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
        ready!(self.poll_instead(cx))?;
        self.socket.as_mut().map_or(Poll::Ready(Ok(())), |socket| socket.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(())) };
        match ready!(socket.poll_end(cx)) {
            // The other side was faster.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended),
        }
    }
}
