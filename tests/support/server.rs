//! The whole server: in this process, or the real binary.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tandem::app::App;
use tandem::config::Environment;
use tandem::config::cli::{CliCommand, parse};
use tandem::telemetry::Metrics;
use tandem::vital::Lost;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{Carrier, Client};

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(120), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Asks again until the answer is there.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    soon(what, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// Settings and folders of a server; the same at every start, with the ports of the first.
struct Site {
    home: tempfile::TempDir,
    /// Files that the process may have open.
    files: Option<u32>,
    settings: Vec<(String, String)>,
}

impl Site {
    fn new(settings: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
        let mut all: Vec<(String, String)> = [("PORT", "0"), ("QUIC_PORT", "0"), ("LOG_LEVEL", "tandem=debug,warn")]
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        all.push(("DATA_DIR".to_owned(), path("data")));
        all.push(("CERTS_DIR".to_owned(), path("certs")));
        all.push(("NODE_ID".to_owned(), "node-1".to_owned()));
        let mut site = Self { home, files: None, settings: all };
        for (name, value) in settings {
            site.set(name, value);
        }
        site
    }

    fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    fn stay(&mut self, place: &Place) {
        self.set("PORT", &place.plain.port().to_string());
        self.set("QUIC_PORT", &place.secure.port().to_string());
    }

    fn certificate(&self) -> PathBuf {
        self.home.path().join("certs/dev.crt")
    }
}

/// Addresses and certificate of a server.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) plain: SocketAddr,
    pub(crate) secure: SocketAddr,
    certificate: PathBuf,
}

impl Place {
    /// Opens a connection, without a JOIN.
    pub(crate) async fn connect(&self, carrier: Carrier) -> Client {
        soon("a connection", Client::connect(carrier, self)).await.expect("a connection")
    }

    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.plain)
    }

    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }

    pub(crate) fn place(&self) -> Place {
        self.clone()
    }

    /// The same server, its plain port by another door.
    pub(crate) fn through(&self, door: SocketAddr) -> Place {
        Place { plain: door, ..self.clone() }
    }

    /// GET over plain HTTP.
    pub(crate) async fn get(&self, path: &str, headers: &[(&'static str, &str)]) -> reqwest::Response {
        let mut request = self.asker().get(self.http(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        soon("an answer", request.send()).await.unwrap()
    }

    pub(crate) async fn get_json(&self, path: &str, headers: &[(&'static str, &str)]) -> Value {
        soon("a body", self.get(path, headers).await.json()).await.unwrap()
    }

    /// The same of a server that may be gone.
    pub(crate) async fn try_get_json(&self, path: &str) -> Result<Value, String> {
        let answer = self.asker().get(self.http(path)).send().await.map_err(|error| error.to_string())?;
        answer.json().await.map_err(|error| error.to_string())
    }

    /// A connection of its own, closed afterwards.
    fn asker(&self) -> reqwest::Client {
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls(&self.certificate))
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .build()
            .unwrap()
    }

    /// A room's whole history, as a member may read it.
    pub(crate) async fn history(&self, room: &str, user: &str, token: &str) -> Vec<Value> {
        let bearer = format!("Bearer {token}");
        let (mut events, mut after) = (Vec::new(), String::from("0.0"));
        loop {
            let path = format!("/api/rooms/{room}/events?userId={user}&limit=500&after={after}");
            let page = self.get_json(&path, &[("authorization", &bearer)]).await;
            events.extend(page["events"].as_array().unwrap_or_else(|| panic!("{page}")).iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => return events,
            }
        }
    }
}

/// A TLS client's settings: this certificate and no other.
pub(crate) fn tls(certificate: &Path) -> rustls::ClientConfig {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A server in this process.
pub(crate) struct TestServer {
    site: Site,
    place: Place,
    tracker: TaskTracker,
    running: Option<(CancellationToken, JoinHandle<Result<(), Lost>>)>,
}

impl std::ops::Deref for TestServer {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let mut site = Site::new(settings);
        let tracker = TaskTracker::new();
        let (place, running) = Self::run(&site, &tracker).await;
        site.stay(&place);
        Self { site, place, tracker, running: Some(running) }
    }

    async fn run(site: &Site, tracker: &TaskTracker) -> (Place, (CancellationToken, JoinHandle<Result<(), Lost>>)) {
        let environment: Environment = site.settings.iter().cloned().collect();
        let Ok(CliCommand::Serve(config)) = parse(["tandem"], &environment) else { panic!("the settings are wrong") };
        let app = soon("the start", App::build(*config, Metrics::install().unwrap())).await.expect("a start");
        let place = Place {
            plain: app.plain_address().unwrap(),
            secure: app.secure_address().unwrap(),
            certificate: site.certificate(),
        };
        let stop = CancellationToken::new();
        let until = stop.clone();
        let done = tracker.spawn(app.run(async move { until.cancelled().await }));
        (place, (stop, done))
    }

    /// As SIGTERM does. Returns when nothing is left.
    pub(crate) async fn stop(&mut self) {
        if let Some((stop, done)) = self.running.take() {
            stop.cancel();
            soon("the server to stop", done).await.expect("a server that doesn't panic").expect("no task is lost");
        }
    }

    /// Waits for the end of a server that ends by itself.
    pub(crate) async fn lost(&mut self) -> Lost {
        let (_, done) = self.running.take().expect("a running server");
        soon("the server to end", done).await.expect("a server that doesn't panic").expect_err("a loss")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.site.home.path().join("data")
    }

    /// Stops in the background.
    pub(crate) fn begin_stop(&self) {
        if let Some((stop, _)) = &self.running {
            stop.cancel();
        }
    }

    /// Starts again: same directory, same ports.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.running.is_none(), "stop it first");
        let (place, running) = Self::run(&self.site, &self.tracker).await;
        (self.place, self.running) = (place, Some(running));
    }

    /// The number of open sessions, as `/status` says it.
    pub(crate) async fn sessions(&self) -> u64 {
        self.get_json("/status", &[]).await["localConnections"].as_u64().unwrap()
    }
}

/// Processes that started together, and how each ended.
pub(crate) struct Race {
    pub(crate) serving: Vec<(Place, tokio::process::Child)>,
    pub(crate) ended: Vec<std::process::Output>,
    _site: Site,
}

/// The binary under test: this build's, or the one that `TANDEM_TEST_BINARY` names (an optimised one, for what is
/// measured).
fn binary() -> PathBuf {
    let named = std::env::vars_os().find(|(name, _)| name == "TANDEM_TEST_BINARY");
    named.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_tandem")), |(_, path)| PathBuf::from(path))
}

/// The real binary.
pub(crate) struct TestProcess {
    site: Site,
    place: Place,
    child: tokio::process::Child,
}

impl std::ops::Deref for TestProcess {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl TestProcess {
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let mut site = Site::new(settings);
        let (child, place) = Self::spawn(&site).await;
        site.stay(&place);
        Self { site, place, child }
    }

    /// With so many files that it may have open, by the hard limit too.
    pub(crate) async fn with_files(files: u32, settings: &[(&str, &str)]) -> Self {
        let mut site = Site::new(settings);
        site.files = Some(files);
        let (child, place) = Self::spawn(&site).await;
        site.stay(&place);
        Self { site, place, child }
    }

    async fn spawn(site: &Site) -> (tokio::process::Child, Place) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(site.home.path().join("log")).unwrap();
        let mut command = tokio::process::Command::new("sh");
        let limit = site.files.map(|files| format!("ulimit -n {files} && ")).unwrap_or_default();
        command.args(["-c", &format!("{limit}exec \"$0\"")]).arg(binary());
        let mut child = command
            .env_clear()
            .envs(site.settings.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let plain = loop {
            let line = soon("the announcement", lines.next_line()).await.unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended: {}", Self::log_of(site)));
            if let Some(port) = line.split("localhost:").nth(1) {
                break port.split_whitespace().next().unwrap().parse::<u16>().unwrap();
            }
        };
        let line = soon("the announcement", lines.next_line()).await.unwrap().unwrap();
        let secure = line.split_whitespace().find_map(|word| word.parse::<SocketAddr>().ok()).unwrap();
        let place = Place { plain: ([127, 0, 0, 1], plain).into(), secure, certificate: site.certificate() };
        (child, place)
    }

    fn log_of(site: &Site) -> String {
        std::fs::read_to_string(site.home.path().join("log")).unwrap_or_default()
    }

    /// Its standard error so far.
    pub(crate) fn log(&self) -> String {
        Self::log_of(&self.site)
    }

    /// Several processes on one fresh directory at once: those that serve, and those that ended.
    pub(crate) async fn race(runners: usize) -> Race {
        let site = Site::new(&[]);
        let mut children = Vec::new();
        for _ in 0..runners {
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tandem"));
            command.env_clear().envs(site.settings.iter().cloned()).kill_on_drop(true);
            children.push(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        }
        let (mut serving, mut ended) = (Vec::new(), Vec::new());
        for mut child in children {
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            match soon("an announcement, or the end", lines.next_line()).await.unwrap() {
                Some(line) => {
                    let port = line.split("localhost:").nth(1).unwrap().split_whitespace().next().unwrap();
                    let plain = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
                    let line = soon("the announcement", lines.next_line()).await.unwrap().unwrap();
                    let secure = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
                    serving.push((Place { plain, secure, certificate: site.certificate() }, child));
                }
                None => ended.push(soon("the end", child.wait_with_output()).await.unwrap()),
            }
        }
        Race { serving, ended, _site: site }
    }

    /// Another process with the same settings, to its end.
    pub(crate) async fn twin(&self) -> std::process::Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tandem"));
        command.env_clear().envs(self.site.settings.iter().cloned()).env("PORT", "0").env("QUIC_PORT", "0");
        soon("the second one to end", command.kill_on_drop(true).output()).await.unwrap()
    }

    /// SIGKILL: nothing is flushed, no peer is told.
    pub(crate) async fn kill(&mut self) {
        self.child.start_kill().unwrap();
        soon("the process to die", self.child.wait()).await.unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("a process")
    }

    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.pid();
        let script = format!("kill -{name} {pid}");
        assert!(tokio::process::Command::new("sh").args(["-c", &script]).status().await.unwrap().success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        soon("the process to end", self.child.wait()).await.unwrap()
    }

    /// Starts again: same directory, same ports.
    pub(crate) async fn start_again(&mut self) {
        (self.child, self.place) = Self::spawn(&self.site).await;
    }
}
