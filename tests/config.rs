//! Settings: what is accepted, what is refused and in which words.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use secrecy::ExposeSecret;
use tandem::config::cli::{CliCommand, CliError, parse};
use tandem::config::{Config, Environment, settings};
use tandem::domain::Limits;
use tandem::transport::quic::ServerId;
use tandem::transport::tls::CertSource;

fn config(environment: &[(&str, &str)], flags: &[&str]) -> Result<Config, String> {
    let arguments = ["tandem"].iter().chain(flags).copied().collect::<Vec<_>>();
    match parse(arguments, &environment.iter().copied().collect::<Environment>()) {
        Ok(CliCommand::Serve(config) | CliCommand::CheckConfig(config)) => Ok(*config),
        Ok(other) => panic!("{other:?}"),
        Err(CliError::Config(error)) => Err(error.to_string()),
        Err(CliError::Usage(error)) => Err(error.to_string()),
    }
}

#[test]
fn nothing_configured_is_a_laptop_on_loopback() {
    let config = config(&[], &[]).unwrap();
    assert_eq!(config.host.to_string(), "127.0.0.1");
    assert_eq!((config.port, config.quic_port), (4001, Some(4433)));
    assert!(config.redis.is_none() && config.postgres.is_none());
    assert!(config.rate_limits && config.allowed_origins.allows("https://anywhere.example"));
    assert!(config.media.any_public() && config.media.loopback());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.share_url.as_str(), "/#room={room}");
    let CertSource::SelfSigned { dir, names } = config.certificate else { panic!("self-signed") };
    assert_eq!(dir.to_str(), Some("./certs"));
    assert_eq!(names[..3], ["localhost", "127.0.0.1", "::1"]);
}

#[test]
fn every_setting_is_a_variable_and_a_flag_and_the_flag_wins() {
    assert_eq!(config(&[("QUIC_PORT", "5000")], &[]).unwrap().quic_port, Some(5000));
    assert_eq!(config(&[("QUIC_PORT", "5000")], &["--quic-port", "5001"]).unwrap().quic_port, Some(5001));
    assert_eq!(config(&[], &["--quic-port=off", "check-config"]).unwrap().quic_port, None);
    assert_eq!(config(&[], &["check-config", "--quic-port", "5002"]).unwrap().quic_port, Some(5002));
    for row in Limits::TABLE {
        let (flag, least) = (format!("--{}", row.setting.to_lowercase().replace('_', "-")), row.range.0.to_string());
        // A single limit may contradict another one; it must not be unknown or out of range.
        for outcome in [config(&[(row.setting, &least)], &[]), config(&[], &[&flag, &least])] {
            match outcome {
                Ok(config) => assert_eq!(config.limits.value(row.setting), Some(row.range.0), "{}", row.setting),
                Err(error) => assert!(error.contains(" and "), "{error}"),
            }
        }
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    assert_eq!(config(&[("PORT", ""), ("REDIS_URL", " "), ("TLS_CERT_PATH", "")], &[]).unwrap().port, 4001);
}

#[test]
fn a_wrong_value_is_one_line_that_names_the_variable() {
    for (name, value) in [
        ("HOST", "example.org"),
        ("PORT", "70000"),
        ("PORT", "http"),
        ("QUIC_PORT", "-1"),
        ("PUBLIC_HOST", "https://example.org"),
        ("QUIC_ENDPOINTS", "0"),
        ("QUIC_ENDPOINTS", "33"),
        ("QUIC_ENDPOINTS", "all"),
        ("QUIC_SERVER_ID", "zz"),
        ("QUIC_SERVER_ID", "0x2d6"),
        ("QUIC_SERVER_ID", "0x2d\n65"),
        ("QUIC_SERVER_ID", "0x112233445566778899"),
        ("AWS_LBC_QUIC_SERVER_ID", "0x1122334455667788"),
        ("AWS_LBC_QUIC_SERVER_ID", "0x11"),
        ("QUIC_SHARED_SECRET", "hush"),
        ("TRUSTED_PROXIES", "10.0.0.0/99"),
        ("REDIS_URL", "http://example.org"),
        ("REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("DATABASE_URL", "mysql://example.org/tandem"),
        ("POSTGRES_POOL_SIZE", "0"),
        ("ALLOWED_ORIGINS", "example.org"),
        ("ALLOWED_MEDIA_HOSTS", "https://example.org"),
        ("RATE_LIMITS", "maybe"),
        ("SHARE_URL_TEMPLATE", "https://example.org/"),
        ("ICE_URLS", "turn:example.org"),
        ("TURN_URLS", "stun:example.org"),
        ("TURN_TTL_SECS", "5"),
        ("NODE_ID", "node one"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("OTLP_ENDPOINT", "collector:4318"),
        ("OTLP_ENDPOINT", "grpc://collector:4317"),
        ("OTLP_SAMPLE_PERCENT", "101"),
        ("OTLP_SAMPLE_PERCENT", "50%"),
        ("MAX_USERNAME_CHARS", "0"),
        ("MAX_USERNAME_CHARS", "many"),
        ("MEMBER_GRACE_SECS", "3601"),
    ] {
        let error = config(&[(name, value)], &[]).expect_err(name);
        assert!(error.starts_with(&format!("{name}=")) && !error.contains('\n'), "{name}={value} says: {error}");
    }
    let error = config(&[("REDIS_PORT", "tcp://10.0.0.1:6379")], &[]).unwrap_err();
    assert!(error.contains("enableServiceLinks"), "{error}");
}

#[test]
fn settings_that_need_or_contradict_each_other_are_both_named() {
    for (environment, one, other) in [
        (&[("PORT", "4433")][..], "PORT", "QUIC_PORT"),
        (&[("TLS_CERT_PATH", "a")], "TLS_CERT_PATH", "TLS_KEY_PATH"),
        (&[("TLS_KEY_PATH", "a")], "TLS_KEY_PATH", "TLS_CERT_PATH"),
        (
            &[("QUIC_SERVER_ID", "0x01"), ("AWS_LBC_QUIC_SERVER_ID", "LWV1oW+gjqQ=")],
            "QUIC_SERVER_ID",
            "AWS_LBC_QUIC_SERVER_ID",
        ),
        (&[("TURN_URLS", "turn:a")], "TURN_URLS", "TURN_SECRET"),
        (&[("TURN_SECRET", "a")], "TURN_SECRET", "TURN_URLS"),
        (&[("REDIS_PASSWORD", "a")], "REDIS_PASSWORD", "REDIS_HOST"),
        (&[("POSTGRES_PORT", "1")], "POSTGRES_PORT", "POSTGRES_HOST"),
        (&[("POSTGRES_USER", "a")], "POSTGRES_USER", "POSTGRES_HOST"),
        (&[("DATABASE_URL", "postgres://a"), ("POSTGRES_HOST", "b")], "DATABASE_URL", "POSTGRES_HOST"),
        (&[("OTLP_CA_PATH", "a")], "OTLP_CA_PATH", "OTLP_ENDPOINT"),
        (&[("OTLP_CA_PATH", "a"), ("OTLP_ENDPOINT", "http://collector:4318")], "OTLP_CA_PATH", "OTLP_ENDPOINT"),
        (&[("HEARTBEAT_SECS", "15")], "HEARTBEAT_SECS", "IDLE_SECS"),
        (&[("GATE_QUORUM_MS", "7001")], "GATE_QUORUM_MS", "GATE_DEADLINE_MS"),
        (&[("MAX_MESSAGE_BYTES", "20000")], "MAX_MESSAGE_BYTES", "MAX_SIGNAL_BYTES"),
        (&[("MAX_OUTBOX_BYTES", "65536"), ("MAX_MESSAGE_BYTES", "70000")], "MAX_OUTBOX_BYTES", "MAX_MESSAGE_BYTES"),
    ] {
        let error = config(environment, &[]).expect_err(one);
        assert!(error.contains(one) && error.contains(other) && !error.contains('\n'), "{environment:?} says: {error}");
    }
}

#[test]
fn a_server_id_comes_from_the_operator_or_from_aws() {
    let id = |environment: &[(&str, &str)]| config(environment, &[]).unwrap().quic_identity.server_id;
    let wanted = ServerId::parse("0x2d6575a16fa08ea4").ok();
    assert_eq!(id(&[("QUIC_SERVER_ID", "0x2d6575a16fa08ea4")]), wanted);
    assert_eq!(id(&[("AWS_LBC_QUIC_SERVER_ID", "LWV1oW+gjqQ=")]), wanted);
    assert_eq!(id(&[]), None);
    let error = config(&[("QUIC_SHARED_SECRET", "hush")], &[]).unwrap_err();
    assert!(error.contains("fewer than 32") && !error.contains("hush"), "{error}");
}

#[test]
fn redis_without_postgresql_is_refused_with_the_reason() {
    let error = config(&[("REDIS_URL", "redis://cache:6379")], &[]).unwrap_err();
    assert!(error.contains("REDIS_URL") && error.contains("PostgreSQL") && error.contains("history"), "{error}");
    assert!(config(&[("REDIS_HOST", "cache")], &[]).is_err());
    let both = config(&[("REDIS_HOST", "cache"), ("POSTGRES_HOST", "db")], &[]).unwrap();
    assert_eq!(both.redis.unwrap().url.expose_secret(), "redis://cache:6379/0");
    assert_eq!(both.postgres.unwrap().url.expose_secret(), "postgres://postgres@db:5432/tandem");
    assert!(config(&[("DATABASE_URL", "postgres://db/tandem")], &[]).unwrap().postgres.is_some());
}

#[test]
fn redis_authorities_go_with_a_url_that_encrypts() {
    let with = |url: &'static str| {
        let environment = [("REDIS_URL", url), ("DATABASE_URL", "postgres://db"), ("REDIS_CA_PATH", "/etc/ca.pem")];
        config(&environment, &[]).map(|config| config.redis.unwrap().ca)
    };
    for url in ["rediss://cache", "valkeys://cache", "redis-sentinel://a/b?tls=true"] {
        assert_eq!(with(url).unwrap().unwrap().to_str(), Some("/etc/ca.pem"), "{url}");
    }
    for url in ["redis://cache", "redis-sentinel://a/b"] {
        let error = with(url).unwrap_err();
        assert!(error.contains("REDIS_CA_PATH") && error.contains("rediss://") && !error.contains('\n'), "{error}");
    }
    assert!(config(&[("REDIS_CA_PATH", "/etc/ca.pem")], &[]).unwrap_err().contains("REDIS_CA_PATH"));
}

#[test]
fn parts_of_a_url_are_put_together_with_the_password_encoded() {
    let environment = [
        ("REDIS_HOST", "::1"),
        ("REDIS_PORT", "7000"),
        ("REDIS_PASSWORD", "p@ss/w:rd"),
        ("REDIS_DB", "3"),
        ("POSTGRES_HOST", "db"),
        ("POSTGRES_USER", "tan"),
        ("POSTGRES_PASSWORD", "a#b"),
        ("POSTGRES_DB", "watch"),
    ];
    let config = config(&environment, &[]).unwrap();
    assert_eq!(config.redis.unwrap().url.expose_secret(), "redis://:p%40ss%2Fw%3Ard@[::1]:7000/3");
    assert_eq!(config.postgres.unwrap().url.expose_secret(), "postgres://tan:a%23b@db:5432/watch");
}

#[test]
fn the_report_shows_every_setting_and_no_secret() {
    let environment = [
        ("REDIS_URL", "redis://user:hush1@cache/0"),
        ("DATABASE_URL", "postgres://tan:hush2@db/tandem?password=hush3"),
        ("TURN_URLS", "turn:turn.example"),
        ("TURN_SECRET", "url://like/hush4"),
        ("QUIC_SHARED_SECRET", "hush5, and more of it, thirty-two bytes"),
        ("PORT", "4002"),
    ];
    let config = config(&environment, &["check-config", "--log-level", "debug"]).unwrap();
    let report = config.report();
    for setting in settings::all() {
        assert!(report.contains(&format!("{}=", setting.name)), "{} is missing", setting.name);
    }
    assert!(!report.contains("hush") && !format!("{config:?}").contains("hush"), "{report}");
    assert!(report.contains("REDIS_URL=redis://user:hidden@cache/0  # environment"), "{report}");
    assert!(report.contains("TURN_SECRET=(hidden)  # environment"), "{report}");
    assert!(report.contains("PORT=4002  # environment") && report.contains("LOG_LEVEL=debug  # flag"), "{report}");
    assert!(report.contains("HOST=127.0.0.1  # default"), "{report}");
    assert!(report.contains(&format!("NODE_ID={}", config.node)), "{report}");
}

#[test]
fn a_wrong_secret_is_not_repeated() {
    let error = config(&[("REDIS_URL", "hush://hush@hush")], &[]).unwrap_err();
    assert!(error.starts_with("REDIS_URL=") && !error.contains("hush"), "{error}");
    for value in ["https://key:hush@collector", "htp//key:hush@collector", "htp://key:hush@collector"] {
        let error = config(&[("OTLP_ENDPOINT", value)], &[]).unwrap_err();
        assert!(error.starts_with("OTLP_ENDPOINT=") && !error.contains("hush"), "{error}");
    }
}

#[test]
fn unknown_tandem_names_are_reported_and_kubernetes_links_are_not() {
    let environment = [
        ("TANDEM_QUIC_PORT", "1"),
        ("TANDEM_SERVICE_HOST", "10.0.0.1"),
        ("TANDEM_PORT", "tcp://10.0.0.1:80"),
        ("TANDEM_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("OTHER", "1"),
    ];
    let unknown = config(&environment, &[]).unwrap().unknown;
    assert_eq!(
        unknown.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["TANDEM_QUIC_PORT is no setting of tandem; QUIC_PORT is one"]
    );
    assert!(config(&[], &["--quik-port", "1"]).unwrap_err().contains("--quik-port"));
}

#[test]
fn a_name_that_is_a_slip_of_the_pen_is_reported_and_what_others_use_is_not() {
    let slips = [("TURN_URL", "TURN_URLS"), ("MAX_SESSION", "MAX_SESSIONS"), ("ALOWED_ORIGINS", "ALLOWED_ORIGINS")];
    for (name, meant) in slips {
        let unknown = config(&[(name, "1")], &[]).unwrap().unknown;
        assert_eq!(unknown.len(), 1, "{name}");
        assert_eq!((unknown[0].name.as_str(), unknown[0].meant), (name, Some(meant)));
    }
    for name in
        ["PATH", "HOME", "HOSTNAME", "NODE_ENV", "NODE_IP", "LOGNAME", "PORTS", "POSTGRES_INITDB_ARGS", "DATABASE"]
    {
        assert_eq!(config(&[(name, "1")], &[]).unwrap().unknown, [], "{name}");
    }
}

#[test]
fn all_wrong_settings_are_told_at_once_a_line_each() {
    let environment = [
        ("PORT", "http"),
        ("LOG_LEVEL", "loud"),
        ("MAX_USERNAME_CHARS", "0"),
        ("TLS_CERT_PATH", "a"),
        ("REDIS_URL", "redis://cache"),
        ("DATABASE_URL", "mysql://db"),
        ("GATE_QUORUM_MS", "7001"),
        ("QUIC_SHARED_SECRET_FILE", "/nowhere/at/all"),
    ];
    let error = config(&environment, &[]).unwrap_err();
    let mut told: Vec<&str> = error.lines().map(|line| line.split(['=', ' ']).next().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "DATABASE_URL",
            "GATE_QUORUM_MS",
            "LOG_LEVEL",
            "MAX_USERNAME_CHARS",
            "PORT",
            "QUIC_SHARED_SECRET_FILE",
            "TLS_CERT_PATH"
        ],
        "and nothing of REDIS_URL, which only lacks what is wrong already: {error}"
    );
}

#[test]
fn every_secret_can_be_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let secrets: BTreeSet<_> =
        settings::all().into_iter().filter(|setting| setting.secret).map(|setting| setting.name).collect();
    assert_eq!(secrets, settings::SECRETS.iter().map(|(name, _)| *name).collect());
    let (redis, database) = (file("r", "redis://u:hush@cache/0\n"), file("d", "postgres://u:hush@db/tandem\n"));
    let (turn, quic) = (file("t", "hush\r\n"), file("q", "hush, and thirty-two bytes of it or more"));
    let environment = [("REDIS_URL_FILE", &*redis), ("TURN_SECRET_FILE", &*turn), ("TURN_URLS", "turn:turn.example")];
    let config_of = |more: &[(&str, &str)], flags: &[&str]| config(&[&environment[..], more].concat(), flags);
    let flags = ["--database-url-file", &database, "--quic-shared-secret-file", &quic];
    let config = config_of(&[], &flags).unwrap();
    assert_eq!(config.redis.as_ref().unwrap().url.expose_secret(), "redis://u:hush@cache/0");
    assert_eq!(config.postgres.as_ref().unwrap().url.expose_secret(), "postgres://u:hush@db/tandem");
    assert!(config.ice.turn.is_some() && config.quic_identity.secret.is_some());
    assert!(
        !config.report().contains("hush") && config.report().contains("TURN_SECRET=(hidden)  # file"),
        "{}",
        config.report()
    );
    let parts = [
        ("REDIS_PASSWORD_FILE", &*turn),
        ("REDIS_HOST", "cache"),
        ("POSTGRES_PASSWORD_FILE", &*turn),
        ("POSTGRES_HOST", "db"),
    ];
    let config = self::config(&parts, &[]).unwrap();
    assert_eq!(config.redis.unwrap().url.expose_secret(), "redis://:hush@cache:6379/0");
    assert_eq!(config.postgres.unwrap().url.expose_secret(), "postgres://postgres:hush@db:5432/tandem");
    let both = config_of(&[("TURN_SECRET", "hush")], &flags).unwrap_err();
    assert!(both.contains("TURN_SECRET and TURN_SECRET_FILE") && !both.contains('\n'), "{both}");
    let empty = self::config(&[("TURN_SECRET_FILE", &file("e", " \n")), ("TURN_URLS", "turn:a")], &[]).unwrap_err();
    assert!(empty.starts_with("TURN_SECRET_FILE=") && empty.contains("empty") && !empty.contains('\n'), "{empty}");
    let help = self::config(&[], &["--help"]).unwrap_err();
    assert!(help.contains("--redis-url-file") && help.contains("ps"), "{help}");
}

#[test]
fn two_nodes_of_one_machine_are_named_differently() {
    assert_ne!(config(&[], &[]).unwrap().node, config(&[], &[]).unwrap().node);
    assert_eq!(config(&[("NODE_ID", "pod-1")], &[]).unwrap().node.as_str(), "pod-1");
}

#[test]
fn health_asks_the_configured_port_even_when_other_settings_are_wrong() {
    let asks = |environment: &[(&str, &str)], flags: &[&str]| {
        let arguments = ["tandem", "health"].iter().chain(flags).copied().collect::<Vec<_>>();
        match parse(arguments, &environment.iter().copied().collect::<Environment>()) {
            Ok(CliCommand::Health(url)) => url.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asks(&[], &[]), "http://127.0.0.1:4001/health");
    assert_eq!(asks(&[("HOST", "0.0.0.0"), ("PORT", "80"), ("LOG_LEVEL", "loud")], &[]), "http://127.0.0.1:80/health");
    assert_eq!(asks(&[("HOST", "::")], &[]), "http://127.0.0.1:4001/health");
    assert_eq!(asks(&[], &["--url", "http://b:1/ready"]), "http://b:1/ready");
}

#[test]
fn env_example_is_made_from_the_table() {
    let expected = settings::env_example();
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/env.example");
    if include_str!("../.env.example") != expected {
        std::fs::write(path, &expected).unwrap();
        panic!(".env.example is not what the table says: cp {path} .env.example");
    }
    for line in settings::env_example().lines().filter(|line| line.contains('=') && !line.starts_with("# ")) {
        assert!(line.starts_with('#'), "every default is a comment, so that copying the file changes nothing: {line}");
    }
}

#[test]
fn help_is_a_command_too() {
    let help = config(&[], &["help"]).unwrap_err();
    assert!(help.contains("--quic-port") && help.contains("check-config"), "{help}");
}

#[test]
fn a_certificate_of_ones_own_names_the_machine_and_the_addresses_that_are_bound() {
    let names = |settings: &[(&str, &str)]| match config(settings, &[]).unwrap().certificate {
        CertSource::SelfSigned { names, .. } => names,
        CertSource::Files { .. } => panic!("self-signed"),
    };
    let machine = config(&[], &[]).unwrap().machine;
    let (alone, open) = (names(&[]), names(&[("HOST", "0.0.0.0"), ("PUBLIC_HOST", "tandem.example")]));
    for address in machine.addresses.iter().map(ToString::to_string) {
        assert!(open.contains(&address) && !alone.contains(&address), "{address}: {open:?}");
    }
    if let Some(name) = machine.name.filter(|name| !name.contains('.')) {
        assert!(alone.contains(&name) && open.contains(&format!("{name}.local")), "{open:?}");
    }
    assert!(open.contains(&"tandem.example".to_owned()));
    assert!(names(&[("HOST", "192.0.2.7")]).contains(&"192.0.2.7".to_owned()));
}

#[test]
fn help_names_every_setting() {
    let help = config(&[], &["--help"]).unwrap_err();
    for setting in settings::all() {
        assert!(help.contains(&format!("--{}", setting.flag())), "{}", setting.name);
    }
}

#[test]
fn the_settings_that_most_installations_touch_stand_first_each_with_an_example() {
    let short = config(&[], &["-h"]).unwrap_err();
    let (first, others): (Vec<_>, Vec<_>) =
        settings::all().into_iter().partition(|setting| setting.group == settings::FIRST_GROUP);
    assert!((10..=14).contains(&first.len()), "about a dozen: {first:?}");
    for setting in &first {
        assert!(short.contains(&format!("--{}", setting.flag())), "{}", setting.name);
        let example = setting.example.expect("an example");
        let config = match setting.name {
            "TLS_CERT_PATH" | "TLS_KEY_PATH" => config(&[("TLS_CERT_PATH", example), ("TLS_KEY_PATH", example)], &[]),
            "REDIS_URL" => config(&[("REDIS_URL", example), ("DATABASE_URL", "postgres://tandem@db/tandem")], &[]),
            name => config(&[(name, example)], &[]),
        };
        assert!(config.is_ok(), "{}={example}: {config:?}", setting.name);
    }
    let shown = others.iter().find(|setting| short.contains(&format!("--{} ", setting.flag())));
    assert!(shown.is_none(), "{shown:?}");
}
