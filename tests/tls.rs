//! Certificates: made, kept, renewed, reloaded.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod edge;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge::{NOW, within};
use rcgen::{CertificateParams, KeyPair};
use tandem::clock::Clock;
use tandem::domain::RoomTime;
use tandem::transport::tls::{CertSource, CertStore, Checked, POLL, TlsError, server_config};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const DAY: Duration = Duration::from_secs(86_400);

fn self_signed(dir: &Path, names: &[&str]) -> CertSource {
    CertSource::SelfSigned { dir: dir.to_owned(), names: names.iter().map(|name| (*name).to_owned()).collect() }
}

#[test]
fn a_self_signed_certificate_is_one_that_browsers_take_by_its_hash() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["localhost", "127.0.0.1", "::1", "my-machine"];
    let store = CertStore::open(self_signed(dir.path(), &names), NOW).unwrap();
    let pem = std::fs::read(dir.path().join("dev.crt")).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let validity = certificate.validity();
    assert!(validity.not_after.timestamp() - validity.not_before.timestamp() <= 14 * 86_400);
    assert!(validity.not_before.timestamp() < NOW.as_millis() / 1000, "clients' clocks may be slow");
    let curve = certificate.public_key().algorithm.parameters.as_ref().unwrap().as_oid().unwrap();
    assert_eq!(curve.to_id_string(), "1.2.840.10045.3.1.7", "P-256");
    let alternative = certificate.subject_alternative_name().unwrap().unwrap();
    assert_eq!(alternative.value.general_names.len(), names.len());
    let hash: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&pem.contents).into();
    assert_eq!(store.hashes(), [hash]);
}

#[cfg(unix)]
#[test]
fn its_key_is_readable_by_its_owner_only_and_nothing_else_is_left_behind() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    CertStore::open(self_signed(dir.path(), &["localhost"]), NOW).unwrap();
    assert_eq!(std::fs::metadata(dir.path().join("dev.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let mut files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["dev.crt", "dev.key"]);
}

#[test]
fn it_is_kept_between_starts_as_long_as_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let open = |names: &[&str], now| CertStore::open(self_signed(dir.path(), names), now).unwrap().hashes();
    let first = open(&["localhost"], NOW);
    assert_eq!(open(&["localhost"], NOW + 5 * DAY), first);
    let wider = open(&["localhost", "new-name"], NOW + 5 * DAY);
    assert_ne!(wider, first, "a name is missing");
    assert_eq!(open(&["localhost"], NOW + 5 * DAY), wider, "a name too many does no harm");
    let later = open(&["localhost"], NOW + 16 * DAY);
    assert_ne!(later, wider, "two days are too little for a start");
    std::fs::write(dir.path().join("dev.key"), "half a k").unwrap();
    assert_ne!(open(&["localhost"], NOW + 16 * DAY), later, "what can't be read is made anew");
}

#[test]
fn a_directory_that_cant_be_written_is_no_reason_not_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(CertStore::open(self_signed(&file.join("certs"), &["localhost"]), NOW).unwrap().hashes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_renewed_while_running_and_the_old_hash_stays_listed_until_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = CertStore::open(self_signed(dir.path(), &["localhost"]), NOW).unwrap();
    let (old, tracker, stop) = (store.hashes(), TaskTracker::new(), CancellationToken::new());
    tracker.spawn(Arc::clone(&store).watch(Clock::starting_at(NOW), stop.clone()));

    tokio::time::advance(10 * DAY - Duration::from_secs(60)).await;
    settle(3).await;
    assert_eq!(store.hashes(), old, "more than three days are left");
    tokio::time::advance(Duration::from_secs(60)).await;
    until(|| store.hashes().len() == 2).await;
    let both = store.hashes();
    assert!(both[1] == old[0] && both[0] != old[0], "the new one first");
    let (renewed, now) = (store.not_after(), NOW + 10 * DAY);
    assert!(renewed.saturating_since(now) > 12 * DAY);

    tokio::time::advance(3 * DAY).await;
    until(|| store.hashes() == both[..1]).await;
    stop.cancel();
    tracker.close();
    within(tracker.wait()).await;
}

/// Lets the watcher look so many times. The time is tokio's paused one.
async fn settle(times: u32) {
    for _ in 0..times {
        tokio::time::sleep(POLL).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
    panic!("this never came");
}

#[test]
fn a_process_that_shares_the_directory_takes_the_renewed_one() {
    let dir = tempfile::tempdir().unwrap();
    let open = || CertStore::open(self_signed(dir.path(), &["localhost"]), NOW).unwrap();
    let (one, other) = (open(), open());
    assert_eq!(one.check(NOW + 11 * DAY), Checked::Replaced);
    assert_eq!(other.check(NOW + 11 * DAY), Checked::Replaced);
    assert_eq!(one.hashes(), other.hashes());
}

/// An operator's certificate in a directory.
struct Pem {
    dir: tempfile::TempDir,
}

impl Pem {
    fn new() -> Self {
        let pem = Self { dir: tempfile::tempdir().unwrap() };
        pem.write(&make("localhost"));
        pem
    }

    fn write(&self, (cert, key): &(String, String)) {
        std::fs::write(self.dir.path().join("tls.crt"), cert).unwrap();
        std::fs::write(self.dir.path().join("tls.key"), key).unwrap();
    }

    fn open(&self) -> Result<Arc<CertStore>, TlsError> {
        let (cert, key) = (self.dir.path().join("tls.crt"), self.dir.path().join("tls.key"));
        CertStore::open(CertSource::Files { cert, key }, Clock::start().now())
    }

    /// Whether a client that trusts only the file's certificate gets through.
    async fn is_served(&self, store: &Arc<CertStore>) -> bool {
        let client = edge::client_config(&self.dir.path().join("tls.crt"));
        let server = server_config(Arc::clone(store), &[]).unwrap();
        let (near, far) = tokio::io::duplex(16 * 1024);
        let connect = tokio_rustls::TlsConnector::from(Arc::new(client)).connect("localhost".try_into().unwrap(), near);
        let accept = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(far);
        let (client, _server) = tokio::join!(connect, accept);
        client.is_ok()
    }
}

fn make(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_changed_file_is_served_to_the_next_handshake_and_has_no_hash_to_list() {
    let pem = Pem::new();
    let store = pem.open().unwrap();
    assert!(pem.is_served(&store).await && store.hashes().is_empty());
    assert_eq!(store.check(NOW), Checked::Unchanged);
    pem.write(&make("localhost"));
    assert!(!pem.is_served(&store).await, "not read yet");
    assert_eq!(store.check(NOW), Checked::Replaced);
    assert!(pem.is_served(&store).await);
    assert_eq!(store.check(NOW), Checked::Unchanged);
}

#[tokio::test]
async fn a_broken_new_file_keeps_the_old_certificate_until_it_is_mended() {
    let pem = Pem::new();
    let store = pem.open().unwrap();
    let good = make("localhost");
    let path = |name: &str| pem.dir.path().join(name);
    let old = std::fs::read(path("tls.crt")).unwrap();
    for (cert, key) in [
        ("", good.1.as_str()),
        (&good.0[..good.0.len() / 2], &good.1),
        (&good.0, "no key"),
        (&good.0, &make("localhost").1),
    ] {
        pem.write(&(cert.to_owned(), key.to_owned()));
        assert_eq!(store.check(NOW), Checked::Kept, "{cert:.30} {key:.30}");
        std::fs::write(path("tls.crt"), &old).unwrap();
        assert!(pem.is_served(&store).await, "the old one still is");
    }
    std::fs::remove_file(path("tls.key")).unwrap();
    assert_eq!(store.check(NOW), Checked::Kept);
    pem.write(&good);
    assert_eq!(store.check(NOW), Checked::Replaced);
    assert!(pem.is_served(&store).await);
}

#[test]
fn a_broken_file_is_complained_of_once() {
    let pem = Pem::new();
    let store = pem.open().unwrap();
    let (recorder, metrics) = tandem::telemetry::Metrics::recorder().unwrap();
    let failures = || {
        let values = metrics.values().into_iter();
        values.filter(|(name, _)| name.contains("failed")).map(|(_, value)| value).sum::<f64>()
    };
    metrics::with_local_recorder(&recorder, || {
        std::fs::write(pem.dir.path().join("tls.key"), "no key").unwrap();
        for _ in 0..3 {
            assert_eq!(store.check(NOW), Checked::Kept);
        }
        assert_eq!(failures(), 1.0);
        pem.write(&make("localhost"));
        assert_eq!(store.check(NOW), Checked::Replaced);
        std::fs::write(pem.dir.path().join("tls.key"), "no key").unwrap();
        store.check(NOW);
        assert_eq!(failures(), 2.0, "it was mended in between");
    });
}

#[cfg(unix)]
#[tokio::test]
async fn a_swapped_symlink_counts_as_a_change() {
    let pem = Pem::new();
    let root = pem.dir.path();
    for version in ["one", "two"] {
        let (cert, key) = make("localhost");
        std::fs::create_dir(root.join(version)).unwrap();
        std::fs::write(root.join(version).join("tls.crt"), cert).unwrap();
        std::fs::write(root.join(version).join("tls.key"), key).unwrap();
    }
    // As Kubernetes does: the files are links through `data`, which is replaced by a rename.
    std::os::unix::fs::symlink("one", root.join("data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        std::fs::remove_file(root.join(file)).unwrap();
        std::os::unix::fs::symlink(Path::new("data").join(file), root.join(file)).unwrap();
    }
    let store = pem.open().unwrap();
    std::os::unix::fs::symlink("two", root.join("data.new")).unwrap();
    std::fs::rename(root.join("data.new"), root.join("data")).unwrap();
    assert_eq!(store.check(NOW), Checked::Replaced);
    assert!(pem.is_served(&store).await);
}

#[test]
fn files_that_cant_be_used_at_the_start_name_their_variable() {
    let says = |pem: &Pem| pem.open().unwrap_err().to_string();
    let pem = Pem::new();
    std::fs::write(pem.dir.path().join("tls.key"), make("localhost").1).unwrap();
    assert!(says(&pem).starts_with("TLS_KEY_PATH") && says(&pem).contains("don't belong together"), "{}", says(&pem));
    std::fs::write(pem.dir.path().join("tls.crt"), "nothing").unwrap();
    assert!(says(&pem).starts_with("TLS_CERT_PATH"), "{}", says(&pem));
    std::fs::remove_file(pem.dir.path().join("tls.key")).unwrap();
    assert!(says(&pem).starts_with("TLS_KEY_PATH") && says(&pem).contains("tls.key"), "{}", says(&pem));
}

#[test]
fn an_expired_self_signed_certificate_has_no_hash_left_to_list() {
    let dir = tempfile::tempdir().unwrap();
    let store = CertStore::open(self_signed(dir.path(), &["localhost"]), NOW).unwrap();
    let late: RoomTime = NOW + 20 * DAY;
    assert_eq!(store.check(late), Checked::Replaced, "the machine slept");
    assert_eq!(store.hashes().len(), 1);
}
