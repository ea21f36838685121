//! Where a screening provider may be: an answer of DNS decides where a request goes, so each address it gives
//! is judged before it is connected to. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a provider's address may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On the internet, and nowhere else.
    Public,
    /// In our own network too, where the operator runs a provider.
    Private,
}

impl Reach {
    /// Link-local addresses, where clouds keep their metadata, are never right.
    pub fn allows(self, address: IpAddr) -> bool {
        let kind = kind_of(address);
        match self {
            Self::Public => kind == Kind::Public,
            Self::Private => kind != Kind::Never,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Public,
    Private,
    Never,
}

fn kind_of(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_of_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(embedded) => kind_of_v4(embedded),
            None => kind_of_v6(address),
        },
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped (RFC 4291) or translated (RFC 6052).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let last = || {
        let [.., high, low] = segments;
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    address.to_ipv4_mapped().or_else(|| (segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0]).then(last))
}

fn kind_of_v4(address: Ipv4Addr) -> Kind {
    let [a, b, c, _] = address.octets();
    if address.is_link_local() || address.is_multicast() || address.is_broadcast() || a == 0 || a >= 240 {
        return Kind::Never;
    }
    let shared = a == 100 && (64..128).contains(&b);
    let special = (a == 192 && b == 0 && c == 0) || (a == 198 && (18..20).contains(&b)) || address.is_documentation();
    if address.is_private() || address.is_loopback() || shared || special { Kind::Private } else { Kind::Public }
}

fn kind_of_v6(address: Ipv6Addr) -> Kind {
    /// Where a large cloud keeps its metadata, inside the unique-local range.
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    if address.is_loopback() || (address.is_unique_local() && address != METADATA) {
        return Kind::Private;
    }
    // Only this part of IPv6 is given out, less what in it stands for something else: protocol assignments with
    // Teredo, documentation, and 6to4, which carries an IPv4 address.
    let [first, second, ..] = address.segments();
    let given_out = first & 0xe000 == 0x2000;
    let special = (first == 0x2001 && (second < 0x0200 || second == 0xdb8)) || first == 0x2002 || (first == 0x3fff && second < 0x1000);
    if given_out && !special { Kind::Public } else { Kind::Never }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z11_addresses_that_are_not_on_the_internet() {
        for (address, public, private) in [
            ("93.184.216.34", true, true),
            ("2606:2800:220:1::1", true, true),
            ("127.0.0.1", false, true),
            ("10.1.2.3", false, true),
            ("172.16.0.1", false, true),
            ("192.168.1.1", false, true),
            ("100.64.0.1", false, true),
            ("198.18.0.1", false, true),
            ("169.254.169.254", false, false),
            ("0.0.0.0", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("::1", false, true),
            ("fd12::1", false, true),
            ("fd00:ec2::254", false, false),
            ("fe80::1", false, false),
            ("::", false, false),
            ("2001:db8::1", false, false),
            ("2001::1", false, false),
            ("2002:a00:1::", false, false),
            ("ff02::1", false, false),
            ("::ffff:127.0.0.1", false, true),
            ("::ffff:169.254.169.254", false, false),
            ("64:ff9b::a9fe:a9fe", false, false),
            ("64:ff9b::5db8:d822", true, true),
        ] {
            let parsed: IpAddr = address.parse().unwrap();
            assert_eq!((Reach::Public.allows(parsed), Reach::Private.allows(parsed)), (public, private), "{address}");
        }
    }
}
