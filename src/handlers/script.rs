//! The handler `script:NAME`: the script `handlers/NAME.rhai` answers.

use ::http::Response;

use super::{Call, Payload, PayloadResponse};
use crate::pipeline::Denial;

pub(super) async fn answer(name: &str, call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let made = call.scene.handle(name, &call.request, call.grant.identity()).await?;
    let mut reply = Response::new(Payload::from(made.body));
    *reply.status_mut() = made.status;
    *reply.headers_mut() = made.headers;
    Ok(reply)
}
