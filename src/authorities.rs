//! Certificates of authorities that the operator names: `REDIS_CA_PATH`, `OTLP_CA_PATH`. They are trusted instead of the
//! machine's.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// What a PEM file has.
#[derive(Debug)]
pub struct Authorities {
    /// As it is in the file.
    pub pem: Vec<u8>,
    /// As TLS wants it.
    pub roots: RootCertStore,
}

/// Reads a PEM file of one or more certificates. Says what is wrong with the file, which it names.
pub fn read(path: &Path) -> Result<Authorities, String> {
    let wrong = |why: String| format!("{}: {why}", path.display());
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(format!("not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| wrong(format!("a certificate in it can't be used: {error}")))?;
    }
    if roots.is_empty() { Err(wrong("no certificate in it".to_owned())) } else { Ok(Authorities { pem, roots }) }
}
