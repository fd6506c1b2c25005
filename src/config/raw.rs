//! What was said, before it is understood: flags over environment over defaults.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use super::settings::{self, Setting};
use super::{ConfigError, database};

/// The environment, taken once.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// The process's own.
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    /// Names that look like ours but are no setting: nothing would read them.
    pub(super) fn unknown(&self) -> Vec<String> {
        // Kubernetes puts its own into every pod of a namespace with a Service called "tandem…".
        let numbered =
            |name: &str| name.split("_PORT_").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let link = |name: &str, value: &OsString| {
            name.contains("_SERVICE_") || numbered(name) || value.to_str().is_some_and(|value| value.contains("://"))
        };
        let ours = self.0.iter().filter(|(name, value)| name.starts_with("TANDEM_") && !link(name, value));
        ours.map(|(name, _)| name.clone()).collect()
    }

    /// The machine's name, if a container or shell says it.
    pub(super) fn hostname(&self) -> Option<String> {
        self.0.get("HOSTNAME")?.clone().into_string().ok()
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// Nobody.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::Default => "default",
        })
    }
}

/// One text for each setting.
#[derive(Debug)]
pub struct Raw(BTreeMap<&'static str, (String, Source)>);

impl Raw {
    /// An empty variable counts as unset: that is what compose files and manifests make of a missing value.
    pub fn gather(flags: &dyn Fn(&Setting) -> Option<String>, environment: &Environment) -> Result<Self, ConfigError> {
        let mut values = BTreeMap::new();
        for setting in settings::all() {
            let from_environment = match environment.0.get(setting.name) {
                Some(value) => {
                    Some(value.clone().into_string().map_err(|_| ConfigError::NotText { name: setting.name })?)
                }
                None => None,
            };
            let given = flags(&setting)
                .map(|value| (value, Source::Flag))
                .or(from_environment.map(|value| (value, Source::Environment)))
                .filter(|(value, _)| !value.trim().is_empty());
            values.insert(setting.name, given.unwrap_or((setting.default, Source::Default)));
        }
        Ok(Self(values))
    }

    /// The text of a setting; `None`: unset.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|(value, _)| value.trim()).filter(|value| !value.is_empty())
    }

    /// Who set it.
    pub(super) fn source(&self, name: &str) -> Source {
        self.0.get(name).map_or(Source::Default, |(_, source)| *source)
    }

    /// The text as something, or the error that names the setting.
    pub(super) fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let secret = settings::all().iter().any(|setting| setting.name == name && setting.secret);
        let value = if secret { "(hidden)".to_owned() } else { shown(text) };
        parse(text).map(Some).map_err(|why| ConfigError::Wrong { name, value, why })
    }

    /// As [`Raw::parsed`], for a setting that has a default.
    pub(super) fn required<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        self.parsed(name, parse)?.ok_or(ConfigError::Missing { name })
    }
}

/// A wrong value in one line of bearable length. A URL with credentials, where none belong, doesn't show them.
fn shown(text: &str) -> String {
    const CHARS: usize = 200;
    if text.contains("//") && text.contains('@') {
        return database::hidden(text);
    }
    let plain = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    let mut line: String = text.chars().take(CHARS).map(plain).collect();
    if text.chars().nth(CHARS).is_some() {
        line.push('…');
    }
    line
}
