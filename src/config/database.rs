//! Redis and PostgreSQL: a URL, or v2's separate settings.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{ConfigError, Raw, number};

#[derive(Debug, Clone)]
pub struct Redis {
    /// `redis://` or `rediss://`.
    pub url: SecretString,
    /// PEM file of the authorities that are trusted instead of the machine's.
    pub ca: Option<PathBuf>,
    /// Bytes that all outboxes may hold.
    pub outbox_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct Postgres {
    /// `postgres://`.
    pub url: SecretString,
    pub pool_size: u32,
}

pub(super) fn redis(raw: &Raw) -> Result<Option<Redis>, ConfigError> {
    let url = redis_url(raw)?;
    let ca = raw.text("REDIS_CA_PATH").map(PathBuf::from);
    if ca.is_some() && !url.as_ref().is_some_and(encrypted) {
        let why = "without TLS there are no certificates to check; a URL that begins with rediss:// or valkeys://, or \
                   one of Sentinels with tls=true";
        return Err(ConfigError::Needs { name: "REDIS_CA_PATH", other: "REDIS_URL", why });
    }
    let outbox_bytes = megabytes(raw, "REDIS_OUTBOX_MB", 16, 65_536)?;
    Ok(url.map(|url| Redis { url, ca, outbox_bytes }))
}

/// A size in MiB, as bytes.
pub(super) fn megabytes(raw: &Raw, name: &'static str, least: u64, most: u64) -> Result<u64, ConfigError> {
    raw.required(name, |text| match number::<u64>(text, "a whole number")? {
        size if (least..=most).contains(&size) => Ok(size << 20),
        _ => Err(format!("not within {least}-{most} MiB")),
    })
}

fn encrypted(url: &SecretString) -> bool {
    Url::parse(url.expose_secret()).is_ok_and(|url| match url.scheme() {
        "redis-sentinel" => url.query_pairs().any(|(name, value)| name == "tls" && value == "true"),
        scheme => matches!(scheme, "rediss" | "valkeys"),
    })
}

fn redis_url(raw: &Raw) -> Result<Option<SecretString>, ConfigError> {
    let parts = ["REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "REDIS_DB"];
    if let Some(url) = given(raw, "REDIS_URL", &["redis", "rediss", "redis-sentinel", "valkey", "valkeys"], &parts)? {
        return Ok(Some(url));
    }
    let database = raw.parsed("REDIS_DB", |text| number::<u16>(text, "the number of a database"))?.unwrap_or(0);
    let user = raw.text("REDIS_PASSWORD").map(|_| "");
    let place = UrlParts { scheme: "redis", host: "REDIS_HOST", port: "REDIS_PORT", password: "REDIS_PASSWORD" };
    place.url(raw, 6379, user, &database.to_string())
}

pub(super) fn postgres(raw: &Raw) -> Result<Option<Postgres>, ConfigError> {
    let pool_size = raw.required("POSTGRES_POOL_SIZE", |text| match number(text, "a number of connections")? {
        size @ 1..=1000 => Ok(size),
        _ => Err("not within 1-1000".to_owned()),
    })?;
    let parts = ["POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD"];
    if let Some(url) = given(raw, "DATABASE_URL", &["postgres", "postgresql"], &parts)? {
        return Ok(Some(Postgres { url, pool_size }));
    }
    let (user, database) = (raw.text("POSTGRES_USER"), raw.text("POSTGRES_DB").unwrap_or("tandem"));
    let place =
        UrlParts { scheme: "postgres", host: "POSTGRES_HOST", port: "POSTGRES_PORT", password: "POSTGRES_PASSWORD" };
    // v2's files set these two also where no database is used.
    if raw.text("POSTGRES_HOST").is_none() && (user.is_some() || raw.text("POSTGRES_DB").is_some()) {
        let why = "without a host there is no PostgreSQL to use them with";
        return Err(ConfigError::Needs { name: "POSTGRES_USER or POSTGRES_DB", other: "POSTGRES_HOST", why });
    }
    let url = place.url(raw, 5432, Some(user.unwrap_or("postgres")), database)?;
    Ok(url.map(|url| Postgres { url, pool_size }))
}

/// The URL of one of these schemes, if it is set; its parts must then be unset.
fn given(
    raw: &Raw,
    name: &'static str,
    schemes: &[&str],
    parts: &[&'static str],
) -> Result<Option<SecretString>, ConfigError> {
    let url = raw.parsed(name, |text| match Url::parse(text) {
        Ok(url) if schemes.contains(&url.scheme()) && url.has_host() => Ok(SecretString::from(text)),
        _ => Err(format!("not a URL that begins with {}://", schemes.join(":// or "))),
    })?;
    if url.is_some()
        && let Some(&other) = parts.iter().find(|&&part| raw.text(part).is_some())
    {
        return Err(ConfigError::Contradiction { name, other, why: "say it in one way: the URL, or its parts" });
    }
    Ok(url)
}

/// The settings that a URL may be split into.
struct UrlParts {
    scheme: &'static str,
    host: &'static str,
    port: &'static str,
    password: &'static str,
}

impl UrlParts {
    fn url(&self, raw: &Raw, port: u16, user: Option<&str>, path: &str) -> Result<Option<SecretString>, ConfigError> {
        let port = raw
            .parsed(self.port, |text| {
                // Kubernetes sets REDIS_PORT=tcp://… for a Service called "redis".
                let link = if text.starts_with("tcp://") {
                    " (a Kubernetes service link: set enableServiceLinks: false)"
                } else {
                    ""
                };
                number::<u16>(text, "a port").map_err(|error| format!("{error}{link}"))
            })?
            .unwrap_or(port);
        let Some(host) = raw.text(self.host) else {
            let why = "without a host there is nothing to connect to";
            let part = [self.port, self.password].into_iter().find(|part| raw.text(part).is_some());
            return part.map_or(Ok(None), |name| Err(ConfigError::Needs { name, other: self.host, why }));
        };
        let wrong = || ConfigError::Wrong { name: self.host, value: host.to_owned(), why: "not a host".to_owned() };
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        let mut url = Url::parse(&format!("{}://{host}:{port}", self.scheme)).map_err(|_| wrong())?;
        if url.path().len() > 1 || url.query().is_some() || !url.username().is_empty() {
            return Err(wrong());
        }
        url.set_path(path);
        if let Some(user) = user {
            url.set_username(user).map_err(|()| wrong())?;
        }
        url.set_password(raw.text(self.password)).map_err(|()| wrong())?;
        Ok(Some(SecretString::from(url.to_string())))
    }
}

/// A URL as it may be shown: without password and parameters.
pub(super) fn hidden(value: &str) -> String {
    match Url::parse(value) {
        Ok(mut url) if url.has_host() => {
            if url.password().is_some() && url.set_password(Some("hidden")).is_err() {
                return "(hidden)".to_owned();
            }
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        _ => "(hidden)".to_owned(),
    }
}
