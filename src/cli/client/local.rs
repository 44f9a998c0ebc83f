//! Calls the admin API inside this process, while no server has the store open.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::BodyExt as _;

use super::{
    ApiTransport, SendFuture,
    download::{Download, OutputError},
};
use crate::{
    cli::{CliError, Exit},
    handlers::PayloadResponse,
};

/// The future that [`InProcessApi::respond`] returns.
pub type ApiFuture<'a> = Pin<Box<dyn Future<Output = PayloadResponse> + Send + 'a>>;

/// An admin API that can be called without a network.
pub trait InProcessApi: Send + Sync {
    /// Responds to a request. Failures become error responses.
    fn respond<'a>(&'a self, request: &'a Parts, body: Bytes) -> ApiFuture<'a>;
}

/// A transport to an API in this process.
pub struct LocalApi<A>(pub A);

impl<A: InProcessApi> ApiTransport for LocalApi<A> {
    fn send(&self, request: Request<Bytes>) -> SendFuture<'_> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let (parts, body) = self.0.respond(&parts, body).await.into_parts();
            let collected = body.collect().await.map_err(|problem| {
                let text = format!("cannot read the response of the admin API: {problem}");
                CliError::new(Exit::Failed, text)
            })?;
            Ok(Response::from_parts(parts, collected.to_bytes()))
        })
    }

    fn download<'a>(
        &'a self,
        request: Request<Bytes>,
        output: &'a mut dyn Download,
    ) -> SendFuture<'a> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let (parts, mut body) = self.0.respond(&parts, body).await.into_parts();
            let failed = |problem: &dyn std::fmt::Display| {
                let text = format!("cannot read the response of the admin API: {problem}");
                CliError::new(Exit::Failed, text)
            };
            if !parts.status.is_success() {
                let collected = body.collect().await.map_err(|problem| failed(&problem))?;
                return Ok(Response::from_parts(parts, collected.to_bytes()));
            }
            output.begin(&parts);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|problem| failed(&problem))?;
                if let Ok(bytes) = frame.into_data() {
                    output.part(&bytes).map_err(OutputError)?;
                }
            }
            Ok(Response::from_parts(parts, Bytes::new()))
        })
    }
}
