//! A real redis-server of the test's own: it dies with the test, whatever the test dies of.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use secrecy::SecretString;
use tandem::clock::Clock;
use tandem::redis::{Lives, RedisOptions};
use tempfile::TempDir;
use tokio::process::{Child, Command};

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
        Self::start_on(free_port(), flags.iter().map(|flag| (*flag).to_owned()).collect()).await
    }

    /// Over TLS only.
    pub(crate) async fn start_tls(cert: &str, key: &str, ca: &str) -> Self {
        let port = free_port();
        let tls = port.to_string();
        let flags = ["--port", "0", "--tls-port", &tls, "--tls-cert-file", cert, "--tls-key-file", key];
        let flags = flags.into_iter().chain(["--tls-ca-cert-file", ca, "--tls-auth-clients", "no"]);
        Self::start_on(port, flags.map(str::to_owned).collect()).await
    }

    /// A Sentinel that watches `master` under the name `mymaster`, alone, and is quick to judge.
    pub(crate) async fn start_sentinel(master: u16) -> Self {
        let mut server = Self { child: None, port: free_port(), dir: tempfile::tempdir().unwrap(), flags: Vec::new() };
        let config = format!(
            "sentinel monitor mymaster 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds mymaster 300\n\
             sentinel failover-timeout mymaster 2000\n"
        );
        let path = server.dir.path().join("sentinel.conf");
        std::fs::write(&path, config).unwrap();
        server.flags = vec![path.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
        server.up().await;
        server
    }

    /// Three masters that know each other and have all slots.
    pub(crate) async fn start_cluster() -> Vec<Self> {
        Self::start_cluster_of(3).await
    }

    /// Three masters, then a replica of each.
    pub(crate) async fn start_cluster_with_replicas() -> Vec<Self> {
        let servers = Self::start_cluster_of(6).await;
        for (replica, master) in [(3, 0), (4, 1), (5, 2)] {
            let id: String = servers[master].shell().await.ask("CLUSTER MYID").await;
            servers[replica].shell().await.ask::<()>(&format!("CLUSTER REPLICATE {id}")).await;
        }
        for replica in &servers[3..] {
            replica.follows().await;
        }
        servers
    }

    /// Of so many servers the first three have the slots.
    async fn start_cluster_of(count: usize) -> Vec<Self> {
        let mut servers = Vec::new();
        // Its default, the port plus 10,000, may be none.
        let gossip: Vec<String> = (0..count).map(|_| free_port().to_string()).collect();
        for port in &gossip {
            let flags = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", port];
            servers.push(Self::start_with(&flags).await);
        }
        let slots = [(0, 5460), (5461, 10_922), (10_923, 16_383)];
        for (n, server) in servers.iter().enumerate() {
            let mut shell = server.shell().await;
            if let Some((first, last)) = slots.get(n) {
                shell.ask::<()>(&format!("CLUSTER ADDSLOTSRANGE {first} {last}")).await;
            }
            shell.ask::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", n + 1)).await;
            if n > 0 {
                shell.ask::<()>(&format!("CLUSTER MEET 127.0.0.1 {} {}", servers[0].port, gossip[0])).await;
            }
        }
        let deadline = Clock::instant() + STARTUP;
        for server in &servers {
            let mut shell = server.shell().await;
            loop {
                let info: String = shell.ask("CLUSTER INFO").await;
                if info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}\r")) {
                    break;
                }
                assert!(Clock::instant() < deadline, "{info}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        servers
    }

    async fn start_on(port: u16, flags: Vec<String>) -> Self {
        let mut server = Self { child: None, port, dir: tempfile::tempdir().unwrap(), flags };
        server.up().await;
        server
    }

    /// Starts it (again) on the same port, with what it stored, if it stores.
    pub(crate) async fn up(&mut self) {
        assert!(self.child.is_none(), "it runs");
        // setpriv: killed by the kernel when this process dies, even by SIGKILL.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", &program()])
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(std::fs::File::options().create(true).append(true).open(self.log_file()).unwrap())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.expect("setpriv is missing: apt-get install util-linux"));
        let deadline = Clock::instant() + STARTUP;
        while !self.answers().await {
            let exited = self.child.as_mut().unwrap().try_wait().unwrap();
            if let Some(status) = exited {
                let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
                panic!("{} ended with {status} (missing? apt-get install redis-server):\n{log}", program());
            }
            assert!(Clock::instant() < deadline, "redis-server does not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A Sentinel's configuration file comes before all options.
    fn arguments(&self) -> Vec<String> {
        let (port, dir) = (self.port.to_string(), self.dir.path().to_str().unwrap());
        let file = usize::from(self.flags.iter().any(|flag| flag == "--sentinel"));
        let store: &[&str] = if file == 0 { &["--save", "", "--appendonly", "no"] } else { &[] };
        let own = ["--port", &port, "--bind", "127.0.0.1", "--dir", dir];
        let own = own.iter().chain(store).map(|argument| (*argument).to_owned());
        self.flags[..file].iter().cloned().chain(own).chain(self.flags[file..].iter().cloned()).collect()
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

    /// Until this replica has all that its master has.
    pub(crate) async fn follows(&self) {
        self.says("INFO replication", |info| info.contains("master_link_status:up")).await;
    }

    /// Until this Sentinel knows whom it may promote.
    pub(crate) async fn knows_a_replica(&self) {
        self.says("INFO sentinel", |info| info.contains("slaves=1")).await;
    }

    async fn says(&self, question: &str, is_it: impl Fn(&str) -> bool) {
        let deadline = Clock::instant() + STARTUP;
        let mut shell = self.shell().await;
        loop {
            let answer: String = shell.ask(question).await;
            if is_it(&answer) {
                return;
            }
            assert!(Clock::instant() < deadline, "{question}: {answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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

    /// Its address, for a proxy.
    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
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
        // A machine that stalls is no outage; the tests of outages are less patient.
        quota_patience: Duration::from_secs(5),
        recovery_wait: Duration::from_millis(300),
        ..RedisOptions::new(SecretString::from(url.to_owned()))
    }
}

/// Lives so short that a test sees their end.
pub(crate) fn short_lives(life: Duration) -> Lives {
    Lives { room: life, end: life, outbox: life, place: life }
}

/// Asks the server itself, behind the log's back.
pub(crate) struct Shell(MultiplexedConnection);

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

    /// Calls of a command, those of scripts included.
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

/// Another server of the same protocol may be tried: CONTRIBUTING.md.
#[expect(clippy::disallowed_methods, reason = "no setting of the server's")]
fn program() -> String {
    std::env::var("TANDEM_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// Below those that the system gives to clients: another process's connection can't take it before the server does.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..32_000);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
