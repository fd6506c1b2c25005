//! Client addresses, as they are counted.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The address under which a client is counted: of IPv6 the /64, because every customer gets one and can use all of its
/// addresses.
pub fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(first_bits(address, 64)),
        v4 => v4,
    }
}

/// The /48 of an IPv6 address: a site gets one, with 65,536 networks that count as addresses. `None` for IPv4: its
/// addresses are scarce, and neighbours in them are strangers.
pub fn network_of(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        IpAddr::V6(address) => Some(IpAddr::V6(first_bits(address, 48))),
        IpAddr::V4(_) => None,
    }
}

/// The neighbourhood of an address, whose members share a bound only while there is a rush: an IPv4 /24, an IPv6 /48.
pub fn neighbourhood_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(first_bits(address, 48)),
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() >> 8 << 8).into()),
    }
}

fn first_bits(address: Ipv6Addr, bits: u32) -> Ipv6Addr {
    let rest = 128 - bits;
    (address.to_bits() >> rest << rest).into()
}

/// Whether only this machine or its own network can have the address: then it is a proxy's rather than a client's.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            // RFC 6598's shared space (100.64.0.0/10): container networks of some clouds use it.
            address.is_private() || address.is_loopback() || address.is_link_local() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
    }
}

/// One of 65,536 classes of addresses, from a hash. Two members of one room are hardly ever in the same class by
/// chance, so a room can count the places of an address and recognise one that was removed. Each class holds 65,536
/// IPv4 addresses, or 2^48 networks of IPv6, so what is stored doesn't tell where anybody was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddressTag(u16);

impl AddressTag {
    /// The class of an address, as [`counted_as`] counts it.
    pub fn of(address: IpAddr) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"tandem address ");
        match counted_as(address) {
            IpAddr::V4(address) => hash.update(address.octets()),
            IpAddr::V6(address) => hash.update(address.octets()),
        }
        let digest = hash.finalize();
        Self(u16::from_be_bytes([digest[0], digest[1]]))
    }

    /// A given class; the simulation makes its own.
    pub const fn numbered(number: u16) -> Self {
        Self(number)
    }
}

#[cfg(test)]
mod tests {
    use super::{AddressTag, counted_as, is_private, network_of};

    #[test]
    fn an_address_has_the_class_of_its_network() {
        let tag = |text: &str| AddressTag::of(text.parse().unwrap());
        assert_eq!(tag("2001:db8::1"), tag("2001:db8::ffff:1"));
        assert_eq!(tag("::ffff:192.0.2.1"), tag("192.0.2.1"));
        assert_ne!(tag("192.0.2.1"), tag("192.0.2.2"));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_ipv4_is_itself_in_either_form() {
        let counted = |text: &str| counted_as(text.parse().unwrap());
        assert_eq!(counted("2001:db8::1"), counted("2001:db8::ffff:1"));
        assert_ne!(counted("2001:db8::1"), counted("2001:db8:0:1::1"));
        assert_eq!(counted("::ffff:192.0.2.1"), counted("192.0.2.1"));
        assert_ne!(counted("192.0.2.1"), counted("192.0.2.2"));
    }

    #[test]
    fn a_site_is_a_48_of_ipv6() {
        let site = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(site("2001:db8:7::1"), site("2001:db8:7:ffff::1"));
        assert_ne!(site("2001:db8:7::1"), site("2001:db8:8::1"));
        assert_eq!(site("192.0.2.1"), None);
        assert_eq!(site("::ffff:192.0.2.1"), None);
    }

    #[test]
    fn private_addresses_are_told_from_public_ones() {
        for private in ["10.1.2.3", "172.17.0.1", "192.168.0.2", "127.0.0.1", "100.64.0.9", "::1", "fd00::1", "fe80::1"]
        {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["203.0.113.7", "172.32.0.1", "100.128.0.1", "2001:db8::1"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }
}
