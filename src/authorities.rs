//! Certificates of authorities that the operator names (`REDIS_CA_PATH`, `OTLP_CA_PATH`), trusted instead of the
//! machine's.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

#[derive(Debug)]
pub struct Authorities {
    /// The file's bytes.
    pub pem: Vec<u8>,
    pub roots: RootCertStore,
}

/// Why the certificates of a PEM file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct AuthoritiesError {
    path: PathBuf,
    #[source]
    reason: AuthoritiesReason,
}

#[derive(Debug, thiserror::Error)]
enum AuthoritiesReason {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("not PEM: {0}")]
    Pem(#[from] pem::Error),
    #[error("a certificate in it can't be used: {0}")]
    Certificate(#[from] rustls::Error),
    #[error("no certificate in it")]
    Empty,
}

/// Reads a PEM file of one or more certificates.
pub fn read(path: &Path) -> Result<Authorities, AuthoritiesError> {
    certificates(path).map_err(|reason| AuthoritiesError { path: path.to_owned(), reason })
}

fn certificates(path: &Path) -> Result<Authorities, AuthoritiesReason> {
    let pem = std::fs::read(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate?)?;
    }
    if roots.is_empty() { Err(AuthoritiesReason::Empty) } else { Ok(Authorities { pem, roots }) }
}
