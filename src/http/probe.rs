//! `tandem health`: checks a server's liveness without an HTTP client library, for container health checks.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

/// The URL to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeUrl {
    authority: String,
    path: String,
    /// Another address of the same server.
    or_at: Option<IpAddr>,
}

impl ProbeUrl {
    /// Accepts `http://host:port/path`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a URL such as http://127.0.0.1:4001/health");
        let url = url::Url::parse(text).map_err(|_| wrong())?;
        let (Some(host), Some(port), "http") = (url.host_str(), url.port_or_known_default(), url.scheme()) else {
            return Err(wrong());
        };
        Ok(Self {
            authority: format!("{host}:{port}"),
            path: url[url::Position::BeforePath..url::Position::AfterQuery].to_owned(),
            or_at: None,
        })
    }

    /// The same URL, with another address to try if nothing answers.
    #[must_use]
    pub fn or_at(self, address: IpAddr) -> Self {
        Self { or_at: Some(address), ..self }
    }
}

impl std::fmt::Display for ProbeUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// Sends one GET; the error is for the operator. Blocks for a few seconds at most.
pub fn ask(url: &ProbeUrl) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{url}: {error}");
    let mut addresses: Vec<_> = url.authority.to_socket_addrs().map_err(failed)?.collect();
    let port = addresses.first().ok_or("no address")?.port();
    addresses.extend(url.or_at.map(|address| SocketAddr::new(address, port)));
    // A name may resolve to both families, of which the machine may have one.
    let mut outcome = Err("no address".to_owned());
    for address in addresses {
        outcome = ask_at(url, address);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn ask_at(url: &ProbeUrl, address: SocketAddr) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{url} ({address}): {error}");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", url.path, url.authority);
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).map_err(failed)?;
    match head.strip_prefix(b"HTTP/1.1 ") {
        Some([b'2', _, _]) => Ok(()),
        Some(status) => Err(format!("answered {}", String::from_utf8_lossy(status))),
        None => Err("no HTTP answer".to_owned()),
    }
}
