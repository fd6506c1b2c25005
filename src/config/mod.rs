//! Settings: raw texts (`raw`), parsed and checked once (`Config::resolve`), then immutable. Only this module reads the
//! environment.

pub mod cli;
mod database;
mod machine;
mod raw;
pub mod settings;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

pub use database::{Postgres, Redis};
pub use machine::Machine;
pub use raw::{Environment, Raw, Source, Unknown};

use crate::domain::{HostPattern, Limits, NodeId, UrlPolicy};
use crate::http::ice::{self, IceServers, Turn};
use crate::http::{BasePath, NodeUrl, ShareUrl};
use crate::telemetry::{LogFormat, Otlp, parse_filter};
use crate::transport::origin::OriginPolicy;
use crate::transport::proxies::TrustedProxies;
use crate::transport::quic::{MAX_ENDPOINTS, NodeIdentity, ServerId, SharedSecret};
use crate::transport::tls::CertSource;

/// The settings as the modules want them.
#[derive(Debug, Clone)]
pub struct Config {
    /// `HOST`
    pub host: IpAddr,
    /// `PORT`
    pub port: u16,
    /// `QUIC_PORT`; `None`: off.
    pub quic_port: Option<u16>,
    /// `QUIC_ENDPOINTS`
    pub quic_endpoints: Option<usize>,
    /// `QUIC_SHARED_SECRET`, `QUIC_SERVER_ID`
    pub quic_identity: NodeIdentity,
    /// `PUBLIC_HOST`
    pub public_host: Option<String>,
    /// `BASE_PATH`.
    pub base_path: BasePath,
    /// `NODE_URL`.
    pub node_url: Option<NodeUrl>,
    pub machine: Machine,
    /// `TRUSTED_PROXIES`
    pub trusted_proxies: TrustedProxies,
    /// `TLS_CERT_PATH` and `TLS_KEY_PATH`, or `CERTS_DIR` with the names that a certificate made here is good for.
    pub certificate: CertSource,
    /// `DATA_DIR`
    pub data_dir: PathBuf,
    /// `MAX_DATABASE_MB`, as bytes.
    pub database_bytes: u64,
    /// `REDIS_*`
    pub redis: Option<Redis>,
    /// `DATABASE_URL`, `POSTGRES_*`
    pub postgres: Option<Postgres>,
    /// `ALLOWED_ORIGINS`
    pub allowed_origins: OriginPolicy,
    /// `ALLOWED_MEDIA_HOSTS`
    pub media: UrlPolicy,
    /// `RATE_LIMITS`
    pub rate_limits: bool,
    /// `SHARE_URL_TEMPLATE`
    pub share_url: ShareUrl,
    /// `ICE_URLS`, `TURN_*`
    pub ice: IceServers,
    /// `NODE_ID`
    pub node: NodeId,
    /// `LOG_LEVEL`
    pub log_level: String,
    /// `LOG_FORMAT`; `None`: pretty on a terminal, else JSON.
    pub log_format: Option<LogFormat>,
    /// `OTLP_ENDPOINT`, `OTLP_CA_PATH`, `OTLP_SAMPLE_PERCENT`; `None`: nothing is traced.
    pub otlp: Option<Otlp>,
    pub limits: Limits,
    /// Names in the environment that look like settings and are none.
    pub unknown: Vec<Unknown>,
    report: String,
}

/// Why a configuration is refused: one line that names the setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The value can't be parsed, or is out of range.
    #[error("{name}={value}: {why}")]
    Wrong {
        name: &'static str,
        /// As it was set; `(hidden)` for a secret.
        value: String,
        why: String,
    },
    #[error("{name}: not UTF-8")]
    NotText { name: &'static str },
    #[error("{name} is not set")]
    Missing { name: &'static str },
    /// `name` is set, and needs `other`, which is not.
    #[error("{name} needs {other}: {why}")]
    Needs { name: &'static str, other: &'static str, why: &'static str },
    #[error("{name} and {other}: {why}")]
    Contradiction { name: &'static str, other: &'static str, why: &'static str },
}

/// Every error of a configuration, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl ConfigError {
    /// The settings that the error names; `name` and `other` may hold several, joined by "or".
    fn about(&self) -> Vec<&'static str> {
        let (name, other) = match self {
            Self::Wrong { name, .. } | Self::NotText { name } | Self::Missing { name } => (*name, ""),
            Self::Needs { name, other, .. } | Self::Contradiction { name, other, .. } => (*name, *other),
        };
        let other = if other == "PostgreSQL" { "DATABASE_URL or POSTGRES_HOST" } else { other };
        name.split(" or ").chain(other.split(" or ")).filter(|name| !name.is_empty()).collect()
    }
}

impl Config {
    /// Parses and checks all settings.
    ///
    /// # Errors
    /// Every wrong setting: after an error the settings that it names are put aside, and the rest is checked as if
    /// these were unset.
    pub fn resolve(raw: Raw, environment: &Environment) -> Result<Self, ConfigErrors> {
        let mut raw = raw;
        let mut errors = raw.read_secrets();
        let mut aside: Vec<&'static str> = errors.iter().flat_map(ConfigError::about).collect();
        // A secret whose file can't be read counts as wrong, too.
        aside.extend(
            settings::SECRETS
                .iter()
                .filter(|(_, file)| aside.contains(file))
                .map(|(name, _)| *name)
                .collect::<Vec<_>>(),
        );
        loop {
            let error = match Self::attempt(&raw, environment) {
                Ok(config) if errors.is_empty() => return Ok(config),
                Ok(_) => return Err(ConfigErrors(errors)),
                Err(error) => error,
            };
            let about = error.about();
            // An error that only follows from one that was reported is not reported.
            let follows = !matches!(error, ConfigError::Wrong { .. }) && about.iter().any(|name| aside.contains(name));
            if !follows {
                errors.push(error);
            }
            let progress = about.iter().filter(|name| raw.put_aside(name)).count();
            aside.extend(about);
            if progress == 0 {
                return Err(ConfigErrors(errors));
            }
        }
    }

    fn attempt(raw: &Raw, environment: &Environment) -> Result<Self, ConfigError> {
        let host = raw.required("HOST", |text| {
            if text == "localhost" {
                Ok(IpAddr::V4(Ipv4Addr::LOCALHOST))
            } else {
                number(text, "an IP address to bind to")
            }
        })?;
        let port = raw.required("PORT", |text| number(text, "a port (0-65535)"))?;
        let quic_port = raw.required("QUIC_PORT", |text| match text {
            "off" => Ok(None),
            text => number(text, "a port (0-65535), nor off").map(Some),
        })?;
        if quic_port == Some(port) && port != 0 {
            let why = "both listen on TCP, so their numbers must differ";
            return Err(ConfigError::Contradiction { name: "PORT", other: "QUIC_PORT", why });
        }
        let quic_endpoints = raw.parsed("QUIC_ENDPOINTS", |text| match number(text, "a number of sockets")? {
            endpoints @ 1..=MAX_ENDPOINTS => Ok(endpoints),
            _ => Err(format!("not within 1-{MAX_ENDPOINTS}")),
        })?;
        let public_host = raw.parsed("PUBLIC_HOST", host_name)?;
        let base_path = raw.parsed("BASE_PATH", BasePath::parse)?.unwrap_or_default();
        let node_url = raw.parsed("NODE_URL", NodeUrl::parse)?;
        let machine = Machine::look(environment);
        let redis = database::redis(raw)?;
        let postgres = database::postgres(raw)?;
        if redis.is_some() && postgres.is_none() {
            let why = "nodes that share a log must share the database too, or each would keep a history of its own; \
                       set DATABASE_URL or POSTGRES_HOST";
            return Err(ConfigError::Needs { name: "REDIS_URL or REDIS_HOST", other: "PostgreSQL", why });
        }
        let node = match raw.parsed("NODE_ID", |text| NodeId::parse(text).map_err(|invalid| invalid.message))? {
            Some(node) => node,
            None => made_node(machine.name.as_deref()).map_err(|why| ConfigError::Wrong {
                name: "NODE_ID",
                value: String::new(),
                why,
            })?,
        };
        let trusted_proxies = raw.parsed("TRUSTED_PROXIES", TrustedProxies::parse)?.unwrap_or_default();
        // A server that is bound to loopback behind a proxy has viewers on other machines, each with a loopback of its
        // own.
        let alone = host.is_loopback() && trusted_proxies == TrustedProxies::None && public_host.is_none();
        let media = UrlPolicy::new(raw.parsed("ALLOWED_MEDIA_HOSTS", media_hosts)?.unwrap_or_default(), alone);
        let mut config = Self {
            host,
            port,
            quic_port,
            quic_endpoints,
            quic_identity: quic_identity(raw)?,
            certificate: certificate(raw, host, public_host.as_deref(), &machine)?,
            public_host,
            base_path,
            node_url,
            machine,
            trusted_proxies,
            data_dir: raw.required("DATA_DIR", |text| Ok(PathBuf::from(text)))?,
            database_bytes: database::megabytes(raw, "MAX_DATABASE_MB", 64, 1 << 20)?,
            redis,
            postgres,
            allowed_origins: raw
                .required("ALLOWED_ORIGINS", |list| OriginPolicy::parse(list).map_err(|error| error.to_string()))?,
            media,
            rate_limits: raw.required("RATE_LIMITS", |text| match text {
                "on" => Ok(true),
                "off" => Ok(false),
                _ => Err("neither on nor off".to_owned()),
            })?,
            share_url: raw.required("SHARE_URL_TEMPLATE", ShareUrl::parse)?,
            ice: ice_servers(raw)?,
            node,
            log_level: raw.required("LOG_LEVEL", |text| {
                parse_filter(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
            })?,
            log_format: raw.parsed("LOG_FORMAT", |text| match text {
                "pretty" => Ok(LogFormat::Pretty),
                "json" => Ok(LogFormat::Json),
                _ => Err("neither pretty nor json".to_owned()),
            })?,
            otlp: otlp(raw)?,
            limits: limits(raw)?,
            unknown: environment.unknown(),
            report: String::new(),
        };
        config.report = report(raw, &config.node);
        Ok(config)
    }

    /// Every setting with its value and source, secrets hidden: the output of `tandem check-config`.
    pub fn report(&self) -> &str {
        &self.report
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report)
    }
}

fn number<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not {what}"))
}

fn host_name(text: &str) -> Result<String, String> {
    // Without a port: the server knows its ports.
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let name = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if bare.parse::<IpAddr>().is_ok() || name(text) {
        Ok(bare.to_owned())
    } else {
        Err("not a host name, without scheme and port".to_owned())
    }
}

fn media_hosts(text: &str) -> Result<Vec<HostPattern>, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            HostPattern::parse(item).ok_or_else(|| format!("{item:?} is none of example.org, *.example.org, *"))
        })
        .collect()
}

fn quic_identity(raw: &Raw) -> Result<NodeIdentity, ConfigError> {
    let (own, aws) = ("QUIC_SERVER_ID", "AWS_LBC_QUIC_SERVER_ID");
    let (server_id, injected) = (raw.parsed(own, ServerId::parse)?, raw.parsed(aws, ServerId::from_base64)?);
    if server_id.is_some() && injected.is_some() {
        let why = "a node has one server id; leave it to the controller, or don't let it inject one";
        return Err(ConfigError::Contradiction { name: own, other: aws, why });
    }
    Ok(NodeIdentity {
        server_id: server_id.or(injected),
        secret: raw.parsed("QUIC_SHARED_SECRET", SharedSecret::parse)?,
    })
}

fn certificate(raw: &Raw, host: IpAddr, public: Option<&str>, machine: &Machine) -> Result<CertSource, ConfigError> {
    let why = "a certificate and its key go together";
    match (raw.text("TLS_CERT_PATH"), raw.text("TLS_KEY_PATH")) {
        (Some(cert), Some(key)) => Ok(CertSource::Files { cert: cert.into(), key: key.into() }),
        (Some(_), None) => Err(ConfigError::Needs { name: "TLS_CERT_PATH", other: "TLS_KEY_PATH", why }),
        (None, Some(_)) => Err(ConfigError::Needs { name: "TLS_KEY_PATH", other: "TLS_CERT_PATH", why }),
        (None, None) => {
            let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
            let own = machine.name.iter().flat_map(|name| {
                // The machine's name by mDNS.
                [Some(name.clone()), (!name.contains('.')).then(|| format!("{name}.local"))].into_iter().flatten()
            });
            let bound: Vec<String> = match host {
                host if host.is_unspecified() => machine.addresses.iter().map(IpAddr::to_string).collect(),
                host => vec![host.to_string()],
            };
            for name in own.chain(bound).chain(public.map(str::to_owned)) {
                if name.is_ascii() && !names.contains(&name) {
                    names.push(name);
                }
            }
            Ok(CertSource::SelfSigned { dir: raw.required("CERTS_DIR", |text| Ok(PathBuf::from(text)))?, names })
        }
    }
}

fn ice_servers(raw: &Raw) -> Result<IceServers, ConfigError> {
    let open = raw.parsed("ICE_URLS", |text| ice::parse_urls(text, &["stun", "stuns"]))?.unwrap_or_default();
    let urls = raw.parsed("TURN_URLS", |text| ice::parse_urls(text, &["turn", "turns"]))?;
    let ttl = raw.required("TURN_TTL_SECS", |text| match number(text, "a number of seconds")? {
        seconds @ 60..=604_800 => Ok(Duration::from_secs(seconds)),
        _ => Err("not within 60-604800 s".to_owned()),
    })?;
    let turn = match (urls, raw.text("TURN_SECRET")) {
        (Some(urls), Some(secret)) => Some(Turn { urls, secret: SecretString::from(secret), ttl }),
        (Some(_), None) => {
            let why = "credentials are made with the secret that the TURN servers know";
            return Err(ConfigError::Needs { name: "TURN_URLS", other: "TURN_SECRET", why });
        }
        (None, Some(_)) => {
            let why = "there are no servers for these credentials";
            return Err(ConfigError::Needs { name: "TURN_SECRET", other: "TURN_URLS", why });
        }
        (None, None) => None,
    };
    Ok(IceServers { open, turn })
}

fn otlp(raw: &Raw) -> Result<Option<Otlp>, ConfigError> {
    let percent = raw.required("OTLP_SAMPLE_PERCENT", |text| match number(text, "a whole number")? {
        percent @ 0..=100 => Ok(percent),
        _ => Err("not within 0-100".to_owned()),
    })?;
    let otlp = raw.parsed("OTLP_ENDPOINT", Otlp::parse)?;
    let ca = raw.text("OTLP_CA_PATH").map(PathBuf::from);
    if ca.is_some() && !otlp.as_ref().is_some_and(Otlp::is_encrypted) {
        let why = "without TLS there are no certificates to check; a URL that begins with https://";
        return Err(ConfigError::Needs { name: "OTLP_CA_PATH", other: "OTLP_ENDPOINT", why });
    }
    Ok(otlp.map(|otlp| otlp.sampled(percent).trusting(ca)))
}

fn limits(raw: &Raw) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    for row in Limits::TABLE {
        let (least, most) = row.range;
        let value = raw.required(row.setting, |text| match number::<u64>(text, "a whole number")? {
            value if (least..=most).contains(&value) => Ok(value),
            _ => Err(format!("not within {least}-{most}")),
        })?;
        limits.set(row.setting, value).ok_or(ConfigError::Missing { name: row.setting })?;
    }
    let contradiction = |name, other, why| Err(ConfigError::Contradiction { name, other, why });
    if limits.heartbeat_secs >= limits.idle_secs {
        return contradiction(
            "HEARTBEAT_SECS",
            "IDLE_SECS",
            "a session would count as idle before it is asked for a sign of life",
        );
    }
    if limits.gate_quorum_ms > limits.gate_deadline_ms {
        return contradiction("GATE_QUORUM_MS", "GATE_DEADLINE_MS", "the quorum would count only after the deadline");
    }
    if limits.message_bytes < limits.signal_bytes + 1024 {
        return contradiction(
            "MAX_MESSAGE_BYTES",
            "MAX_SIGNAL_BYTES",
            "a signal must fit into a message, with 1024 bytes around it",
        );
    }
    if limits.message_bytes < limits.custom_bytes + 1024 {
        return contradiction(
            "MAX_MESSAGE_BYTES",
            "MAX_CUSTOM_BYTES",
            "a payload must fit into a message, with 1024 bytes around it",
        );
    }
    if limits.outbox_bytes < limits.message_bytes {
        return contradiction("MAX_OUTBOX_BYTES", "MAX_MESSAGE_BYTES", "the outbox must hold a message");
    }
    Ok(limits)
}

/// The machine's name and a random number: two processes on one machine must not share a name.
fn made_node(machine: Option<&str>) -> Result<NodeId, String> {
    let machine: String = machine.unwrap_or("node").chars().take(48).collect();
    NodeId::parse(&format!("{machine}-{:06x}", rand::random::<u32>() & 0xff_ffff)).map_err(|invalid| invalid.message)
}

fn report(raw: &Raw, node: &NodeId) -> String {
    let mut text = String::new();
    for setting in settings::all() {
        let shown = match raw.text(setting.name) {
            None if setting.name == "NODE_ID" => node.to_string(),
            None => String::new(),
            Some(value) if setting.secret && setting.name.ends_with("_URL") => database::hidden(value),
            Some(_) if setting.secret => "(hidden)".to_owned(),
            Some(value) => value.to_owned(),
        };
        text.push_str(&format!("{}={shown}  # {}\n", setting.name, raw.source(setting.name)));
    }
    text
}
