//! The machine that the server runs on: its name, and the addresses by which others reach it.

use std::net::IpAddr;
use std::path::Path;

use super::raw::Environment;

/// Prefixes of virtual interfaces (containers, virtual machines), whose addresses only this machine reaches.
const VIRTUAL: [&str; 9] = ["docker", "br-", "veth", "virbr", "cni", "flannel", "podman", "lxc", "lxdbr"];
/// Addresses that are printed, and named in a self-signed certificate.
const MOST_ADDRESSES: usize = 8;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub name: Option<String>,
    /// Addresses of its network interfaces, IPv4 first; no loopback, no link-local ones. Empty in a container, whose
    /// own addresses only its machine reaches.
    pub addresses: Vec<IpAddr>,
}

impl Machine {
    pub(super) fn look(environment: &Environment) -> Self {
        let addresses = if in_container() { Vec::new() } else { addresses() };
        Self { name: name(environment), addresses }
    }
}

/// Files that Docker, Podman and Kubernetes put into their containers.
fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv", "/var/run/secrets/kubernetes.io"].iter().any(|mark| Path::new(mark).exists())
}

/// The kernel's host name. The standard library has no call for it; the kernel's file does.
fn name(environment: &Environment) -> Option<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| environment.hostname())?.trim().to_owned();
    super::host_name(&name).ok().filter(|name| !name.is_empty())
}

fn addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let real = interfaces.iter().filter(|interface| !VIRTUAL.iter().any(|name| interface.name.starts_with(name)));
    sorted(real.map(if_addrs::Interface::ip))
}

fn sorted(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut reachable: Vec<IpAddr> = addresses.filter(|address| !is_local(address)).collect();
    // Stable: within a family the operating system's order stays.
    reachable.sort_by_key(IpAddr::is_ipv6);
    reachable.dedup();
    reachable.truncate(MOST_ADDRESSES);
    reachable
}

/// Loopback and link-local: nobody else reaches the first, and the second only with a zone that no link can carry.
fn is_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local() || address.is_unspecified(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unspecified() || address.segments()[0] & 0xffc0 == 0xfe80
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_others_reach_are_kept_ipv4_first() {
        let all =
            ["127.0.0.1", "fe80::1", "2001:db8::5", "169.254.3.4", "192.168.1.5", "::1", "192.168.1.5", "10.0.0.7"];
        let kept = sorted(all.iter().map(|text| text.parse().unwrap()));
        let expected = ["192.168.1.5", "192.168.1.5", "10.0.0.7", "2001:db8::5"];
        let mut expected: Vec<IpAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
        expected.dedup();
        assert_eq!(kept, expected);
    }

    #[test]
    fn the_machine_can_be_asked() {
        let machine = Machine::look(&Environment::default());
        assert!(machine.addresses.iter().all(|address| !address.is_loopback()), "{machine:?}");
    }
}
