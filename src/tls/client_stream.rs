//! The connection of an HTTP client, on which a response counts even if the server has stopped
//! reading the request.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, ToSocketAddrs},
};

/// A stream whose writes never fail, because hyper drops a response that has arrived if a write
/// fails.
///
/// A server may respond before it has read the whole request, and close its connection (RFC 9112,
/// section 9.6). The next write then fails, while the response waits to be read. The bytes of that
/// write are discarded; reads return what has arrived, and then the end of the stream, which hyper
/// takes for an error if no complete response came before.
pub(crate) struct ClientStream<S> {
    io: S,
    is_broken: bool,
}

impl ClientStream<TcpStream> {
    /// Connects to a server.
    pub async fn connect(address: impl ToSocketAddrs) -> io::Result<Self> {
        let io = TcpStream::connect(address).await?;
        // Turns off Nagle's algorithm: a request is written at once, so a wait for more data would
        // only delay the request.
        let _ = io.set_nodelay(true);
        Ok(Self { io, is_broken: false })
    }
}

impl<S> ClientStream<S> {
    /// `instead` is the result of a write that failed.
    fn hide<T>(&mut self, polled: Poll<io::Result<T>>, instead: T) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(error)) => {
                tracing::debug!("a server reads no more of a request: {error}");
                self.is_broken = true;
                Poll::Ready(Ok(instead))
            }
            polled => polled,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_broken {
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.hide(polled, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.is_broken {
            return Poll::Ready(Ok(length));
        }
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.hide(polled, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.hide(polled, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A stream below TLS whose reads end instead of failing, because tokio-rustls drops bytes that it
/// has decrypted if the next read fails.
///
/// A server may reset the connection right after its response. TLS itself takes an end without
/// close_notify for an error, so a response that was cut off is still one.
pub(crate) struct EndOnError<S>(pub S);

impl<S: AsyncRead + Unpin> AsyncRead for EndOnError<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(cx, buffer) {
            Poll::Ready(Err(error)) => {
                tracing::debug!("a connection to a server broke: {error}");
                Poll::Ready(Ok(()))
            }
            polled => polled,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for EndOnError<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use ::http::Request;
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;

    use super::*;

    /// Takes no byte of a request; the response arrives with the first write, and then the end.
    struct ResetAfter {
        response: &'static [u8],
        was_written: bool,
    }

    impl AsyncRead for ResetAfter {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if !self.was_written {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            buffer.put_slice(self.response);
            self.response = b"";
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for ResetAfter {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.was_written = true;
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
        }
    }

    async fn exchange(response: &'static [u8]) -> Option<(u16, Bytes)> {
        let io = ResetAfter { response, was_written: false };
        let io = TokioIo::new(ClientStream { io, is_broken: false });
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("/").body(Full::new(Bytes::from_static(b"a body"))).unwrap();
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.into_body().collect().await.ok()?.to_bytes()))
    }

    #[tokio::test]
    async fn response_counts_although_the_request_could_not_be_written() {
        let complete = b"HTTP/1.1 413 Large\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(exchange(complete).await, Some((413, Bytes::from_static(b"body"))));
        assert_eq!(exchange(b"HTTP/1.1 413 Large\r\nContent-Length: 5\r\n\r\nbody").await, None);
        assert_eq!(exchange(b"").await, None);
    }
}
