//! The byte stream of a connection: reports reads and writes to the [timeouts](super::timeouts),
//! rejects requests with ambiguous framing, and gives hyper's own rejections a body.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    net::Shutdown,
    os::fd::{AsFd as _, BorrowedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::oneshot,
};
use tokio_rustls::server::TlsStream;

use super::{
    framing::{FramingGuard, Inspection},
    half_close::HalfClose,
    header_block::HeaderBlocks,
    held::HeldBytes,
    malformed,
    timeouts::ConnectionTimeouts,
};

/// The maximum time that the server reads from a rejected client before it closes the socket. If a
/// closed socket has unread bytes, the kernel sends a reset, and the client's kernel then discards
/// the response.
const LINGER: Duration = Duration::from_secs(1);
/// The maximum number of bytes that the server reads from a rejected client.
const LINGER_BYTES: usize = 8 * 1024 * 1024;

/// The socket of a connection.
#[derive(Debug)]
pub(in crate::server) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TlsIo>>),
}

/// Evaluates an expression with the stream of a socket, for each kind of socket.
macro_rules! with_stream {
    ($socket:expr, $stream:ident => $does:expr) => {
        match $socket {
            Socket::Tcp($stream) => $does,
            Socket::Unix($stream) => $does,
            Socket::Tls($stream) => $does,
        }
    };
}

/// Evaluates an expression with the operating system's stream of a socket. For TLS, this is the
/// stream below the TLS stream.
macro_rules! with_raw_stream {
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
        with_raw_stream!(self, stream => stream.try_read(buffer))
    }

    fn shutdown_write(&self) -> io::Result<()> {
        with_raw_stream!(self, stream => socket2::SockRef::from(stream).shutdown(Shutdown::Write))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        with_stream!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with_stream!(self, stream => Pin::new(stream).poll_write_vectored(cx, parts))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(self.shutdown_write()),
            // TLS first sends close_notify, which proves to the client that the stream is complete
            // (RFC 8446, section 6.1).
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Closes the write side. Then reads and discards the bytes that the client sends after the
    /// response.
    pub async fn linger(&self) {
        let _ = self.shutdown_write();
        let discard = async {
            let mut buffer = vec![0; 16 * 1024];
            let mut discarded = 0;
            while discarded < LINGER_BYTES {
                match self.try_read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) => discarded += read,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        if with_raw_stream!(self, stream => stream.readable().await).is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, discard).await;
    }

    /// Whether both directions of the connection are closed, for example by a reset.
    pub fn is_reset(&self) -> bool {
        let is_closed = |stream: BorrowedFd<'_>| {
            let mut events = [PollFd::from_borrowed_fd(stream, PollFlags::empty())];
            let found = poll(&mut events, Some(&Timespec::default()));
            let closed = PollFlags::HUP | PollFlags::ERR;
            found.is_ok() && events[0].revents().intersects(closed)
        };
        with_raw_stream!(self, stream => is_closed(stream.as_fd()))
    }

    /// Whether the socket has unread bytes. Discards the first unread byte.
    pub fn has_unread(&self) -> bool {
        self.try_read(&mut [0]).is_ok_and(|read| read > 0)
    }
}

/// The socket below TLS. This socket reports its writes to the timeouts, because the TLS stream
/// accepts the bytes of a response long before the client does.
#[derive(Debug)]
pub(in crate::server) struct TlsIo {
    stream: TcpStream,
    timeouts: Arc<ConnectionTimeouts>,
}

impl TlsIo {
    pub fn new(stream: TcpStream, timeouts: Arc<ConnectionTimeouts>) -> Self {
        Self { stream, timeouts }
    }

    pub fn into_inner(self) -> TcpStream {
        self.stream
    }
}

/// Reports a write to the timeouts.
fn report_write(
    timeouts: &ConnectionTimeouts,
    written: Poll<io::Result<usize>>,
) -> Poll<io::Result<usize>> {
    match written {
        Poll::Ready(_) => timeouts.wrote(),
        Poll::Pending => timeouts.write_blocked(),
    }
    written
}

impl AsyncRead for TlsIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        report_write(&self.timeouts, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        report_write(&self.timeouts, written)
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

/// Gives the socket back when hyper has finished, and can abort a connection that is still in use.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct ReturnedSocket(Arc<Mutex<ReturnState>>);

#[derive(Debug, Default)]
struct ReturnState {
    /// `None` while the connection is in use.
    socket: Option<Socket>,
    is_aborted: bool,
    /// The wakers of the tasks that wait to read ([`READ`]) and to write ([`WRITE`]).
    waiting: [Option<Waker>; 2],
}

impl ReturnedSocket {
    pub fn take(&self) -> Option<Socket> {
        self.0.lock().socket.take()
    }

    /// Aborts a connection that was upgraded: its reads and writes return an error.
    pub fn abort(&self) {
        let mut state = self.0.lock();
        state.is_aborted = true;
        state.waiting.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }

    /// Whether the connection was aborted. A later abort wakes `cx`.
    fn is_aborted(&self, direction: usize, cx: &Context<'_>) -> bool {
        let mut state = self.0.lock();
        state.waiting[direction] = Some(cx.waker().clone());
        state.is_aborted
    }
}

const READ: usize = 0;
const WRITE: usize = 1;

/// The stream that hyper reads from and writes to.
pub(in crate::server) struct MonitoredIo {
    /// `None` after `drop` has returned the socket.
    socket: Option<Socket>,
    returned: ReturnedSocket,
    timeouts: Arc<ConnectionTimeouts>,
    /// The unwritten part of the response that replaces a rejection by hyper.
    replacement: Vec<u8>,
    framing: FramingGuard,
    header_blocks: HeaderBlocks,
    half_close: HalfClose,
    held: HeldBytes,
    /// The drop of this sender tells the listener that the socket is no longer in use.
    _in_use: oneshot::Sender<Infallible>,
}

impl Drop for MonitoredIo {
    fn drop(&mut self) {
        self.returned.0.lock().socket = self.socket.take();
    }
}

impl MonitoredIo {
    /// Returns the monitored socket, the handle that gets the socket back, and a channel that
    /// closes when the socket is no longer in use.
    pub fn new(
        socket: Socket,
        timeouts: Arc<ConnectionTimeouts>,
    ) -> (Self, ReturnedSocket, oneshot::Receiver<Infallible>) {
        let (in_use, released) = oneshot::channel();
        let returned = ReturnedSocket::default();
        let io = Self {
            socket: Some(socket),
            returned: returned.clone(),
            timeouts,
            replacement: Vec::new(),
            framing: FramingGuard::default(),
            header_blocks: HeaderBlocks::default(),
            half_close: HalfClose::default(),
            held: HeldBytes::default(),
            _in_use: in_use,
        };
        (io, returned, released)
    }

    /// Whether the bytes of the connection are HTTP/1.
    fn is_http1(&self) -> bool {
        !self.timeouts.is_http2() && !self.timeouts.is_upgraded()
    }

    /// Inspects the bytes after the first `before` bytes of `buffer`. Replaces the bytes of a
    /// malformed request with bytes that hyper rejects.
    fn inspect(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let received = &buffer.filled()[before..];
        self.timeouts.received(received);
        if self.timeouts.is_http2() {
            self.timeouts.set_block_open(self.header_blocks.read(received));
        }
        if !self.is_http1() {
            return;
        }
        self.header_blocks.skip(received.len());
        match self.framing.inspect(&buffer.filled()[before..]) {
            Inspection::Passed => {}
            Inspection::Malformed(start) => {
                buffer.set_filled(before + start);
                append_invalid_end(buffer);
            }
            Inspection::Undecided(start) => self.held.hold(buffer, before + start),
        }
    }

    /// Called when the client has closed its sending half. Ready when hyper may see the end: at
    /// once if the last request is not complete, and otherwise when its response was written.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_kept =
            self.is_http1() && self.timeouts.is_responding() && self.framing.is_between_requests();
        match &self.socket {
            Some(socket) if is_kept => {
                self.half_close.poll_gone(cx, || socket.is_reset(), &self.timeouts)
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_not_aborted(WRITE, cx)?;
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(0)) };
        // For TLS, `TlsIo` reports the write.
        let is_tls = matches!(socket, Socket::Tls(_));
        let written = socket.poll_write(cx, parts);
        if written.is_ready() {
            self.half_close.wrote();
        }
        if is_tls { written } else { report_write(&self.timeouts, written) }
    }

    /// Returns an error if the connection was upgraded and then aborted. For other connections,
    /// this check takes no lock.
    fn check_not_aborted(&self, direction: usize, cx: &Context<'_>) -> io::Result<()> {
        if self.timeouts.is_upgraded() && self.returned.is_aborted(direction, cx) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    fn poll_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.replacement.is_empty() {
            let replacement = std::mem::take(&mut self.replacement);
            let sent = self.poll_send(cx, &[IoSlice::new(&replacement)]);
            self.replacement = replacement;
            let sent = ready!(sent)?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.replacement.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

/// Appends bytes that hyper rejects in every part of a request but the data of a body: a NUL, which
/// no line may contain, a line feed, which no chunk extension may contain, and the end of a head.
fn append_invalid_end(buffer: &mut ReadBuf<'_>) {
    const END: &[u8] = b"\0\n\r\n\r\n";
    let fits = END.len().min(buffer.remaining());
    buffer.put_slice(&END[..fits]);
}

impl AsyncRead for MonitoredIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_not_aborted(READ, cx)?;
        if self.framing.is_malformed() {
            // The bytes of a malformed request end here.
            return Poll::Ready(Ok(()));
        }
        if self.timeouts.is_upgraded() {
            self.held.release();
        }
        let before = buffer.filled().len();
        if !self.held.is_empty() {
            if self.held.is_holding() {
                self.held.wait(cx);
                return Poll::Pending;
            }
            self.held.take_into(buffer);
            self.inspect(buffer, before);
            return Poll::Ready(Ok(()));
        }
        if self.half_close.is_closed() {
            return self.poll_end(cx);
        }
        let has_room = buffer.remaining() > 0;
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(())) };
        ready!(socket.poll_read(cx, buffer))?;
        if buffer.filled().len() == before && has_room {
            self.half_close.close();
            return self.poll_end(cx);
        }
        if self.held.is_holding() {
            self.held.hold(buffer, before);
            self.held.wait(cx);
            return Poll::Pending;
        }
        self.inspect(buffer, before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MonitoredIo {
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
        ready!(self.poll_replacement(cx))?;
        if self.timeouts.can_write_rejection()
            && let Some(first) = parts.iter().find(|part| !part.is_empty())
            && let Some(response) =
                malformed::replacement_for(first, self.framing.has_unknown_coding())
        {
            self.timeouts.set_rejected();
            let length = first.len();
            self.replacement = response;
            // Writes the response at once. If the socket does not accept the whole response, the
            // next flush writes the rest.
            if let Poll::Ready(Err(e)) = self.poll_replacement(cx) {
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
        ready!(self.poll_replacement(cx))?;
        if let Some(socket) = &mut self.socket {
            ready!(socket.poll_flush(cx))?;
        }
        if self.timeouts.flushed() {
            self.half_close.release();
            self.held.release();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(())) };
        match ready!(socket.poll_shutdown(cx)) {
            // The client has closed the connection already.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}
