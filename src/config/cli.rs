//! The command line: `tandem [serve] [--flags]`, `tandem check-config`, `tandem health [--url …]`.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr};

use clap::{Arg, ArgMatches, Command};

use super::settings::{self, Setting};
use super::{Config, ConfigError, ConfigErrors, Environment, Raw};
use crate::http::probe::ProbeUrl;

/// The command.
#[derive(Debug)]
pub enum CliCommand {
    Serve(Box<Config>),
    CheckConfig(Box<Config>),
    /// Ask a running server for its health.
    Health(ProbeUrl),
}

/// Why no command runs.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line can't be read, or asked for help: `clap::Error::exit` prints it and ends.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error(transparent)]
    Config(#[from] ConfigErrors),
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.into())
    }
}

/// Reads the process's own command line and environment.
pub fn from_process() -> Result<CliCommand, CliError> {
    parse(std::env::args_os(), &Environment::of_process())
}

/// Reads a command line (the program's name first) and an environment.
pub fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    environment: &Environment,
) -> Result<CliCommand, CliError> {
    let matches = clap().try_get_matches_from(arguments)?;
    let (name, of_command) = matches.subcommand().unwrap_or(("serve", &matches));
    // A flag may stand before or behind the command.
    let flag = |setting: &Setting| {
        let find = |matches: &ArgMatches| matches.get_one::<String>(setting.name).cloned();
        find(of_command).or_else(|| find(&matches))
    };
    let raw = Raw::gather(&flag, environment)?;
    if name == "health" {
        let url = of_command.get_one::<String>("url").cloned();
        return Ok(CliCommand::Health(match url {
            Some(url) => probe_url(&url)?,
            None => own_health(&raw)?,
        }));
    }
    let config = Box::new(Config::resolve(raw, environment)?);
    Ok(if name == "check-config" { CliCommand::CheckConfig(config) } else { CliCommand::Serve(config) })
}

/// Reads only HOST and PORT, so that a probe doesn't fail for other settings.
fn own_health(raw: &Raw) -> Result<ProbeUrl, ConfigError> {
    let host = raw.text("HOST").and_then(|host| host.parse::<IpAddr>().ok());
    let is_everywhere = host == Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let host = match host {
        _ if is_everywhere => "127.0.0.1".to_owned(),
        Some(IpAddr::V6(host)) => format!("[{host}]"),
        Some(host) if !host.is_unspecified() => host.to_string(),
        _ => "127.0.0.1".to_owned(),
    };
    let url = probe_url(&format!("http://{host}:{}/health", raw.text("PORT").unwrap_or_default()))?;
    // `::` is IPv4 too, and a container mostly has no IPv6 address to ask.
    Ok(if is_everywhere { url.or_at(IpAddr::V6(Ipv6Addr::LOCALHOST)) } else { url })
}

fn probe_url(url: &str) -> Result<ProbeUrl, ConfigError> {
    ProbeUrl::parse(url).map_err(|why| ConfigError::Wrong { name: "--url", value: url.to_owned(), why })
}

fn warning(setting: &Setting) -> String {
    let warning = |file| format!(" (a flag shows in ps: rather {file}, or the variable)");
    settings::file_of(setting.name).map(warning).unwrap_or_default()
}

fn clap() -> Command {
    let flags = settings::all().into_iter().map(|setting| {
        let default = if setting.default.is_empty() { "unset".to_owned() } else { setting.default.clone() };
        Arg::new(setting.name)
            .long(setting.flag())
            .value_name("VALUE")
            .help(format!("{}{} [{}, default: {default}]", setting.meaning, warning(&setting), setting.name))
            .help_heading(setting.group)
            .allow_hyphen_values(true)
            .hide_short_help(setting.group != settings::FIRST_GROUP)
            .global(true)
    });
    let url = Arg::new("url").long("url").value_name("URL").help("what to ask, instead of /health on HOST and PORT");
    Command::new("tandem")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Keeps a group's video players in step")
        .after_help(
            "Each flag is also an environment variable; the flag wins. --help shows all settings, -h the dozen that most installations touch.\n\
             A secret that is a flag is seen by everybody who may list processes (ps): give the file that holds it \
             (REDIS_URL_FILE and so on), or the variable.",
        )
        .args(flags)
        .subcommand(Command::new("serve").about("run the server (what happens without a command, too)"))
        .subcommand(Command::new("check-config").about("print the resolved configuration, secrets hidden"))
        .subcommand(Command::new("health").about("exit 0 if a server answers on PORT, else 1").arg(url))
}
