//! Checks of the server's parsers with any input, for the fuzz targets.

mod dialects;
mod framing;
mod grpc;
mod proxy_header;

pub use self::{
    dialects::dialects, framing::framing, grpc::envoy_message, proxy_header::proxy_header,
};
