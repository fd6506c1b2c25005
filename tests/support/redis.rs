//! A real redis-server of the test's own: it dies with the test, whatever the test dies of.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use secrecy::SecretString;
use tandem::log::redis::{Lives, RedisOptions};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// A server that is not up by then won't be.
const STARTUP: Duration = Duration::from_secs(20);

/// A running server.
pub(crate) struct RedisServer {
    child: Option<Child>,
    port: u16,
    dir: TempDir,
    flags: Vec<String>,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more flags of redis-server.
    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut server = Self { child: None, port: free_port(), dir: tempfile::tempdir().unwrap(), flags };
        server.up().await;
        server
    }

    /// Starts it (again) on the same port, with what it stored, if it stores.
    pub(crate) async fn up(&mut self) {
        assert!(self.child.is_none(), "it runs");
        // setpriv: killed by the kernel when this process dies, even by SIGKILL.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "redis-server", "--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1", "--appendonly", "no", "--loglevel", "notice"])
            .args(["--save", "", "--dir", self.dir.path().to_str().unwrap()])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(std::fs::File::options().create(true).append(true).open(self.log_file()).unwrap())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.expect("setpriv is missing: apt-get install util-linux"));
        let deadline = Instant::now() + STARTUP;
        while !self.answers().await {
            let exited = self.child.as_mut().unwrap().try_wait().unwrap();
            if let Some(status) = exited {
                let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
                panic!("redis-server ended with {status} (missing? apt-get install redis-server):\n{log}");
            }
            assert!(Instant::now() < deadline, "redis-server does not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    async fn answers(&self) -> bool {
        let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await else { return false };
        // A TLS server says nothing to this, but it listens.
        if self.flags.iter().any(|flag| flag == "--tls-port") {
            return true;
        }
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut answer = [0; 5];
        let asked = stream.write_all(b"PING\r\n").await.is_ok();
        asked && stream.read_exact(&mut answer).await.is_ok() && matches!(&answer, b"+PONG" | b"-NOAU")
    }

    /// Kills it as a power cut does.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().await.unwrap();
    }

    /// Stops it for a while: it keeps its connections and says nothing.
    pub(crate) async fn freeze(&self) {
        self.signal("STOP").await;
    }

    pub(crate) async fn thaw(&self) {
        self.signal("CONT").await;
    }

    async fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().unwrap().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().await.unwrap();
        assert!(status.success());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Options that make trouble show soon.
    pub(crate) fn options(&self) -> RedisOptions {
        options(&format!("redis://127.0.0.1:{}/0", self.port))
    }

    /// A shell at the server.
    pub(crate) async fn shell(&self) -> Shell {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        Shell(client.get_multiplexed_async_connection().await.unwrap())
    }
}

/// Options for a URL that make trouble show soon.
pub(crate) fn options(url: &str) -> RedisOptions {
    RedisOptions {
        patience: Duration::from_millis(1000),
        probe_every: Duration::from_millis(100),
        ..RedisOptions::new(SecretString::from(url.to_owned()))
    }
}

/// Lives so short that a test sees their end.
#[allow(dead_code, reason = "not every test binary")]
pub(crate) fn short_lives(life: Duration) -> Lives {
    Lives { room: life, end: life, outbox: life }
}

/// Asks the server itself, behind the log's back.
pub(crate) struct Shell(MultiplexedConnection);

#[allow(dead_code, reason = "not every test binary asks everything")]
impl Shell {
    /// A command as one would type it.
    pub(crate) async fn ask<T: redis::FromRedisValue>(&mut self, line: &str) -> T {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.query_async(&mut self.0).await.unwrap()
    }

    /// How often each command was called, scripts' own calls too.
    pub(crate) async fn calls(&mut self, command: &str) -> u64 {
        let stats: String = self.ask("INFO commandstats").await;
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }

    pub(crate) async fn keys(&mut self) -> Vec<String> {
        let mut keys: Vec<String> = self.ask("KEYS *").await;
        keys.sort();
        keys
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
