//! Every setting in one table: the environment variable (the flag has the same name), its default, its meaning.
//!
//! `--help`, `.env.example` and the tables of `docs/OPERATIONS.md` are made from it, and the defaults are parsed from
//! it. The settings that most installations touch stand first, with an example; the limits stand last, in a section of
//! their own.

use std::fmt::Write;

use crate::domain::Limits;

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// The value without configuration; empty: unset.
    pub default: String,
    pub meaning: String,
    /// A value that an installation may have; only the first settings have one.
    pub example: Option<&'static str>,
    /// Whether logs and reports must not show its value.
    pub secret: bool,
    /// Its section in lists.
    pub group: &'static str,
}

impl Setting {
    /// The flag without its dashes: `quic-port` for `QUIC_PORT`.
    pub fn flag(&self) -> String {
        self.name.to_ascii_lowercase().replace('_', "-")
    }
}

/// The section of [`FIRST`].
pub const FIRST_GROUP: &str = "Set these first";
const LISTENERS: &str = "Listeners";
const TLS: &str = "Certificates";
const STORAGE: &str = "Storage";
const ACCESS: &str = "Access";
const WEBRTC: &str = "WebRTC";
const OPERATION: &str = "Operation";
/// The section of [`Limits::TABLE`].
pub const LIMITS_GROUP: &str = "Limits";

/// The settings that most installations touch, each with an example.
const FIRST: &[(&str, &str)] = &[
    ("HOST", "0.0.0.0"),
    ("PORT", "8080"),
    ("QUIC_PORT", "443"),
    ("TLS_CERT_PATH", "/etc/letsencrypt/live/tandem.example/fullchain.pem"),
    ("TLS_KEY_PATH", "/etc/letsencrypt/live/tandem.example/privkey.pem"),
    ("TRUSTED_PROXIES", "10.0.0.0/8"),
    ("ALLOWED_ORIGINS", "https://watch.example"),
    ("ALLOWED_MEDIA_HOSTS", "films.example, *.cdn.example"),
    ("DATA_DIR", "/var/lib/tandem"),
    ("DATABASE_URL", "postgres://tandem:password@postgres/tandem"),
    ("REDIS_URL", "redis://:password@redis:6379/0"),
    ("LOG_LEVEL", "debug"),
];

/// Section, name, default, meaning.
type SettingRow = (&'static str, &'static str, &'static str, &'static str);

const TABLE: &[SettingRow] = &[
    (LISTENERS, "HOST", "127.0.0.1", "address that all listeners bind to"),
    (
        LISTENERS,
        "PORT",
        "4001",
        "TCP: plain HTTP and WebSocket, for this machine, probes, metrics, or behind a proxy that ends TLS",
    ),
    (
        LISTENERS,
        "QUIC_PORT",
        "4433",
        "UDP: QUIC (HTTP/3, WebTransport); the same number on TCP: HTTPS and WSS; `off`: neither",
    ),
    (
        LISTENERS,
        "PUBLIC_HOST",
        "",
        "host name that clients are told, where the Host header of their requests is not the right one",
    ),
    (
        LISTENERS,
        "BASE_PATH",
        "",
        "path under which a proxy shows this server, such as /watch, where the proxy passes it on; both paths are answered",
    ),
    (
        LISTENERS,
        "NODE_URL",
        "",
        "address by which clients reach this very node, such as https://b.example:4433: clients of other nodes go on there when theirs is gone",
    ),
    (
        LISTENERS,
        "QUIC_ENDPOINTS",
        "",
        "UDP sockets that share QUIC_PORT, each with a task that does its clients' QUIC (1-32); unset: one for two cores, at most 16",
    ),
    (
        LISTENERS,
        "QUIC_SHARED_SECRET",
        "",
        "32 bytes or more, the same on all nodes behind one address and after a restart: QUIC clients that reach a process which \
         doesn't know them are told at once; unset: they notice by silence",
    ),
    (
        LISTENERS,
        "QUIC_SERVER_ID",
        "",
        "id of this node in its QUIC connection ids, for load balancers that route by it (QUIC-LB): 0x and 2-16 hex digits, or an IPv4 address",
    ),
    (
        LISTENERS,
        "AWS_LBC_QUIC_SERVER_ID",
        "",
        "instead of QUIC_SERVER_ID: what the AWS Load Balancer Controller injects",
    ),
    (
        LISTENERS,
        "TRUSTED_PROXIES",
        "",
        "whose X-Forwarded-For, -Proto, -Host and -Prefix are believed on PORT: how many proxies, or a list of their networks",
    ),
    (
        TLS,
        "TLS_CERT_PATH",
        "",
        "PEM certificate chain, read again when it changes; unset: a self-signed certificate, renewed while running",
    ),
    (TLS, "TLS_KEY_PATH", "", "PEM private key of that certificate"),
    (TLS, "CERTS_DIR", "./certs", "where the self-signed certificate is kept between starts"),
    (STORAGE, "DATA_DIR", "./data", "where the SQLite file is"),
    (
        STORAGE,
        "MAX_DATABASE_MB",
        "4096",
        "most that the SQLite file may have, MiB (64-1048576); near it the oldest of the history goes before its time",
    ),
    (STORAGE, "REDIS_URL", "", "log shared by several nodes; unset: in memory, one node. Needs PostgreSQL"),
    (STORAGE, "REDIS_HOST", "", "instead of REDIS_URL: host"),
    (STORAGE, "REDIS_PORT", "", "instead of REDIS_URL: port (6379)"),
    (STORAGE, "REDIS_PASSWORD", "", "instead of REDIS_URL: password"),
    (STORAGE, "REDIS_DB", "", "instead of REDIS_URL: database (0)"),
    (
        STORAGE,
        "REDIS_CA_PATH",
        "",
        "PEM certificates of the authorities that rediss:// trusts; unset: the machine's. PostgreSQL's: sslrootcert in DATABASE_URL",
    ),
    (
        STORAGE,
        "REDIS_OUTBOX_MB",
        "256",
        "what commits that wait for the database, or for other readers, may take of Redis' memory, MiB (16-65536); the oldest go first",
    ),
    (STORAGE, "DATABASE_URL", "", "PostgreSQL; unset: SQLite in DATA_DIR"),
    (STORAGE, "POSTGRES_HOST", "", "instead of DATABASE_URL: host"),
    (STORAGE, "POSTGRES_PORT", "", "instead of DATABASE_URL: port (5432)"),
    (STORAGE, "POSTGRES_DB", "", "instead of DATABASE_URL: database (tandem)"),
    (STORAGE, "POSTGRES_USER", "", "instead of DATABASE_URL: user (postgres)"),
    (STORAGE, "POSTGRES_PASSWORD", "", "instead of DATABASE_URL: password"),
    (STORAGE, "POSTGRES_POOL_SIZE", "10", "connections to PostgreSQL"),
    (
        ACCESS,
        "ALLOWED_ORIGINS",
        "*",
        "origins that may open sessions besides the server's own page: a list of https://example.org, chrome-extension://*, or *",
    ),
    (
        ACCESS,
        "ALLOWED_MEDIA_HOSTS",
        "",
        "hosts that films may come from: a list of example.org, *.example.org, * (any public host); unset: any public host. \
         Hosts of private networks only where the list names them",
    ),
    (
        ACCESS,
        "RATE_LIMITS",
        "on",
        "`off` lifts every rate per session, address and room (load tests, trusted networks); sizes and ranges always hold",
    ),
    (
        ACCESS,
        "SHARE_URL_TEMPLATE",
        "/#room={room}",
        "where a short link leads; v2 sites set https://www.netflix.com/?tandemRoom={room}",
    ),
    (WEBRTC, "ICE_URLS", "", "STUN servers for the clients: a list of stun:host:port"),
    (WEBRTC, "TURN_URLS", "", "TURN servers for the clients: a list of turn:host:port"),
    (WEBRTC, "TURN_SECRET", "", "secret shared with those TURN servers (their use-auth-secret)"),
    (WEBRTC, "TURN_TTL_SECS", "3600", "life of a TURN credential, s"),
    (OPERATION, "NODE_ID", "", "name of this node; unset: made from the machine's name and a random number"),
    (
        OPERATION,
        "LOG_LEVEL",
        "info",
        "error, warn, info, debug, trace (the last two of this server, not its libraries), or a list such as info,tandem::hub=debug",
    ),
    (OPERATION, "LOG_FORMAT", "", "pretty or json; unset: pretty on a terminal, else json"),
    (
        OPERATION,
        "OTLP_ENDPOINT",
        "",
        "OpenTelemetry collector that gets traces, such as http://collector:4318 (OTLP, protobuf over HTTP); unset: nothing is traced",
    ),
    (
        OPERATION,
        "OTLP_CA_PATH",
        "",
        "PEM certificates of the authorities that an https:// collector's is checked against; unset: the machine's",
    ),
    (OPERATION, "OTLP_SAMPLE_PERCENT", "100", "share of the requests that are traced (0-100)"),
];

/// Secrets, each with the setting that names a file with it. Of the two URLs only the password is hidden.
pub const SECRETS: &[(&str, &str)] = &[
    ("QUIC_SHARED_SECRET", "QUIC_SHARED_SECRET_FILE"),
    ("REDIS_URL", "REDIS_URL_FILE"),
    ("REDIS_PASSWORD", "REDIS_PASSWORD_FILE"),
    ("DATABASE_URL", "DATABASE_URL_FILE"),
    ("POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE"),
    ("TURN_SECRET", "TURN_SECRET_FILE"),
];

/// The setting that names the file of this secret.
pub fn file_of(name: &str) -> Option<&'static str> {
    SECRETS.iter().find(|(secret, _)| *secret == name).map(|(_, file)| *file)
}

/// The whole table, the limits included.
pub fn all() -> Vec<Setting> {
    let plain = TABLE.iter().flat_map(|&(group, name, default, meaning)| {
        let file = file_of(name);
        let setting = Setting {
            name,
            default: default.to_owned(),
            meaning: meaning.to_owned(),
            example: None,
            secret: file.is_some(),
            group,
        };
        let meaning = format!("instead of {name}: a file that holds it, which nobody sees in the list of processes");
        let file =
            file.map(|name| Setting { name, default: String::new(), meaning, example: None, secret: false, group });
        std::iter::once(setting).chain(file)
    });
    let limits = Limits::TABLE.iter().map(|row| Setting {
        name: row.setting,
        default: row.default.to_string(),
        meaning: format!("{} ({}-{})", row.meaning, row.range.0, row.range.1),
        example: None,
        secret: false,
        group: LIMITS_GROUP,
    });
    let mut all: Vec<Setting> = plain.chain(limits).collect();
    let place = |name| FIRST.iter().position(|(first, _)| *first == name).unwrap_or(FIRST.len());
    all.sort_by_key(|setting| place(setting.name));
    for (setting, (_, example)) in all.iter_mut().zip(FIRST) {
        (setting.group, setting.example) = (FIRST_GROUP, Some(*example));
    }
    all
}

/// The text of `.env.example`.
pub fn env_example() -> String {
    let mut text = String::from(
        "# Every setting with its default. Each is also a flag of the same name (QUIC_PORT: --quic-port).\n\
         # Made from src/config/settings.rs; a test compares.\n",
    );
    let mut group = "";
    for setting in all() {
        if setting.group != group {
            group = setting.group;
            let _ = write!(text, "\n## {group}\n");
        }
        let example = setting.example.map(|example| format!("; such as {example}")).unwrap_or_default();
        let _ = write!(text, "# {}{example}\n#{}={}\n", setting.meaning, setting.name, setting.default);
    }
    text
}

/// The same as tables for the documentation: the first settings, the others, the limits.
pub fn markdown() -> String {
    let mut text = String::new();
    for section in [FIRST_GROUP, "The others", LIMITS_GROUP] {
        let is_first = section == FIRST_GROUP;
        let columns = if is_first { "| default | such as | meaning |" } else { "| default | meaning |" };
        let rule = if is_first { "|---|---|---|---|" } else { "|---|---|---|" };
        let _ = write!(text, "### {section}\n\n| setting {columns}\n{rule}\n");
        let is_here = |setting: &Setting| match setting.group {
            FIRST_GROUP | LIMITS_GROUP => setting.group == section,
            _ => section == "The others",
        };
        for setting in all().into_iter().filter(is_here) {
            let default =
                if setting.default.is_empty() { "unset".to_owned() } else { format!("`{}`", setting.default) };
            let example = setting.example.map(|example| format!("| `{example}` ")).unwrap_or_default();
            let _ = writeln!(text, "| `{}` | {default} {example}| {} |", setting.name, setting.meaning);
        }
        text.push('\n');
    }
    text
}
