//! PROXY headers: each header that is accepted says what the specification says it says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::server::proxy_protocol::{SIGNATURE, VERSION_1, parse};

/// Checks a complete header.
///
/// # Panics
/// The header names another client than the one that was read.
pub fn proxy_header(data: &[u8]) {
    // Other beginnings are no header, and are not parsed.
    let line = data.strip_prefix(VERSION_1);
    if line.is_none() && !data.starts_with(SIGNATURE) {
        return;
    }
    let Ok(client) = parse(data) else { return };
    let expected = match line {
        Some(line) => version_1(line),
        None => version_2(data),
    };
    assert_eq!(client, expected.expect("a header that the specification allows"));
}

/// Section 2.1. The outer `None` means that the line is malformed.
fn version_1(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = line.strip_suffix(b"\r\n")?;
    // The rest of such a line is ignored.
    if line.starts_with(b"UNKNOWN") {
        return Some(None);
    }
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let family = words.next()?;
    let source: IpAddr = words.next()?.parse().ok()?;
    let target: IpAddr = words.next()?.parse().ok()?;
    let port = words.next()?.parse().ok()?;
    let _: u16 = words.next()?.parse().ok()?;
    let is_family = |address: IpAddr| match family {
        "TCP4" => address.is_ipv4(),
        _ => family == "TCP6" && address.is_ipv6(),
    };
    let is_valid = words.next().is_none() && is_family(source) && is_family(target);
    is_valid.then(|| Some(SocketAddr::new(source.to_canonical(), port)))
}

/// Section 2.2. The outer `None` means that the header is malformed.
fn version_2(data: &[u8]) -> Option<Option<SocketAddr>> {
    let rest = data.strip_prefix(SIGNATURE)?;
    let (&[command, family, high, low], payload) = rest.split_first_chunk::<4>()?;
    if command >> 4 != 2 || payload.len() != usize::from(u16::from_be_bytes([high, low])) {
        return None;
    }
    let port = |at: usize| payload.get(at..at + 2).map(|port| [port[0], port[1]]);
    let source = match (command & 15, family >> 4) {
        (0, _) | (1, 0 | 3) => return Some(None),
        (1, 1) => {
            let address: [u8; 4] = payload.get(..12)?[..4].try_into().ok()?;
            SocketAddr::new(Ipv4Addr::from(address).into(), u16::from_be_bytes(port(8)?))
        }
        (1, 2) => {
            let address: [u8; 16] = payload.get(..36)?[..16].try_into().ok()?;
            let address = IpAddr::from(Ipv6Addr::from(address)).to_canonical();
            SocketAddr::new(address, u16::from_be_bytes(port(32)?))
        }
        _ => return None,
    };
    Some(Some(source))
}
