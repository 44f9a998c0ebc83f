//! What a proxy says of a client before the client's own first byte: the PROXY protocol, versions 1 and 2
//! (haproxy.org/download/2.9/doc/proxy-protocol.txt). Not a byte more than that is taken from the socket.

use std::{io, net::SocketAddr};

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// What version 2 begins with. Version 1 has no header that is shorter.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_1: &[u8] = b"PROXY ";
/// The longest line of version 1 with its end (section 2.1).
const LONGEST_LINE: usize = 107;
/// The most bytes behind the head of version 2. Addresses take 36; proxies add what they know of the client's TLS.
const LONGEST_REST: usize = 4096;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoHeader {
    #[error(
        "the proxy sends no PROXY header. Have it send one, or set server.proxy_protocol to off"
    )]
    Missing,
    #[error("the PROXY header is longer than it may be")]
    TooLong,
    #[error("the PROXY header cannot be read")]
    Malformed,
    #[error("the connection broke off in the PROXY header: {0}")]
    Broken(#[from] io::Error),
}

/// Reads a header. None: the proxy speaks for itself, as when it looks whether we are there, or does not know the client.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, NoHeader> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_rest(stream, &mut header).await?;
    } else if header.starts_with(VERSION_1) {
        read_line(stream, &mut header).await?;
    } else {
        return Err(NoHeader::Missing);
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(&header, config) {
        Ok((parsed, length)) if length == header.len() => {
            let named = parsed.proxied_address().map(|address| address.source);
            Ok(named.map(|one| SocketAddr::new(one.ip().to_canonical(), one.port())))
        }
        _ => Err(NoHeader::Malformed),
    }
}

/// Version 2: the head names its length.
async fn read_rest(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), NoHeader> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    header.extend_from_slice(&head);
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if length > LONGEST_REST {
        return Err(NoHeader::TooLong);
    }
    let at = header.len();
    header.resize(at + length, 0);
    stream.read_exact(&mut header[at..]).await?;
    Ok(())
}

/// Version 1: a line. What is there is looked at before it is taken, so that what follows stays.
async fn read_line(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), NoHeader> {
    let mut seen = [0; LONGEST_LINE];
    while header.last() != Some(&b'\n') {
        let room = LONGEST_LINE - header.len();
        if room == 0 {
            return Err(NoHeader::TooLong);
        }
        let there = stream.peek(&mut seen[..room]).await?;
        if there == 0 {
            return Err(NoHeader::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        let end = memchr::memchr(b'\n', &seen[..there]);
        let taken = end.map_or(there, |end| end + 1);
        stream.read_exact(&mut seen[..taken]).await?;
        header.extend_from_slice(&seen[..taken]);
    }
    Ok(())
}
