//! Tests of the bodies that the layer reads for scripts: when they are read, and how many bytes are
//! in memory.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame};
use keyward::{
    ClientSource, GuardLayer,
    layer::ClientAddress,
    limits::BufferLimits,
    model::{Actor, Resource},
    pipeline::Gate,
};
use serde_json::json;

use crate::faces::fixture::Fixture;

/// A body of equal pieces, which counts how many of them were taken.
struct Pieces {
    left: usize,
    taken: Arc<AtomicUsize>,
}

const PIECE: usize = 1000;

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.taken.fetch_add(1, Relaxed);
        Poll::Ready(Some(Ok(Frame::data(vec![b'x'; PIECE].into()))))
    }
}

/// A fixture with a resource whose body scripts may read.
async fn fixture() -> Fixture {
    let fixture = Fixture::new().await;
    let record = json!({
        "id": "plain", "enabled": true, "handler": "decide", "path": "/plain",
        "granularity": "resource", "methods": ["POST"], "formats": ["any"],
        "authentication": ["*"], "buffer_body": true,
    });
    let resource: Resource = serde_json::from_value(record).unwrap();
    fixture.accounts.as_actor(Actor::Program).create(resource).await.unwrap();
    fixture
}

/// Sends a body of this many pieces. Returns the status, the number of pieces that were taken, and
/// the length of the body that the service got.
async fn send(layer: &GuardLayer, credential: &str, pieces: usize) -> (u16, usize, usize) {
    let taken = Arc::new(AtomicUsize::new(0));
    let mut request = Request::post("/plain").header("host", "a");
    if !credential.is_empty() {
        request = request.header("api-key", credential);
    }
    let client = IpAddr::from([192, 0, 2, 1]);
    let request = request.extension(ClientAddress(client));
    let body = Pieces { left: pieces, taken: taken.clone() };
    let got = AtomicUsize::new(0);
    let response = layer.handle(request.body(body).unwrap(), async |request| {
        let body = request.into_body().collect().await?.to_bytes();
        got.store(body.len(), Relaxed);
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
    });
    let status = response.await.unwrap().status().as_u16();
    (status, taken.load(Relaxed), got.load(Relaxed))
}

#[tokio::test]
async fn layer_takes_no_piece_of_a_body_before_the_credential_was_right() {
    let fixture = fixture().await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    assert_eq!(send(&layer, "", 3).await, (401, 0, 0));
    assert_eq!(send(&layer, "!", 3).await, (401, 0, 0));
    assert_eq!(send(&layer, &fixture.ada, 3).await, (200, 3, 3 * PIECE));
}

#[tokio::test]
async fn layer_holds_at_most_the_budget() {
    let fixture = fixture().await;
    let limits = BufferLimits { bytes: 40 * PIECE, unauthenticated_bytes: 40 * PIECE };
    let accounts = fixture.accounts.clone().with_buffers(limits);
    let layer = GuardLayer::new(Gate::new(&accounts, 4096), ClientSource::extension());
    assert_eq!(send(&layer, &fixture.ada, 5).await, (200, 5, 5 * PIECE));
    let (status, taken, _) = send(&layer, &fixture.ada, 100).await;
    assert_eq!((status, taken), (413, 11), "one client has a quarter");
    assert_eq!(accounts.buffers().usage().bytes, 0);
}
