//! gRPC's health check on the listener for Envoy.

use super::*;
use crate::server::verify::envoy::health::{self, HealthCheckRequest, HealthCheckResponse};

/// The health of a service, or the code of the failed call.
async fn health_of(fixture: &EnvoyFixture, service: &str) -> Result<i32, String> {
    let message = HealthCheckRequest { service: service.into() }.encode_to_vec();
    let mut request = call(&framed(&message));
    *request.uri_mut() = format!("http://keyward{}", health::CHECK).parse().unwrap();
    let io = TokioIo::new(TcpStream::connect(fixture.grpc).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    match head.headers.get("grpc-status") {
        Some(code) => Err(code.to_str().unwrap().to_owned()),
        None => Ok(HealthCheckResponse::decode(&bytes[5..]).unwrap().status),
    }
}

#[tokio::test]
async fn health_check_says_that_the_server_is_serving() {
    for network in ["127.0.0.0/8", "203.0.113.0/24"] {
        let fixture = EnvoyFixture::trusting(network).await;
        for service in ["", "envoy.service.auth.v3.Authorization"] {
            assert_eq!(health_of(&fixture, service).await, Ok(1), "{service}");
        }
        assert_eq!(health_of(&fixture, "other").await, Err("5".to_owned()));
    }
}
