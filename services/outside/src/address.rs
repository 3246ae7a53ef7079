//! Which addresses are of the public internet, and a resolver that gives no others.

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Whether an address is a unicast one of the public internet: not of this host, this network, a private one, or one of the ranges that stand for
/// another address (IPv4-mapped, 6to4, NAT64, Teredo) or for nothing (documentation, reserved).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19));
    !is_special
}

/// Only 2000::/3 is in use as global unicast; what in it stands for something else is left out.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_global = first & 0xe000 == 0x2000;
    let is_protocol_assignment = first == 0x2001 && second < 0x0200;
    let is_documentation = first == 0x2001 && second == 0x0db8 || first & 0xfff0 == 0x3ff0;
    let is_6to4 = first == 0x2002;
    is_global && !is_protocol_assignment && !is_documentation && !is_6to4
}

/// How a name becomes addresses.
pub(crate) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> + Send + Sync>;

/// The system's way.
pub(crate) fn system_lookup() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// Gives a connection only addresses that were checked: what is connected to is what was looked at, whatever the name says a moment later.
pub(crate) struct Resolver {
    pub lookup: Lookup,
    /// Names of hosts that the configuration lets be anywhere.
    pub may_be_private: bool,
}

/// Why a name has no address that may be connected to.
#[derive(Debug, thiserror::Error)]
#[error("the host's addresses are not public")]
pub(crate) struct NotPublic;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, may_be_private) = (self.lookup.clone(), self.may_be_private);
        Box::pin(async move {
            let found = lookup(name.as_str().to_owned()).await?;
            // One address that is not public makes the whole name suspect.
            if !may_be_private && !found.iter().copied().all(is_public) {
                return Err(NotPublic.into());
            }
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(addresses: &[&str], expected: bool) {
        for text in addresses {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(is_public(address), expected, "{text}");
        }
    }

    #[test]
    fn addresses() {
        check(
            &["1.1.1.1", "140.82.121.3", "100.63.0.1", "172.32.0.1", "2606:4700::1111", "2a00:1450::1", "2001:4860::1"],
            true,
        );
        check(&["127.0.0.1", "127.255.0.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1"], false);
        check(&["169.254.169.254", "0.0.0.0", "0.1.2.3", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1"], false);
        check(&["198.51.100.1", "203.0.113.1", "192.88.99.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"], false);
        check(
            &["::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:1.1.1.1", "64:ff9b::7f00:1", "64:ff9b:1::1"],
            false,
        );
        check(
            &["fe80::1", "fec0::1", "fc00::1", "fd12::1", "ff02::1", "100::1", "2002:7f00:1::", "2002:101:101::"],
            false,
        );
        check(&["2001:db8::1", "2001::1", "2001:10::1", "3fff::1", "4000::1", "5f00::1"], false);
    }
}
