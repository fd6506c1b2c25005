//! Certificates under running listeners: read from PEM files and read again when they change, or self-signed and
//! renewed in time. One [`CertStore`] serves QUIC and TCP.

mod self_signed;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::RoomTime;
use crate::telemetry::names;

/// How often files are compared with what is served. Contents are compared, not dates or inodes, so a swapped symlink
/// (Kubernetes, certbot) counts like a rewritten file.
pub const POLL: Duration = Duration::from_secs(5);

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertSource {
    /// The operator's PEM files (`TLS_CERT_PATH`, `TLS_KEY_PATH`).
    Files {
        /// The chain, leaf first.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Made here, kept in a directory between starts.
    SelfSigned {
        /// Where `dev.crt` and `dev.key` live.
        dir: PathBuf,
        /// Host names and addresses that it is good for.
        names: Vec<String>,
    },
}

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{setting}: can't read {path}: {source}")]
    Read {
        /// The variable that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        source: std::io::Error,
    },
    /// A file isn't what it should be.
    #[error("{setting}: {path} {why}")]
    Content {
        /// The variable that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        why: String,
    },
    /// A self-signed certificate can't be made.
    #[error("can't make a self-signed certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The TLS library refused.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Result of [`CertStore::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    Unchanged,
    /// New connections get another certificate.
    Replaced,
    /// The files can't be used; the old certificate stays.
    Kept,
}

/// The certificate in force.
#[derive(Debug)]
pub struct CertStore {
    source: CertSource,
    current: ArcSwap<Served>,
    /// The last complaint, so that each is logged once.
    complaint: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Served {
    key: Arc<CertifiedKey>,
    /// SHA-256 of the leaf.
    hash: [u8; 32],
    not_after: RoomTime,
    /// SHA-256 of the files' contents.
    content: [u8; 32],
    /// The self-signed predecessor and its end: clients that were told of it may still come.
    previous: Option<([u8; 32], RoomTime)>,
}

impl CertStore {
    /// Reads or makes the first certificate.
    pub fn open(source: CertSource, now: RoomTime) -> Result<Arc<Self>, TlsError> {
        let served = match &source {
            CertSource::Files { cert, key } => read_files(cert, key)?,
            CertSource::SelfSigned { dir, names } => self_signed::load_or_make(dir, names, now)?,
        };
        if served.not_after < now {
            tracing::warn!("the certificate has expired: browsers will refuse it");
        }
        Ok(Arc::new(Self { source, current: ArcSwap::from_pointee(served), complaint: Mutex::new(None) }))
    }

    /// SHA-256 of the certificates that a client may meet, the current one first; none unless self-signed.
    pub fn hashes(&self) -> Vec<[u8; 32]> {
        match self.source {
            CertSource::Files { .. } => Vec::new(),
            CertSource::SelfSigned { .. } => {
                let served = self.current.load();
                std::iter::once(served.hash).chain(served.previous.map(|(hash, _)| hash)).collect()
            }
        }
    }

    /// The end of the current certificate.
    pub fn not_after(&self) -> RoomTime {
        self.current.load().not_after
    }

    /// Looks once whether there is, or must be, another certificate. Reads files: not for the async threads.
    pub fn check(&self, now: RoomTime) -> Checked {
        let outcome = match &self.source {
            CertSource::Files { cert, key } => self.reread(cert, key),
            CertSource::SelfSigned { dir, names } => self.renew(dir, names, now),
        };
        match outcome {
            Ok(checked) => {
                *self.complaint.lock() = None;
                if checked == Checked::Replaced {
                    metrics::counter!(names::CERTIFICATE_RELOADS, "result" => "ok").increment(1);
                    tracing::info!("new connections get the new certificate");
                }
                checked
            }
            Err(error) => {
                let text = error.to_string();
                let mut complaint = self.complaint.lock();
                if complaint.as_ref() != Some(&text) {
                    metrics::counter!(names::CERTIFICATE_RELOADS, "result" => "failed").increment(1);
                    tracing::warn!(error = text, "the old certificate stays in use");
                    *complaint = Some(text);
                }
                Checked::Kept
            }
        }
    }

    /// Calls [`CertStore::check`] until stopped.
    pub async fn watch(self: Arc<Self>, clock: Clock, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let (store, now) = (Arc::clone(&self), clock.now());
            if let Err(error) = tokio::task::spawn_blocking(move || store.check(now)).await {
                tracing::error!(%error, "looking for a new certificate failed");
            }
        }
    }

    fn reread(&self, cert: &Path, key: &Path) -> Result<Checked, TlsError> {
        let (chain, secret) = read_pair(cert, key)?;
        if digest(&chain, &secret) == self.current.load().content {
            return Ok(Checked::Unchanged);
        }
        self.current.store(Arc::new(parse_pair((cert, &chain), (key, &secret))?));
        Ok(Checked::Replaced)
    }

    fn renew(&self, dir: &Path, names: &[String], now: RoomTime) -> Result<Checked, TlsError> {
        let current = self.current.load();
        if !self_signed::is_due(current.not_after, now) {
            // The predecessor is forgotten when nobody could accept it any more.
            if current.previous.is_some_and(|(_, end)| end < now) {
                let rest = Served { key: Arc::clone(&current.key), previous: None, ..**current };
                self.current.store(Arc::new(rest));
            }
            return Ok(Checked::Unchanged);
        }
        let mut next = self_signed::load_or_make(dir, names, now)?;
        next.previous = (current.not_after > now).then_some((current.hash, current.not_after));
        self.current.store(Arc::new(next));
        Ok(Checked::Replaced)
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

/// A TLS configuration that serves whatever the store holds at each handshake. QUIC passes
/// `&[&rustls::version::TLS13]`.
pub fn server_config(
    store: Arc<CertStore>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

fn read_files(cert: &Path, key: &Path) -> Result<Served, TlsError> {
    let (chain, secret) = read_pair(cert, key)?;
    parse_pair((cert, &chain), (key, &secret))
}

fn read_pair(cert: &Path, key: &Path) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
    let read = |setting, path: &Path| {
        std::fs::read(path).map_err(|source| TlsError::Read { setting, path: path.to_owned(), source })
    };
    Ok((read("TLS_CERT_PATH", cert)?, read("TLS_KEY_PATH", key)?))
}

fn parse_pair((cert, chain): (&Path, &[u8]), (key, secret): (&Path, &[u8])) -> Result<Served, TlsError> {
    let wrong = |setting, path: &Path, why: String| TlsError::Content { setting, path: path.to_owned(), why };
    let parsed = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong("TLS_CERT_PATH", cert, format!("is not PEM: {error}")))?;
    if parsed.is_empty() {
        return Err(wrong("TLS_CERT_PATH", cert, "holds no certificate".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_slice(secret)
        .map_err(|error| wrong("TLS_KEY_PATH", key, format!("holds no private key: {error}")))?;
    served(parsed, private, digest(chain, secret))
        .map_err(|why| wrong("TLS_KEY_PATH", key, format!("and {} don't belong together: {why}", cert.display())))
}

fn served(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    content: [u8; 32],
) -> Result<Served, String> {
    let leaf = chain.first().ok_or("no certificate")?;
    let hash = Sha256::digest(leaf).into();
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
    let not_after = RoomTime::from_millis(parsed.validity().not_after.timestamp().saturating_mul(1000));
    // Checks that the key is the certificate's.
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| error.to_string())?;
    Ok(Served { key: Arc::new(key), hash, not_after, content, previous: None })
}

fn digest(chain: &[u8], secret: &[u8]) -> [u8; 32] {
    let lengths = (chain.len() as u64).to_be_bytes();
    Sha256::new().chain_update(lengths).chain_update(chain).chain_update(secret).finalize().into()
}
