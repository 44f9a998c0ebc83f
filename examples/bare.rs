//! A server that answers every request with the same body: what hyper alone costs, to compare Keyward with.
//!
//! ```sh
//! cargo run --release --example bare -- --listen 127.0.0.1:0 --body answer.json --header "cache-control: no-store"
//! ```
//! It is built as Keyward's own listener is (hyper-util's automatic choice of HTTP/1 and HTTP/2, tokio on all cores) and prints its address.

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

/// Answers every request with the same body.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0: any free port.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The file that holds the body.
    #[arg(long)]
    body: PathBuf,
    /// The body's media type.
    #[arg(long, default_value = "application/json")]
    content_type: HeaderValue,
    /// Another header of the answer, `name: value`; can be given more than once.
    #[arg(long = "header", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

fn header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').ok_or_else(|| anyhow::anyhow!("no colon"))?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut headers: HeaderMap = args.headers.into_iter().collect();
    headers.insert(CONTENT_TYPE, args.content_type);
    let answer = Arc::new((Bytes::from(std::fs::read(&args.body)?), headers));
    let listener = TcpListener::bind(args.listen).await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, answer.clone()));
    }
}

async fn serve(stream: TcpStream, answer: Arc<(Bytes, HeaderMap)>) {
    let service = service_fn(move |_: Request<Incoming>| {
        let mut response = Response::new(Full::new(answer.0.clone()));
        *response.headers_mut() = answer.1.clone();
        async { Ok::<_, Infallible>(response) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    // A client that goes away in the middle is of no interest here.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}
