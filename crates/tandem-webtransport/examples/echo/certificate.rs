//! What the example needs beside its server: a certificate that browsers accept by its hash (P-256, valid for at most
//! 14 days), an address, and the code for the browser.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use time::{Duration, OffsetDateTime};

/// The certificate, and its SHA-256 in base64.
pub(crate) fn self_signed() -> (Arc<dyn ResolvesServerCert>, String) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
    params.not_before = OffsetDateTime::now_utc() - Duration::HOUR;
    params.not_after = params.not_before + Duration::days(13);
    let certificate = params.self_signed(&key).expect("a certificate").der().clone();
    let hash = ring::digest::digest(&ring::digest::SHA256, &certificate);
    let hash = base64::engine::general_purpose::STANDARD.encode(hash);
    let signer = any_ecdsa_type(&PrivateKeyDer::Pkcs8(key.serialize_der().into())).expect("a signer");
    (Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], signer))), hash)
}

/// Where the example listens: port 4433, or the first argument.
pub(crate) fn address() -> SocketAddr {
    let port = std::env::args().nth(1).map_or(4433, |port| port.parse().expect("a port"));
    ([127, 0, 0, 1], port).into()
}

/// A snippet for a browser's console.
pub(crate) fn snippet(hash: &str, address: SocketAddr) -> String {
    include_str!("echo.js").replace("HASH", hash).replace("PORT", &address.port().to_string())
}
