//! HTTP/1 framing: our inspection, hyper and a reader on httparse must find equal requests.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::server::connection::framing::{FramingGuard, Inspection};

/// Checks the bytes of a connection. The first byte chooses how the rest is split into reads.
///
/// # Panics
/// The splits have different results, or two readers find different requests.
pub fn framing(data: &[u8]) {
    let Some((&split, stream)) = data.split_first() else { return };
    let length = usize::from(split).max(1);
    let passed = [passed(stream.chunks(stream.len().max(1))), passed(stream.chunks(length))];
    let read = passed.each_ref().map(|passed| requests_of_hyper(passed, length));
    assert_eq!(read[0], read[1], "the result depends on the reads");
    let ends = ends_of_requests(stream);
    for (passed, read) in passed.iter().zip(&read) {
        let known = requests_of_httparse(passed);
        for (index, body) in read.iter().enumerate() {
            let Some((end, expected)) = known.get(index) else {
                panic!("hyper reads request {index}, and httparse does not");
            };
            assert_eq!(body, expected, "the body of request {index}");
            assert_eq!(ends.get(index), Some(end), "the end of request {index}");
        }
    }
}

/// The bytes that hyper may see.
fn passed<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut guard, mut passed) = (FramingGuard::default(), Vec::new());
    for mut part in parts {
        loop {
            match guard.inspect(part) {
                Inspection::Passed => passed.extend_from_slice(part),
                Inspection::Malformed(start) => {
                    passed.extend_from_slice(&part[..start]);
                    return passed;
                }
                // The server does not switch to another protocol.
                Inspection::Undecided(start) => {
                    passed.extend_from_slice(&part[..start]);
                    part = &part[start..];
                    continue;
                }
            }
            break;
        }
    }
    passed
}

/// The offsets at which our inspection sees the ends of requests.
fn ends_of_requests(stream: &[u8]) -> Vec<usize> {
    let (mut guard, mut ends, mut is_inside) = (FramingGuard::default(), Vec::new(), false);
    for (index, byte) in stream.iter().enumerate() {
        let found = guard.inspect(std::slice::from_ref(byte));
        if matches!(found, Inspection::Malformed(_)) {
            break;
        }
        let is_between = guard.is_between_requests();
        // An empty line before a request ends none.
        let is_blank = !is_inside && matches!(byte, b'\r' | b'\n');
        if is_between && is_inside {
            ends.push(index + 1);
        }
        is_inside = !is_between && !is_blank;
    }
    ends
}

/// The ends and bodies of the requests, up to the first one that httparse rejects or that is not
/// complete.
fn requests_of_httparse(stream: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some((end, body)) = request_of_httparse(stream, at) {
        found.push((end, body));
        at = end;
    }
    found
}

fn request_of_httparse(stream: &[u8], start: usize) -> Option<(usize, Vec<u8>)> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head) = request.parse(&stream[start..]).ok()? else {
        return None;
    };
    let at = start + head;
    let field = |name: &str| {
        let field = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        field.map(|field| field.value)
    };
    if field("transfer-encoding").is_some() {
        return chunked_body(stream, at);
    }
    let length = match field("content-length") {
        Some(text) => std::str::from_utf8(text).ok()?.trim().parse().ok()?,
        None => 0,
    };
    Some((at.checked_add(length)?, stream.get(at..at.checked_add(length)?)?.to_vec()))
}

fn chunked_body(stream: &[u8], mut at: usize) -> Option<(usize, Vec<u8>)> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((line, size)) =
            httparse::parse_chunk_size(stream.get(at..)?).ok()?
        else {
            return None;
        };
        at += line;
        if size == 0 {
            let mut fields = [httparse::EMPTY_HEADER; 100];
            let trailers = httparse::parse_headers(&stream[at..], &mut fields).ok()?;
            let httparse::Status::Complete((length, _)) = trailers else { return None };
            return Some((at + length, body));
        }
        let end = at.checked_add(usize::try_from(size).ok()?)?;
        body.extend_from_slice(stream.get(at..end)?);
        at = end + stream.get(end..end + 2)?.len();
    }
}

/// The bodies of the requests that hyper reads completely, one after another.
fn requests_of_hyper(stream: &[u8], length: usize) -> Vec<Vec<u8>> {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let bodies = bodies.clone();
        async move {
            if let Ok(body) = request.into_body().collect().await {
                bodies.lock().push(body.to_bytes().to_vec());
            }
            // A success would turn the connection of a CONNECT into a tunnel.
            let mut response = Response::new(Full::new(Bytes::new()));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(RecordedReads { rest: stream, length });
    // The server delays the end of the connection until all responses were written.
    let connection = http1::Builder::new().half_close(true).serve_connection(io, service);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    // An error ends the connection: the requests before it were read.
    let _ = runtime.expect("the runtime starts").block_on(connection);
    std::mem::take(&mut *bodies.lock())
}

/// A connection whose client sends recorded bytes, and reads everything.
struct RecordedReads<'a> {
    rest: &'a [u8],
    length: usize,
}

impl AsyncRead for RecordedReads<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.length.min(self.rest.len()).min(buffer.remaining());
        let (read, rest) = self.rest.split_at(length);
        buffer.put_slice(read);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RecordedReads<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
