//! The part of a client's address by which failures, connections and log lines are counted.

use std::net::IpAddr;

/// The client's address as a number: an IPv4 address as an IPv4-mapped IPv6 address, an IPv6
/// address reduced to its /64 network, because one client usually has a whole network of this size.
pub(crate) fn client_network(client: IpAddr) -> u128 {
    const NETWORK: u128 = u128::MAX << 64;
    match client.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address) & NETWORK,
    }
}
