//! A service behind a [`Layer`], which authorizes each request.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use ::http::{Request, Response};
use bytes::Bytes;
use hyper::body::Body;
use tower_service::Service;

use super::{Layer, LayerBody};

/// A service that a [`Layer`] has wrapped.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    pub(super) layer: Layer,
    pub(super) inner: S,
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<LayerBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    R: Send,
{
    type Response = Response<LayerBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let layer = self.layer.clone();
        // Call the service that is ready, because a clone may not be ready.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move { layer.handle(request, |request| inner.call(request)).await })
    }
}
