//! A real PostgreSQL, started by whichever test process needs it first and shared by all: a database a test.
//!
//! Each process holds a shared lock on a file as long as it lives, however it ends; `postgres.sh` stops the server when
//! no process has held for some seconds, and the server itself dies with that script. So it works the same under `cargo
//! test` (a process a file) and nextest (a process a test), and nothing is left behind by a killed run.

#![allow(dead_code, reason = "no test file uses all of it")]

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tandem::config::Postgres;

/// The superuser of every test server; it needs no password.
const USER: &str = "tandem";

/// A fresh, empty database of the shared server.
pub(crate) struct Database {
    name: String,
    server: &'static Server,
}

impl Database {
    pub(crate) async fn create() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let database = Self { name, server: shared() };
        let mut shell = PgConnection::connect(&database.server.url(database.server.address, "postgres")).await.unwrap();
        // A process id comes back some day, and the database of one that was killed is still there.
        for sql in ["DROP DATABASE IF EXISTS", "CREATE DATABASE"] {
            let template = if sql.starts_with("CREATE") { "TEMPLATE template0" } else { "" };
            let sql = format!("{sql} {} {template}", database.name);
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut shell).await.unwrap();
        }
        database
    }

    /// Its address, for a proxy.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub(crate) fn settings(&self) -> Postgres {
        self.settings_through(self.server.address)
    }

    /// The same database by another door.
    pub(crate) fn settings_through(&self, address: SocketAddr) -> Postgres {
        Postgres { url: self.server.url(address, &self.name).into(), pool_size: 6 }
    }

    /// An operator's shell.
    pub(crate) async fn shell(&self) -> PgConnection {
        PgConnection::connect(&self.server.url(self.server.address, &self.name)).await.unwrap()
    }

    /// Output of one of PostgreSQL's own tools for this command, typed as for a database `tandem`.
    pub(crate) fn tool(&self, command: &str, input: Stdio) -> Vec<u8> {
        let (name, arguments) = command.split_once(' ').unwrap();
        let arguments = arguments.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let of_this = |(at, word): (usize, &String)| match word.as_str() {
            "tandem" if at == 0 || arguments[at - 1] != "--username" => self.name.clone(),
            word => word.to_owned(),
        };
        let mut tool = Command::new(tool(name));
        tool.args(["--host=127.0.0.1", &format!("--port={}", self.server.address.port())]);
        let said = tool.args(arguments.iter().enumerate().map(of_this)).stdin(input).output().unwrap();
        assert!(said.status.success(), "{command}: {}", String::from_utf8_lossy(&said.stderr));
        said.stdout
    }

    /// The first column of the answer, as text.
    pub(crate) async fn ask(&self, sql: &str) -> Vec<Option<String>> {
        // raw_sql: values come as text, whatever their type.
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(&mut self.shell().await).await.unwrap();
        rows.iter().map(|row| row.try_get_unchecked(0).unwrap()).collect()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.server.keep();
            eprintln!("the database {} is kept, until the next run, in {}", self.name, self.server.dir.display());
            return;
        }
        let mut drop = Command::new(tool("dropdb"));
        drop.args(["--force", "--host=127.0.0.1", "--username", USER, &self.name]);
        // A leftover goes with the server.
        let _ = drop.arg(format!("--port={}", self.server.address.port())).stderr(Stdio::null()).status();
    }
}

/// A running server and its directory.
pub(crate) struct Server {
    address: SocketAddr,
    dir: PathBuf,
    lock: PathBuf,
    /// A lock that the script watches.
    _user: File,
    durable: bool,
}

impl Server {
    /// One for a single test, which may kill it; it writes to the disk in earnest.
    pub(crate) fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = base().join(format!("own-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&dir).unwrap();
        let lock = dir.join("users.lock");
        let user = lock_file(&lock);
        user.lock_shared().unwrap();
        let server = Self { address: free_address(), dir, lock, _user: user, durable: true };
        server.create();
        server.run();
        server
    }

    /// `kill -9`, and it is gone.
    pub(crate) fn kill(&self) {
        let file = self.dir.join("data/postmaster.pid");
        let pid = std::fs::read_to_string(&file).unwrap().lines().next().unwrap().to_owned();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        until("the server is dead", || !Path::new("/proc").join(&pid).exists());
    }

    /// After [`Server::kill`].
    pub(crate) fn run(&self) {
        until("it starts", || {
            self.launch();
            // Processes of the one before may live for a moment; then it gives up at once.
            until_or("it accepts connections or gives up", || {
                if self.is_ready() {
                    return Some(true);
                }
                let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                log.trim_end().ends_with("database system is shut down").then_some(false)
            })
        });
    }

    pub(crate) fn settings(&self) -> Postgres {
        Postgres { url: self.url(self.address, "postgres").into(), pool_size: 4 }
    }

    fn url(&self, address: SocketAddr, database: &str) -> String {
        format!("postgres://{USER}@{address}/{database}")
    }

    /// From now on it speaks TLS too, with this certificate.
    pub(crate) async fn encrypt(&self, certificate: &Path, key: &Path) {
        let data = self.dir.join("data");
        for (from, name) in [(certificate, "server.crt"), (key, "server.key")] {
            let to = data.join(name);
            std::fs::copy(from, &to).unwrap();
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
            if is_root() {
                let owner = format!("{}:", unprivileged());
                assert!(Command::new("chown").arg(owner).arg(&to).status().unwrap().success());
            }
        }
        let mut shell = PgConnection::connect(&self.url(self.address, "postgres")).await.unwrap();
        for sql in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
            sqlx::raw_sql(sql).execute(&mut shell).await.unwrap();
        }
    }

    /// Its files survive it.
    fn keep(&self) {
        File::create(self.dir.join("keep")).unwrap();
    }

    fn create(&self) {
        std::fs::create_dir_all(&self.dir).unwrap();
        if is_root() {
            let owner = format!("{}:", unprivileged());
            let status = Command::new("chown").arg(owner).arg(&self.dir).status().unwrap();
            assert!(status.success(), "chown {}", self.dir.display());
        }
        let mut initdb = command(&tool("initdb"), false);
        initdb.args(["--username", USER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"]);
        let output = initdb.arg(self.dir.join("data")).current_dir(&self.dir).output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    }

    #[expect(clippy::zombie_processes, reason = "it may outlive this process")]
    fn launch(&self) {
        let fsync = if self.durable { "on" } else { "off" };
        let port = self.address.port().to_string();
        let settings = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", ""),
            ("max_connections", "300"),
            ("fsync", fsync),
            ("full_page_writes", fsync),
            ("shared_buffers", "64MB"),
            ("jit", "off"),
            // A deadlock is a failure to be seen soon.
            ("deadlock_timeout", "200ms"),
            // Nothing may depend on it.
            ("timezone", "America/St_Johns"),
        ];
        std::fs::write(self.dir.join("log"), "").unwrap();
        let mut script = Command::new("setsid");
        script.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/postgres.sh")).arg(&self.lock).arg(&self.dir);
        let server = command(&tool("postgres"), true);
        script.arg(server.get_program()).args(server.get_args()).arg("-D").arg(self.dir.join("data"));
        for (name, value) in settings {
            script.arg(format!("--{name}={value}"));
        }
        script.current_dir(&self.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        script.spawn().expect("setsid (util-linux) runs");
    }

    fn is_ready(&self) -> bool {
        let port = self.address.port().to_string();
        let mut asking = Command::new(tool("pg_isready"));
        asking.args(["--quiet", "--host=127.0.0.1", "--port", &port]).status().unwrap().success()
    }

    /// Content of the file `server`, which other processes read.
    fn describe(&self) -> String {
        format!("{}\n{}\n", self.address, self.dir.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
            eprintln!("the server's files are kept, until the next run, in {}", self.dir.display());
        }
        // The script sees the lock free, and ends it.
    }
}

fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let base = base();
        // One process at a time looks whether there is a server.
        let turn = lock_file(&base.join("turn.lock"));
        turn.lock().unwrap();
        let lock = base.join("users.lock");
        let user = lock_file(&lock);
        // Waits here while a server is being stopped.
        user.lock_shared().unwrap();
        let note = base.join("server");
        if let Some((address, dir)) = std::fs::read_to_string(&note).ok().and_then(|text| running(&text)) {
            return Server { address, dir, lock, _user: user, durable: false };
        }
        let dir = base.join(format!("shared-{}", std::process::id()));
        remove_leftovers(&base);
        let server = Server { address: free_address(), dir, lock, _user: user, durable: false };
        server.create();
        server.run();
        File::create(&note).unwrap().write_all(server.describe().as_bytes()).unwrap();
        server
    })
}

/// The server of an earlier process, if it is still there.
fn running(note: &str) -> Option<(SocketAddr, PathBuf)> {
    let (address, dir) = note.trim_end().split_once('\n')?;
    let (address, dir): (SocketAddr, PathBuf) = (address.parse().ok()?, dir.into());
    let pid = std::fs::read_to_string(dir.join("data/postmaster.pid")).ok()?;
    let name = std::fs::read_to_string(Path::new("/proc").join(pid.lines().next()?).join("comm")).ok()?;
    let port = address.port().to_string();
    (name.trim() == "postgres" && pid.lines().nth(3)? == port).then_some((address, dir))
}

/// Removes what failed runs kept and killed ones left behind.
fn remove_leftovers(base: &Path) {
    for entry in std::fs::read_dir(base).unwrap().map(Result::unwrap) {
        let (name, own) = (entry.file_name().to_string_lossy().into_owned(), entry.path().join("users.lock"));
        if name.starts_with("shared-") || own.exists() && lock_file(&own).try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The directory of this checkout's servers. Not in `target`: the server's user may not be allowed to go there.
fn base() -> PathBuf {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_MANIFEST_DIR"), own_uid()).hash(&mut hasher);
    let base = std::env::temp_dir().join(format!("tandem-test-postgres-{:x}", hasher.finish()));
    std::fs::create_dir_all(&base).unwrap();
    base
}

fn lock_file(path: &Path) -> File {
    File::options().create(true).truncate(false).read(true).write(true).open(path).unwrap()
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap()
}

/// The newest installed program of this name.
fn tool(name: &str) -> PathBuf {
    let version = |dir: &Path| dir.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let newest = installed.max_by_key(|dir| version(dir)).map(|dir| dir.join("bin").join(name));
    #[expect(clippy::disallowed_methods, reason = "no setting: where programs are")]
    let path = std::env::var("PATH").unwrap_or_default();
    let found =
        newest.into_iter().chain(path.split(':').map(|dir| Path::new(dir).join(name))).find(|file| file.exists());
    found.unwrap_or_else(|| panic!("PostgreSQL's {name} is missing: apt-get install postgresql"))
}

/// PostgreSQL refuses to run as root. A `mortal` one dies with its parent.
fn command(program: &Path, mortal: bool) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        let user = unprivileged();
        command.arg(format!("--reuid={user}")).arg(format!("--regid={}", group_of(user))).arg("--clear-groups");
    }
    if mortal {
        command.arg("--pdeathsig=KILL");
    }
    command.arg("--").arg(program);
    command
}

fn unprivileged() -> &'static str {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    if users.lines().any(|line| line.starts_with("postgres:")) { "postgres" } else { "nobody" }
}

fn group_of(user: &str) -> String {
    let output = Command::new("id").args(["-g", user]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn is_root() -> bool {
    own_uid() == 0
}

fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").unwrap().uid()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let asked = |so: bool| so.then_some(true);
    until_or(what, || asked(is_so()));
}

/// Polls for the outcome, a minute at the most.
fn until_or(what: &str, mut outcome: impl FnMut() -> Option<bool>) -> bool {
    for _ in 0..3000 {
        if let Some(outcome) = outcome() {
            return outcome;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited a minute until {what}");
}
