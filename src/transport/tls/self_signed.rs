//! The self-signed certificate. Browsers accept a certificate by its hash (`serverCertificateHashes`) only if it is
//! ECDSA P-256 and valid for at most 14 days.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::{Served, TlsError, digest, served};
use crate::domain::RoomTime;

const DAY: Duration = Duration::from_secs(86_400);
/// Validity of a new certificate.
const LIFE: Duration = Duration::from_secs(13 * 86_400);
/// Back-dating of a new certificate, for clients whose clocks are slow.
const BACKDATED: Duration = Duration::from_secs(3600);
/// A certificate is renewed when less than this is left.
const RENEW_AT: Duration = Duration::from_secs(3 * 86_400);

pub(super) fn is_due(not_after: RoomTime, now: RoomTime) -> bool {
    not_after.saturating_since(now) <= RENEW_AT
}

/// The stored certificate if it is still valid for these names; else a new one, which is stored.
pub(super) fn load_or_make(dir: &Path, names: &[String], now: RoomTime) -> Result<Served, TlsError> {
    let (cert, key) = (dir.join("dev.crt"), dir.join("dev.key"));
    if let (Ok(chain), Ok(secret)) = (fs::read(&cert), fs::read(&key))
        && let Some(kept) = usable(&chain, &secret, names, now)
    {
        return Ok(kept);
    }
    let (chain, secret) = make(names, now)?;
    let made = parse(chain.as_bytes(), secret.as_bytes()).ok_or(rcgen::Error::CouldNotParseCertificate)?;
    // The key first: after a crash between the two writes the pair doesn't match, and is made anew.
    if let Err(error) = keep(dir, &key, secret.as_bytes()).and_then(|()| keep(dir, &cert, chain.as_bytes())) {
        tracing::warn!(dir = %dir.display(), %error, "can't keep the self-signed certificate; the next start makes another one");
    }
    tracing::info!(names = names.join(","), "made a self-signed certificate for 13 days");
    Ok(made)
}

fn parse(chain: &[u8], secret: &[u8]) -> Option<Served> {
    let leaf = CertificateDer::from_pem_slice(chain).ok()?;
    let key = PrivateKeyDer::from_pem_slice(secret).ok()?;
    served(vec![leaf], key, digest(chain, secret)).ok()
}

fn usable(chain: &[u8], secret: &[u8], names: &[String], now: RoomTime) -> Option<Served> {
    let kept = parse(chain, secret)?;
    let leaf = kept.key.cert.first()?.clone();
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).ok()?;
    let validity = parsed.validity();
    let starts = RoomTime::from_millis(validity.not_before.timestamp().saturating_mul(1000));
    let short_enough = kept.not_after.saturating_since(starts) <= 14 * DAY;
    let listed = names_of(&parsed);
    let fits =
        starts <= now && short_enough && !is_due(kept.not_after, now) && names.iter().all(|n| listed.contains(n));
    fits.then_some(kept)
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |general: &GeneralName<'_>| match general {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
        },
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

fn make(names: &[String], now: RoomTime) -> Result<(String, String), TlsError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "tandem development");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date(now - BACKDATED);
    params.not_after = date(now + LIFE);
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn date(at: RoomTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_millis() / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Replaces the file atomically (rename(2)), readable by the owner only.
fn keep(dir: &Path, path: &Path, content: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    let draft = path.with_extension(format!("{:08x}.tmp", rand::random::<u32>()));
    let written = write_private(&draft, content).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
