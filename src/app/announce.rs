//! What a starting server says on the terminal: which addresses lead to it, where its data is, who it is.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use qrcode::{Color, EcLevel, QrCode};

use crate::config::Config;
use crate::domain::NodeId;
use crate::transport::proxies::TrustedProxies;
use crate::transport::tls::CertSource;

/// The addresses of a running server.
#[derive(Debug)]
pub(super) struct Addresses<'a> {
    pub(super) plain: SocketAddr,
    pub(super) secure: Option<SocketAddr>,
    pub(super) config: &'a Config,
}

impl Addresses<'_> {
    /// Origins by which other machines reach this server, best first: https, because camera, clipboard and WebTransport
    /// exist only there; plain http for browsers that refuse a self-signed certificate. None on loopback.
    pub(super) fn for_others(&self) -> Vec<String> {
        let machine = &self.config.machine.addresses;
        let bound = match self.config.host {
            host if host.is_loopback() => Vec::new(),
            IpAddr::V4(host) if host.is_unspecified() => machine.iter().copied().filter(IpAddr::is_ipv4).collect(),
            host if host.is_unspecified() => machine.clone(),
            host => vec![host],
        };
        let public = self.config.public_host.iter().map(|host| match host.parse::<IpAddr>() {
            Ok(address) => hosted(address),
            Err(_) => host.clone(),
        });
        if self.behind_proxy() {
            // The proxy's port isn't known here: 443 it is, as good as always.
            return public.map(|host| origin("https", &host, 443)).collect();
        }
        let secure = self.secure.map(|secure| secure.port());
        let mut origins = Vec::new();
        if let Some(port) = secure {
            origins.extend(public.map(|host| origin("https", &host, port)));
            origins.extend(bound.iter().map(|address| origin("https", &hosted(*address), port)));
        }
        origins.extend(bound.iter().map(|address| origin("http", &hosted(*address), self.plain.port())));
        origins
    }

    fn behind_proxy(&self) -> bool {
        self.config.trusted_proxies != TrustedProxies::None
    }

    /// The page on this machine.
    fn here(&self) -> String {
        let host = match self.plain.ip() {
            host if host.is_loopback() || host.is_unspecified() => "localhost".to_owned(),
            host => hosted(host),
        };
        format!("http://{host}:{}", self.plain.port())
    }
}

fn hosted(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn origin(scheme: &str, host: &str, port: u16) -> String {
    match (scheme, port) {
        ("https", 443) | ("http", 80) => format!("{scheme}://{host}"),
        _ => format!("{scheme}://{host}:{port}"),
    }
}

/// The lines that a start prints. `stores`: where rooms and history are. With `picture`, the first address for others
/// is drawn as a QR code, for the phones in the room.
pub(super) fn announcement(addresses: &Addresses<'_>, stores: &str, node: &NodeId, picture: bool) -> String {
    let mut text =
        format!("tandem {} is serving. Open {} in two browsers.\n", env!("CARGO_PKG_VERSION"), addresses.here());
    // Writing into a String doesn't fail.
    if let Some(secure) = addresses.secure {
        let _ = writeln!(text, "WebTransport and HTTPS are on {secure} (UDP and TCP).");
    }
    let _ = writeln!(text, "{stores}; node {node}.");
    let others = addresses.for_others();
    let Some(first) = others.first() else {
        if addresses.behind_proxy() {
            text.push_str("Others come through the proxy of TRUSTED_PROXIES; PUBLIC_HOST would name it here.\n");
            return text;
        }
        if !addresses.config.host.is_loopback() {
            text.push_str("Others reach it by this machine's address, at the same ports.\n");
            return text;
        }
        text.push_str("Only this machine can reach it. To let others in: HOST=0.0.0.0 (docs/QUICKSTART.md).\n");
        return text;
    };
    let own_certificate =
        !addresses.behind_proxy() && matches!(addresses.config.certificate, CertSource::SelfSigned { .. });
    text.push_str("Others open one of these:\n");
    let path = match addresses.config.base_path.as_str() {
        "" => String::new(),
        base => format!("{base}/"),
    };
    for other in &others {
        let remark = match (other.starts_with("https:"), own_certificate) {
            (true, true) => "  (browsers warn about the server's own certificate: go on)",
            (true, false) => "",
            (false, _) => "  (no warning; but no calls and no WebTransport)",
        };
        let _ = writeln!(text, "  {other}{path}{remark}");
    }
    if picture && let Some(code) = drawn(&format!("{first}{path}")) {
        let _ = write!(text, "\n{code}");
    }
    text
}

/// A QR code in half blocks, two modules a line; light modules are the ink, because terminals are dark more often.
fn drawn(link: &str) -> Option<String> {
    const QUIET: usize = 2;
    let code = QrCode::with_error_correction_level(link, EcLevel::L).ok()?;
    let (width, modules) = (code.width(), code.to_colors());
    let light = |x: usize, y: usize| {
        let inside = (QUIET..QUIET + width).contains(&x) && (QUIET..QUIET + width).contains(&y);
        !inside || modules[(y - QUIET) * width + x - QUIET] == Color::Light
    };
    let side = width + 2 * QUIET;
    let mut text = String::new();
    for y in (0..side).step_by(2) {
        text.push_str("  ");
        for x in 0..side {
            text.push(match (light(x, y), y + 1 < side && light(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        text.push('\n');
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::cli::{CliCommand, parse};
    use crate::config::{Environment, Machine};

    fn config(settings: &[(&str, &str)]) -> Config {
        let environment: Environment = settings.iter().copied().collect();
        let Ok(CliCommand::Serve(mut config)) = parse(["tandem"], &environment) else { panic!("{settings:?}") };
        let addresses = ["192.168.1.5", "2001:db8::5"].map(|text| text.parse().unwrap()).to_vec();
        config.machine = Machine { name: Some("laptop".to_owned()), addresses };
        *config
    }

    fn others(settings: &[(&str, &str)]) -> Vec<String> {
        said(settings, false).1
    }

    fn said(settings: &[(&str, &str)], picture: bool) -> (String, Vec<String>) {
        let config = config(settings);
        let at = |port: Option<u16>| port.map(|port| SocketAddr::new(config.host, port));
        let plain = at(Some(config.port)).unwrap();
        let addresses = Addresses { plain, secure: at(config.quic_port), config: &config };
        let node = NodeId::parse("laptop-1").unwrap();
        (announcement(&addresses, "Rooms in memory", &node, picture), addresses.for_others())
    }

    #[test]
    fn addresses_for_others_follow_host_and_public_host() {
        assert_eq!(others(&[]), [""; 0]);
        let v4 = ["https://192.168.1.5:4433", "http://192.168.1.5:4001"];
        assert_eq!(others(&[("HOST", "0.0.0.0")]), v4);
        let both = [
            "https://192.168.1.5:4433",
            "https://[2001:db8::5]:4433",
            "http://192.168.1.5:4001",
            "http://[2001:db8::5]:4001",
        ];
        assert_eq!(others(&[("HOST", "::")]), both);
        assert_eq!(others(&[("HOST", "10.0.0.7"), ("QUIC_PORT", "off")]), ["http://10.0.0.7:4001"]);
        let public = others(&[("HOST", "0.0.0.0"), ("QUIC_PORT", "443"), ("PUBLIC_HOST", "tandem.example")]);
        assert_eq!(public, ["https://tandem.example", "https://192.168.1.5", "http://192.168.1.5:4001"]);
    }

    #[test]
    fn the_start_says_version_stores_and_node_and_where_to_go() {
        let (alone, _) = said(&[], true);
        let version = env!("CARGO_PKG_VERSION");
        assert!(
            alone.starts_with(&format!("tandem {version} is serving. Open http://localhost:4001 in two browsers.\n")),
            "{alone}"
        );
        assert!(alone.contains("HTTPS are on 127.0.0.1:4433 (UDP and TCP)."), "{alone}");
        assert!(alone.contains("Rooms in memory; node laptop-1."), "{alone}");
        assert!(alone.contains("Only this machine can reach it."), "{alone}");
        let (open, _) = said(&[("HOST", "0.0.0.0")], false);
        assert!(open.contains("https://192.168.1.5:4433  (browsers warn"), "{open}");
        assert!(open.contains("http://192.168.1.5:4001  (no warning"), "{open}");
        let below = [("TRUSTED_PROXIES", "1"), ("PUBLIC_HOST", "tandem.example"), ("BASE_PATH", "/watch")];
        assert!(said(&below, false).0.ends_with("  https://tandem.example/watch/\n"));
        let proxied = [("TRUSTED_PROXIES", "127.0.0.1"), ("PUBLIC_HOST", "tandem.example")];
        let (proxied, origins) = said(&proxied, false);
        assert!(proxied.ends_with("Others open one of these:\n  https://tandem.example\n"), "{proxied}");
        assert_eq!(origins, ["https://tandem.example"]);
        assert!(said(&[("TRUSTED_PROXIES", "1")], false).0.contains("through the proxy"));
        let mut contained = config(&[("HOST", "0.0.0.0")]);
        contained.machine = Machine::default();
        let plain = SocketAddr::new(contained.host, contained.port);
        let addresses = Addresses { plain, secure: None, config: &contained };
        let text = announcement(&addresses, "Rooms", &NodeId::parse("pod").unwrap(), true);
        assert!(text.ends_with("Others reach it by this machine's address, at the same ports.\n"), "{text}");
        let (fixed, _) = said(&[("HOST", "10.0.0.7")], false);
        assert!(fixed.contains("Open http://10.0.0.7:4001 in"), "{fixed}");
    }

    #[test]
    fn a_terminal_gets_the_first_address_as_a_picture() {
        let (text, _) = said(&[("HOST", "0.0.0.0")], true);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains('█')).collect();
        assert!(lines.len() > 10, "{text}");
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width), "{text}");
        assert!(!said(&[("HOST", "0.0.0.0")], false).0.contains('█'));
    }
}
