//! `tandem health`: asks a server whether it lives, without a client library, for container health checks.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

/// A URL that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeUrl {
    authority: String,
    path: String,
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
        })
    }
}

impl std::fmt::Display for ProbeUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// One GET; the error says what went wrong. Blocks for a few seconds at the most.
pub fn ask(url: &ProbeUrl) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{url}: {error}");
    let address = url.authority.to_socket_addrs().map_err(failed)?.next().ok_or("no address")?;
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
