//! A server that responds to every request with the same body. The benches use it to measure the
//! cost of hyper alone.
//!
//! ```sh
//! cargo run --release --example bare -- --listen 127.0.0.1:0 --body response.json \
//!     --header "cache-control: no-store"
//! ```
//! The server prints its address. It is built like a listener of Keyward: hyper-util detects HTTP/1
//! or HTTP/2, and tokio uses all CPU cores.

use std::{convert::Infallible, io::Write as _, net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};

/// Responds to every request with the same body.
#[derive(Parser)]
struct Args {
    /// The address to listen on; port 0 means any free port.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The file with the body.
    #[arg(long)]
    body: PathBuf,
    /// The body's media type.
    #[arg(long, default_value = "application/json")]
    content_type: HeaderValue,
    /// An additional response header field, `name: value`; may be repeated.
    #[arg(long = "header", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

fn header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) =
        text.split_once(':').ok_or_else(|| anyhow::anyhow!("expected NAME: VALUE"))?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut headers: HeaderMap = args.headers.into_iter().collect();
    headers.insert(CONTENT_TYPE, args.content_type);
    let content = Arc::new((Bytes::from(std::fs::read(&args.body)?), headers));
    let listener = TcpListener::bind(args.listen).await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, content.clone()));
    }
}

async fn serve(stream: TcpStream, content: Arc<(Bytes, HeaderMap)>) {
    let service = service_fn(move |_: Request<Incoming>| {
        let mut response = Response::new(Full::new(content.0.clone()));
        *response.headers_mut() = content.1.clone();
        async { Ok::<_, Infallible>(response) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    // Errors of a connection, such as a disconnect, are ignored.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}
