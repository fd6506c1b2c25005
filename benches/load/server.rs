//! Servers under load: tandem or a bare relay, each in a process of its own, fresh; or one that runs already.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::link::{Carrier, Place};
use super::proc::{Cpu, Pid};
use super::relays;

/// A server that is not up by then won't be.
const STARTUP: Duration = Duration::from_secs(30);

/// Program, options and settings that servers are started with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Launch {
    /// tandem's binary; else the one of this build.
    pub(crate) binary: Option<PathBuf>,
    /// The core that servers are bound to.
    pub(crate) core: Option<usize>,
    /// More settings of tandem.
    pub(crate) settings: Vec<(String, String)>,
    /// How the WebSocket relay is made.
    pub(crate) relay: String,
}

/// A server that is measured.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) place: Place,
    pub(crate) pid: Option<Pid>,
    child: Option<Child>,
    _home: Option<tempfile::TempDir>,
}

impl Launch {
    /// The same, where every tick of the load reaches every member, however large the room.
    pub(crate) fn relaying_all(&self) -> Self {
        let mut launch = self.clone();
        launch.settings.push(("FULL_PRESENCE_MEMBERS".to_owned(), "10000".to_owned()));
        launch
    }

    /// tandem in a directory of its own, on free ports, without rates.
    pub(crate) async fn tandem(&self) -> Result<Server> {
        let home = tempfile::tempdir()?;
        let binary = self.binary.clone().unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_tandem")));
        let path = |name: &str| home.path().join(name).to_string_lossy().into_owned();
        let mut command = self.command(&binary);
        command.env_clear().envs([("PORT", "0"), ("QUIC_PORT", "0"), ("RATE_LIMITS", "off"), ("LOG_LEVEL", "warn")]);
        command.envs([("DATA_DIR", path("data")), ("CERTS_DIR", path("certs"))]);
        command.envs(self.settings.iter().cloned());
        let (child, mut lines) = start(command, home.path())?;
        let first = announcement(&mut lines, home.path()).await?;
        let port = first.split("localhost:").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        let second = announcement(&mut lines, home.path()).await?;
        let place = Place {
            plain: Some((Ipv4Addr::LOCALHOST, port.with_context(|| format!("no port in {first}"))?).into()),
            quic: second.split_whitespace().find_map(|word| word.parse().ok()),
        };
        Ok(Server { place, pid: child.id().map(Pid), child: Some(child), _home: Some(home) })
    }

    /// tandem, or the bare relay of a transport (this very program, in another process); and what its clients speak.
    pub(crate) async fn subject(&self, carrier: Carrier, relay: bool) -> Result<(Server, Carrier)> {
        if !relay {
            return Ok((self.tandem().await?, carrier));
        }
        let (words, spoken) = match carrier {
            Carrier::WebSocket => (&["relay-ws", "--by", &self.relay][..], Carrier::WebSocket),
            Carrier::WebTransport | Carrier::Bare => (&["relay-quic"][..], Carrier::Bare),
        };
        Ok((self.relay_with(spoken, words).await?, spoken))
    }

    /// A bare datagram relay that is one with all others on the same Redis.
    pub(crate) async fn relay_on(&self, redis_url: &str) -> Result<Server> {
        self.relay_with(Carrier::Bare, &["relay-quic", "--redis-url", redis_url]).await
    }

    async fn relay_with(&self, carrier: Carrier, words: &[&str]) -> Result<Server> {
        let home = tempfile::tempdir()?;
        let mut command = self.command(&std::env::current_exe()?);
        command.args(words);
        let (child, mut lines) = start(command, home.path())?;
        let line = announcement(&mut lines, home.path()).await?;
        let address = line.strip_prefix(relays::READY).and_then(|rest| rest.trim().parse().ok());
        let address: SocketAddr = address.with_context(|| format!("no address in {line}"))?;
        let place = match carrier {
            Carrier::WebSocket => Place { plain: Some(address), quic: None },
            Carrier::WebTransport | Carrier::Bare => Place { plain: None, quic: Some(address) },
        };
        Ok(Server { place, pid: child.id().map(Pid), child: Some(child), _home: Some(home) })
    }

    /// Dies with this process, even if that is killed; on its own core, if it has one.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(core) = self.core {
            command.args(["taskset", "-c", &core.to_string()]);
        }
        command.arg(program);
        command
    }
}

type Lines = tokio::io::Lines<BufReader<tokio::process::ChildStdout>>;

fn start(mut command: Command, home: &Path) -> Result<(Child, Lines)> {
    let log = std::fs::File::create(home.join("log"))?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
    let mut child = command.spawn().context("starting a server: setpriv is of util-linux")?;
    let stdout = child.stdout.take().context("no output")?;
    Ok((child, BufReader::new(stdout).lines()))
}

async fn announcement(lines: &mut Lines, home: &Path) -> Result<String> {
    let line =
        tokio::time::timeout(STARTUP, lines.next_line()).await.context("the server does not say that it serves")?;
    match line? {
        Some(line) => Ok(line),
        None => bail!("the server ended: {}", std::fs::read_to_string(home.join("log")).unwrap_or_default().trim()),
    }
}

impl Server {
    /// One that runs already: where its plain HTTP is, and its process if its costs shall be measured.
    pub(crate) async fn running(plain: SocketAddr, pid: Option<u32>) -> Result<Self> {
        ensure!(plain.ip().is_loopback(), "{plain} is not on this machine: only loopback addresses are put under load");
        let transports: serde_json::Value = serde_json::from_str(&get(plain, "/api/transports").await?)?;
        let url = transports["webtransport"]["url"].as_str().and_then(|url| url.parse::<url::Url>().ok());
        let quic = url.and_then(|url| url.port()).map(|port| SocketAddr::new(plain.ip(), port));
        Ok(Self { place: Place { plain: Some(plain), quic }, pid: pid.map(Pid), child: None, _home: None })
    }

    pub(crate) fn cpu(&self) -> Result<Cpu> {
        self.pid.map_or(Ok(Cpu::default()), Pid::cpu)
    }

    /// A counter of `/metrics`, all its labels summed; 0 where there is none.
    pub(crate) async fn counter(&self, name: &str) -> f64 {
        let Some(plain) = self.place.plain else { return 0.0 };
        let Ok(text) = get(plain, "/metrics").await else { return 0.0 };
        let lines =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Ends it and waits for that.
    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(child) = &mut self.child {
            child.start_kill()?;
            child.wait().await?;
        }
        Ok(())
    }
}

/// The body of an answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("asking {address}"))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{address}{path} gave no answer"))?;
    Ok(body.to_owned())
}
