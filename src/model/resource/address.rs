//! The kinds of addresses that an upstream can have: which of them lead into this machine, to its
//! neighbours, or to the metadata service of a cloud.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Target;

/// The addresses of metadata services, which hand out the machine's credentials. Most clouds use
/// 169.254.169.254, which is link-local: these are the others.
const METADATA: &[IpAddr] = &[
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// The names of metadata services.
const METADATA_NAMES: &[&str] =
    &["metadata", "metadata.google.internal", "metadata.goog", "instance-data"];

/// An address that an upstream should not have without a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialAddress {
    /// This machine.
    Loopback,
    /// The neighbours on the link (169.254.0.0/16, fe80::/10).
    LinkLocal,
    /// The metadata service of a cloud.
    Metadata,
    /// 0.0.0.0/8 or ::, which connects to this machine.
    Unspecified,
    /// Multicast or broadcast.
    Multicast,
}

impl SpecialAddress {
    /// The kind of an address. `None` means an ordinary address. An IPv6 address that embeds an
    /// IPv4 address has the kind of the IPv4 address.
    pub fn of(address: IpAddr) -> Option<Self> {
        if METADATA.contains(&address) {
            return Some(Self::Metadata);
        }
        match address {
            IpAddr::V4(v4) if v4.is_loopback() => Some(Self::Loopback),
            IpAddr::V4(v4) if v4.is_link_local() => Some(Self::LinkLocal),
            IpAddr::V4(v4) if v4.octets()[0] == 0 => Some(Self::Unspecified),
            IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => Some(Self::Multicast),
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) if v6.is_loopback() => Some(Self::Loopback),
            IpAddr::V6(v6) if v6.is_unspecified() => Some(Self::Unspecified),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(Self::LinkLocal),
            IpAddr::V6(v6) if v6.is_multicast() => Some(Self::Multicast),
            IpAddr::V6(v6) => embedded_v4(v6).and_then(|v4| Self::of(IpAddr::V4(v4))),
        }
    }

    /// The words for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "the address of a cloud's metadata service",
            Self::Unspecified => "an unspecified address",
            Self::Multicast => "a multicast address",
        }
    }
}

/// The IPv4 address in an IPv4-mapped, IPv4-compatible, NAT64 (RFC 6052) or 6to4 (RFC 3056)
/// address.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(of(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

impl Target {
    /// The address that the URL contains. `None` means a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The host in lower case, without a trailing dot.
    pub fn host_name(&self) -> String {
        self.host.to_ascii_lowercase().trim_end_matches('.').to_owned()
    }

    /// Whether the host is `localhost`, or a name below it (RFC 6761, section 6.3).
    pub fn is_localhost(&self) -> bool {
        let host = self.host_name();
        host == "localhost" || host.ends_with(".localhost")
    }

    /// The special kind of the host, as far as the URL alone shows it. A name may resolve to any
    /// address later.
    pub fn special(&self) -> Option<SpecialAddress> {
        if self.is_localhost() {
            return Some(SpecialAddress::Loopback);
        }
        if METADATA_NAMES.contains(&self.host_name().as_str()) {
            return Some(SpecialAddress::Metadata);
        }
        match self.address() {
            Some(address) => SpecialAddress::of(address),
            // The resolver reads a host of numbers, such as 127.1 or 0x7f000001, as an address.
            None => self.is_number().then_some(SpecialAddress::Unspecified),
        }
    }

    fn is_number(&self) -> bool {
        let host = self.host_name();
        let last = host.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x");
        hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            || !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_special_address_is_known() {
        for (url, kind) in [
            ("http://127.0.0.1:1", SpecialAddress::Loopback),
            ("http://127.9.9.9", SpecialAddress::Loopback),
            ("http://[::1]:1", SpecialAddress::Loopback),
            ("http://[::ffff:127.0.0.1]", SpecialAddress::Loopback),
            ("http://[::127.0.0.1]", SpecialAddress::Loopback),
            ("http://[64:ff9b::7f00:1]", SpecialAddress::Loopback),
            ("http://[2002:7f00:1::]", SpecialAddress::Loopback),
            ("http://localhost", SpecialAddress::Loopback),
            ("http://LOCALHOST.:80", SpecialAddress::Loopback),
            ("http://a.localhost", SpecialAddress::Loopback),
            ("http://169.254.169.254", SpecialAddress::LinkLocal),
            ("http://[fe80::1]", SpecialAddress::LinkLocal),
            ("http://[::ffff:169.254.0.1]", SpecialAddress::LinkLocal),
            ("http://[fd00:ec2::254]", SpecialAddress::Metadata),
            ("http://metadata.google.internal/x", SpecialAddress::Metadata),
            ("http://0.0.0.0:1", SpecialAddress::Unspecified),
            ("http://[::]:1", SpecialAddress::Unspecified),
            ("http://127.1:1", SpecialAddress::Unspecified),
            ("http://2130706433", SpecialAddress::Unspecified),
            ("http://0x7f000001", SpecialAddress::Unspecified),
            ("http://224.0.0.1", SpecialAddress::Multicast),
            ("http://[ff02::1]", SpecialAddress::Multicast),
            ("http://255.255.255.255", SpecialAddress::Multicast),
        ] {
            assert_eq!(Target::parse(url).unwrap().special(), Some(kind), "{url}");
        }
        for url in [
            "http://10.0.0.1",
            "http://192.0.2.7:80",
            "http://api.internal",
            "http://localhost.example",
            "http://[2001:db8::1]",
            "http://node1",
            "http://x.0x7g",
        ] {
            assert_eq!(Target::parse(url).unwrap().special(), None, "{url}");
        }
    }
}
