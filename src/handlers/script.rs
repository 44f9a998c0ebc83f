//! The handler `script:NAME`: the script `handlers/NAME.rhai` makes the response.

use ::http::Response;

use super::{HandlerRequest, Payload, PayloadResponse};
use crate::pipeline::Denial;

pub(super) async fn respond(
    name: &str,
    HandlerRequest { context, request, grant, .. }: &HandlerRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let scripted = context.handle(name, request, grant.identity()).await?;
    let mut response = Response::new(Payload::from(scripted.body));
    *response.status_mut() = scripted.status;
    *response.headers_mut() = scripted.headers;
    Ok(response)
}
