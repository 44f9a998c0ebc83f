//! The services behind a [`GuardLayer`], which authorizes each request.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use ::http::{Request, Response};
use bytes::Bytes;
use hyper::body::Body;
use tower_service::Service;

use super::{GuardLayer, LayerBody};

/// A service that a [`GuardLayer`] has wrapped. It passes requests on with the type of their body.
///
/// The guard is always ready. It waits for the inner service only after it has allowed a request,
/// so that a client without a credential holds nothing of the inner service: no permit of a
/// concurrency limit, and no place in a queue.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    pub(super) layer: GuardLayer,
    pub(super) inner: S,
}

/// A service that a [`WrappingGuardLayer`] has wrapped. It passes requests on with a [`LayerBody`].
#[derive(Debug, Clone)]
pub struct WrappingGuarded<S>(Guarded<S>);

/// A [`GuardLayer`] for bodies that cannot be made from bytes, such as hyper's `Incoming`. See
/// [`GuardLayer::wrapping_bodies`].
#[derive(Debug, Clone)]
pub struct WrappingGuardLayer(pub(super) GuardLayer);

impl<S> tower_layer::Layer<S> for GuardLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { layer: self.clone(), inner }
    }
}

impl<S> tower_layer::Layer<S> for WrappingGuardLayer {
    type Service = WrappingGuarded<S>;

    fn layer(&self, inner: S) -> WrappingGuarded<S> {
        WrappingGuarded(Guarded { layer: self.0.clone(), inner })
    }
}

/// The future of a response.
type ResponseFuture<R, E> = Pin<Box<dyn Future<Output = Result<Response<LayerBody<R>>, E>> + Send>>;

impl<S> Guarded<S> {
    /// Authorizes a request, then waits until the inner service is ready, and calls it.
    fn guard<B, C, R>(
        &self,
        request: Request<B>,
        convert: fn(LayerBody<B>) -> C,
    ) -> ResponseFuture<R, S::Error>
    where
        S: Service<Request<C>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
        C: Send + 'static,
        R: Send,
    {
        let layer = self.layer.clone();
        let mut inner = self.inner.clone();
        let next = async move |request: Request<LayerBody<B>>| {
            poll_fn(|cx| inner.poll_ready(cx)).await?;
            inner.call(request.map(convert)).await
        };
        Box::pin(async move { layer.handle(request, next).await })
    }
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    R: Send,
{
    type Response = Response<LayerBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<R, S::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.guard(request, LayerBody::into_inner)
    }
}

impl<S, B, R> Service<Request<B>> for WrappingGuarded<S>
where
    S: Service<Request<LayerBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    R: Send,
{
    type Response = Response<LayerBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<R, S::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.0.guard(request, |body| body)
    }
}
