//! Requests to the admin API in this process, while no server has the store.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::BodyExt as _;

use super::{Sending, Transport};
use crate::{
    cli::{Exit, Failure},
    handlers::PayloadResponse,
};

/// What [`Decide::decide`] returns.
pub type Deciding<'a> = Pin<Box<dyn Future<Output = PayloadResponse> + Send + 'a>>;

/// The admin API, as far as it can be asked without a network.
pub trait Decide: Send + Sync {
    /// Answers a request, whatever comes of it.
    fn decide<'a>(&'a self, request: &'a Parts, body: Bytes) -> Deciding<'a>;
}

/// The way to an API in this process.
pub struct Local<A>(pub A);

impl<A: Decide> Transport for Local<A> {
    fn send(&self, request: Request<Bytes>) -> Sending<'_> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let (parts, body) = self.0.decide(&parts, body).await.into_parts();
            let whole = body.collect().await.map_err(|problem| {
                let text = format!("the admin API's answer cannot be read: {problem}");
                Failure::new(Exit::Failed, text)
            })?;
            Ok(Response::from_parts(parts, whole.to_bytes()))
        })
    }
}
