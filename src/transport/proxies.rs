//! Trusted proxies, whose `X-Forwarded-*` headers tell a client's address.

use std::net::IpAddr;

/// `TRUSTED_PROXIES`. Only their `X-Forwarded-*` headers are read, and only on `PORT`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TrustedProxies {
    /// The peer is the client.
    #[default]
    None,
    /// This many proxies in front, each of which appends its peer's address.
    Count(usize),
    /// Proxies with addresses in these networks.
    Networks(Vec<Network>),
}

impl TrustedProxies {
    /// Reads a number, or a comma-separated list of addresses and CIDRs.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() || text == "0" {
            return Ok(Self::None);
        }
        if let Ok(count) = text.parse::<usize>() {
            return if count <= 16 { Ok(Self::Count(count)) } else { Err("more than 16 proxies".to_owned()) };
        }
        text.split(',').map(|item| Network::parse(item.trim())).collect::<Result<_, _>>().map(Self::Networks)
    }

    /// Whether this peer's headers are read.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        match self {
            Self::None => false,
            Self::Count(_) => true,
            Self::Networks(networks) => networks.iter().any(|network| network.contains(peer)),
        }
    }

    /// The client's address. `forwarded`: the lines of `X-Forwarded-For`, in order. Entries left of the last trusted
    /// proxy's were written by the client and are not read.
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl IntoIterator<Item = &'a str>) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        let hops: Vec<&str> = forwarded.into_iter().flat_map(|line| line.split(',')).map(str::trim).collect();
        let mut client = peer;
        for (index, hop) in hops.iter().rev().enumerate() {
            let Some(address) = parse_hop(hop) else { return client };
            client = address;
            let behind_a_proxy = match self {
                Self::None => false,
                Self::Count(count) => index + 1 < *count,
                Self::Networks(_) => self.trusts(address),
            };
            if !behind_a_proxy {
                return client;
            }
        }
        client
    }
}

/// Parses an entry: an address, perhaps with a port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = text.parse::<IpAddr>().ok();
    let bracketed = || text.strip_prefix('[')?.split_once(']')?.0.parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    bare.or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u32,
}

impl Network {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an address, nor a network such as 10.0.0.0/8");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u32>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        if prefix > bits { Err(wrong()) } else { Ok(Self { base, prefix }) }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let shift = 32 - self.prefix;
                shift == 32 || base.to_bits() >> shift == address.to_bits() >> shift
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let shift = 128 - self.prefix;
                shift == 128 || base.to_bits() >> shift == address.to_bits() >> shift
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TrustedProxies;

    fn client(proxies: &str, peer: &str, forwarded: &[&str]) -> String {
        let proxies = TrustedProxies::parse(proxies).unwrap();
        proxies.client(peer.parse().unwrap(), forwarded.iter().copied()).to_string()
    }

    #[test]
    fn without_trusted_proxies_the_header_is_not_read() {
        assert_eq!(client("", "192.0.2.1", &["203.0.113.7"]), "192.0.2.1");
        assert_eq!(client("0", "192.0.2.1", &["203.0.113.7"]), "192.0.2.1");
    }

    #[test]
    fn a_count_reads_that_many_entries_from_the_right() {
        assert_eq!(client("1", "10.0.0.1", &["6.6.6.6, 203.0.113.7"]), "203.0.113.7");
        assert_eq!(client("2", "10.0.0.1", &["6.6.6.6", "203.0.113.7, 10.0.0.2"]), "203.0.113.7");
        assert_eq!(client("1", "10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("1", "10.0.0.1", &["203.0.113.7, junk"]), "10.0.0.1");
    }

    #[test]
    fn networks_are_skipped_from_the_right_and_an_untrusted_peer_is_the_client() {
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["6.6.6.6, 203.0.113.7, 10.9.9.9"]), "203.0.113.7");
        assert_eq!(client("10.0.0.0/8,fd00::/8", "fd00::1", &["203.0.113.7:5000"]), "203.0.113.7");
        assert_eq!(client("10.0.0.0/8", "192.0.2.1", &["203.0.113.7"]), "192.0.2.1");
        assert_eq!(client("127.0.0.1", "::ffff:127.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
    }

    #[test]
    fn a_text_that_is_no_network_is_refused() {
        for wrong in ["10.0.0.0/33", "ten", "10.0.0.0/x", "17", "::/129"] {
            assert!(TrustedProxies::parse(wrong).is_err(), "{wrong}");
        }
    }
}
