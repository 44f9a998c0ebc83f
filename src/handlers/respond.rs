//! The handler `respond`: a fixed answer.

use ::http::{HeaderValue, StatusCode, header::CONTENT_TYPE};

use super::PayloadResponse;
use crate::directory::Rule;

pub(super) fn answer(rule: &Rule) -> PayloadResponse {
    let fixed = rule.resource.respond.clone().unwrap_or_default();
    let mut reply = PayloadResponse::new(fixed.body.into());
    // Both were checked when the resource was written.
    *reply.status_mut() = StatusCode::from_u16(fixed.status).unwrap_or(StatusCode::OK);
    if let Ok(media_type) = HeaderValue::try_from(fixed.content_type) {
        reply.headers_mut().insert(CONTENT_TYPE, media_type);
    }
    reply
}
