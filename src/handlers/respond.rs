//! The handler `respond`: a fixed response.

use ::http::{HeaderValue, StatusCode, header::CONTENT_TYPE};

use super::PayloadResponse;
use crate::directory::Rule;

pub(super) fn respond(rule: &Rule) -> PayloadResponse {
    let fixed = rule.resource.respond.clone().unwrap_or_default();
    let mut response = PayloadResponse::new(fixed.body.into());
    // Status and content type were validated when the resource was written.
    *response.status_mut() = StatusCode::from_u16(fixed.status).unwrap_or(StatusCode::OK);
    if let Ok(media_type) = HeaderValue::try_from(fixed.content_type) {
        response.headers_mut().insert(CONTENT_TYPE, media_type);
    }
    response
}
