//! The PROXY protocol, versions 1 and 2: a header in which a proxy names the client, before the
//! client's own first byte (haproxy.org/download/2.9/doc/proxy-protocol.txt). The reader leaves the
//! bytes after the header in the socket.

use std::{io, net::SocketAddr};

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// The first bytes of a version 2 header. A version 1 header is at least this long, so the
/// reader can read this number of bytes before it knows the version.
pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
pub(super) const VERSION_1: &[u8] = b"PROXY ";
/// The maximum number of bytes of the version 1 line, including its line end (section 2.1).
const MAX_LINE: usize = 107;
/// The maximum number of bytes after the fixed part of a version 2 header. Addresses take 36 bytes,
/// and proxies add facts about the client's TLS connection.
const MAX_PAYLOAD: usize = 4096;

/// The reason why a PROXY header cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyHeaderError {
    #[error(
        "the proxy sends no PROXY header. Turn on the PROXY protocol in the proxy, or set server.proxy_protocol to off"
    )]
    Missing,
    #[error("the PROXY header was not complete within limits.header_read_seconds")]
    Late,
    #[error("the PROXY header is too long")]
    TooLong,
    #[error("the PROXY header cannot be read")]
    Malformed,
    #[error("the connection ended before the end of the PROXY header: {0}")]
    Broken(#[from] io::Error),
}

/// Reads a header, and returns the client's address. `None` means that the proxy itself is the
/// client, as in a health check, or that the proxy does not know the client.
pub(super) async fn read_header(
    stream: &mut TcpStream,
) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_version_2(stream, &mut header).await?;
    } else if header.starts_with(VERSION_1) {
        read_version_1(stream, &mut header).await?;
    } else {
        return Err(ProxyHeaderError::Missing);
    }
    parse(&header)
}

/// The client's address in a complete header, as [`read_header`] returns it.
pub(super) fn parse(header: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(header, config) {
        Ok((parsed, length)) if length == header.len() => {
            let client = parsed.proxied_address().map(|address| address.source);
            Ok(client.map(|client| SocketAddr::new(client.ip().to_canonical(), client.port())))
        }
        _ => Err(ProxyHeaderError::Malformed),
    }
}

/// Reads the rest of a version 2 header: a fixed part, which contains the length of the payload,
/// and the payload.
async fn read_version_2(
    stream: &mut TcpStream,
    header: &mut Vec<u8>,
) -> Result<(), ProxyHeaderError> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    header.extend_from_slice(&fixed);
    let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if length > MAX_PAYLOAD {
        return Err(ProxyHeaderError::TooLong);
    }
    let start = header.len();
    header.resize(start + length, 0);
    stream.read_exact(&mut header[start..]).await?;
    Ok(())
}

/// Reads the rest of a version 1 header, which is one line. Peeks before each read, so that the
/// bytes after the line stay in the socket.
async fn read_version_1(
    stream: &mut TcpStream,
    header: &mut Vec<u8>,
) -> Result<(), ProxyHeaderError> {
    let mut buffer = [0; MAX_LINE];
    while header.last() != Some(&b'\n') {
        let remaining = MAX_LINE - header.len();
        if remaining == 0 {
            return Err(ProxyHeaderError::TooLong);
        }
        let peeked = stream.peek(&mut buffer[..remaining]).await?;
        if peeked == 0 {
            return Err(ProxyHeaderError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        let end = memchr::memchr(b'\n', &buffer[..peeked]);
        let taken = end.map_or(peeked, |end| end + 1);
        stream.read_exact(&mut buffer[..taken]).await?;
        header.extend_from_slice(&buffer[..taken]);
    }
    Ok(())
}
