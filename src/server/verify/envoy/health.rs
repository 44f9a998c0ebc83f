//! The health check of gRPC, for orchestrators and load balancers in front of the gRPC listener
//! (github.com/grpc/grpc/blob/master/doc/health-checking.md).
#![allow(missing_docs, reason = "the fields are documented in the protocol")]

use prost::Message;

use super::grpc::{CallError, Code};

/// The method that reports the health of a service once.
pub const CHECK: &str = "/grpc.health.v1.Health/Check";
/// The services of this server. The empty name means the whole server.
const SERVICES: [&str; 2] = ["", "envoy.service.auth.v3.Authorization"];
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub service: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// The health of a service. A server that responds is healthy: a server that stops accepts no
/// further connections.
pub(super) fn check(request: &HealthCheckRequest) -> Result<HealthCheckResponse, CallError> {
    if SERVICES.contains(&request.service.as_str()) {
        Ok(HealthCheckResponse { status: SERVING })
    } else {
        let reason = "This server has no such service.";
        Err(CallError::new(Code::NotFound, reason))
    }
}
