//! Upstreams for the tests. One upstream responds with the request as JSON, and the others send
//! fixed bytes.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use ::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    body::{Body, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::tls::Certificates;

/// A running upstream.
pub struct Upstream {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

impl Upstream {
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

#[derive(Clone, Copy)]
pub enum Protocol {
    Http1,
    Http2,
}

/// An upstream that responds with the request as JSON.
pub async fn echo(protocol: Protocol) -> Upstream {
    echo_with(protocol, None).await
}

/// An upstream with TLS that responds with the request as JSON.
pub async fn tls_echo(protocol: Protocol, certificates: Certificates) -> Upstream {
    echo_with(protocol, Some(certificates)).await
}

async fn echo_with(protocol: Protocol, certificates: Option<Certificates>) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, SeqCst);
            let certificates = certificates.clone();
            tokio::spawn(async move {
                match certificates {
                    None => serve(stream, protocol).await,
                    Some(certificates) => {
                        let Ok(stream) = certificates.accept(stream).await else { return };
                        serve(stream, protocol).await;
                    }
                }
            });
        }
    });
    Upstream { address, connections }
}

async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, protocol: Protocol) {
    let (io, service) = (TokioIo::new(stream), service_fn(describe));
    match protocol {
        Protocol::Http1 => {
            let builder = hyper::server::conn::http1::Builder::new();
            let _ = builder.serve_connection(io, service).await;
        }
        Protocol::Http2 => {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(io, service).await;
        }
    }
}

async fn describe(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let description = json!({
        "method": head.method.as_str(),
        "target": head.uri.path_and_query().map(|target| target.as_str()),
        "authority": head.uri.authority().map(|authority| authority.as_str()),
        "headers": fields(&head.headers),
        "trailers": fields(&trailers),
        "body": String::from_utf8_lossy(&collected.to_bytes()),
    });
    let body = Full::new(Bytes::from(description.to_string()));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "7".parse().unwrap());
    let body = body.with_trailers(async { Some(Ok(trailers)) });
    let response = Response::builder()
        .header("x-from", "upstream")
        .header("trailer", "x-checksum")
        .header("connection", "x-secret-of-hop")
        .header("x-secret-of-hop", "1");
    Ok(response.body(Unsized(body.boxed()).boxed()).unwrap())
}

/// A body of unknown length, which HTTP/1.1 sends in chunks. Trailers can follow the chunks.
struct Unsized(BoxBody<Bytes, Infallible>);

impl Body for Unsized {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

fn fields(headers: &HeaderMap) -> Value {
    let text = |value: &::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| json!([name.as_str(), text(value)])).collect()
}

/// An upstream that runs a function for each connection.
pub async fn upstream_with<F>(each: impl Fn(TcpStream, usize) -> F + Send + 'static) -> Upstream
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream, count.fetch_add(1, SeqCst)));
        }
    });
    Upstream { address, connections }
}

/// An upstream that reads a head, sends these bytes, and closes.
pub async fn upstream_sending(response: &'static str) -> Upstream {
    upstream_with(move |mut stream, _| async move {
        head(&mut stream).await;
        let _ = stream.write_all(response.as_bytes()).await;
    })
    .await
}

/// Reads a request's head.
pub async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.is_ok_and(|read| read == 1)
    {
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}
