//! The texts of the settings before they are parsed: a flag wins over the environment, the environment over the
//! default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use super::settings::{self, Setting};
use super::{ConfigError, database};

/// A copy of the environment.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// The process's own.
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    /// Names that nothing reads: they begin with `TANDEM_`, or differ from a setting by at most two characters.
    pub(super) fn unknown(&self) -> Vec<Unknown> {
        // Kubernetes sets service links in every pod of a namespace with a Service called "tandem…".
        let numbered =
            |name: &str| name.split("_PORT_").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let link = |name: &str, value: &OsString| {
            name.contains("_SERVICE_") || numbered(name) || value.to_str().is_some_and(|value| value.contains("://"))
        };
        let settings = settings::all();
        let looks_like_ours = |(name, value): (&String, &OsString)| {
            if settings.iter().any(|setting| setting.name == name) || link(name, value) {
                return None;
            }
            let bare = name.strip_prefix("TANDEM_");
            let meant = settings
                .iter()
                .map(|setting| setting.name)
                .find(|setting| bare == Some(*setting) || (setting.len() >= 8 && is_slip(name, setting)));
            (bare.is_some() || meant.is_some()).then(|| Unknown { name: name.clone(), meant })
        };
        self.0.iter().filter_map(looks_like_ours).collect()
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

/// A name in the environment that looks like a setting and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    pub name: String,
    /// The setting that was probably meant.
    pub meant: Option<&'static str>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no setting of tandem", self.name)?;
        match self.meant {
            Some(meant) => write!(f, "; {meant} is one"),
            None => Ok(()),
        }
    }
}

/// Whether the edit distance (Levenshtein) is at most two.
fn is_slip(one: &str, other: &str) -> bool {
    const MOST: usize = 2;
    if one.len().abs_diff(other.len()) > MOST {
        return false;
    }
    // A row of the distance matrix at a time.
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (n, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], n + 1);
        for (m, b) in other.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[m + 1];
            row[m + 1] = change.min(row[m] + 1).min(diagonal + 1);
        }
    }
    row[other.len()] <= MOST
}

/// Origin of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Flag,
    Environment,
    /// The file that `…_FILE` names.
    File,
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// The text and the origin of each setting.
#[derive(Debug, Clone)]
pub struct Raw(BTreeMap<&'static str, (String, Source)>);

impl Raw {
    /// An empty variable counts as unset: compose files and manifests make one of a missing value.
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

    /// Reads the secrets that are in files; one that can't be read is an error and stays unset.
    pub(super) fn read_secrets(&mut self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        for &(name, file) in settings::SECRETS {
            let Some(path) = self.text(file).map(str::to_owned) else { continue };
            if self.text(name).is_some() {
                let why = "say it in one way: the value, or the file that holds it";
                errors.push(ConfigError::Contradiction { name, other: file, why });
                continue;
            }
            match read_secret(&path) {
                Ok(secret) => {
                    self.0.insert(name, (secret, Source::File));
                }
                Err(why) => errors.push(ConfigError::Wrong { name: file, value: shown(&path), why }),
            }
        }
        errors
    }

    /// Resets a setting to its default; returns whether it had been set.
    pub(super) fn put_aside(&mut self, name: &str) -> bool {
        let setting = settings::all().into_iter().find(|setting| setting.name == name);
        let Some(setting) = setting.filter(|_| self.source(name) != Source::Default) else { return false };
        self.0.insert(setting.name, (setting.default, Source::Default));
        true
    }

    /// The text of a setting; `None`: unset.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|(value, _)| value.trim()).filter(|value| !value.is_empty())
    }

    pub(super) fn source(&self, name: &str) -> Source {
        self.0.get(name).map_or(Source::Default, |(_, source)| *source)
    }

    /// The parsed value; the error names the setting, and hides a secret's value.
    pub(super) fn parsed<T, E: std::fmt::Display>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let value = if settings::file_of(name).is_some() { "(hidden)".to_owned() } else { shown(text) };
        parse(text).map(Some).map_err(|why| ConfigError::Wrong { name, value, why: why.to_string() })
    }

    /// [`Raw::parsed`] for a setting that has a default.
    pub(super) fn required<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        self.parsed(name, parse)?.ok_or(ConfigError::Missing { name })
    }
}

/// The content of a secret's file without the end of its line.
fn read_secret(path: &str) -> Result<String, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let text = String::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
    let secret = text.trim();
    if secret.is_empty() { Err("it is empty".to_owned()) } else { Ok(secret.to_owned()) }
}

/// A wrong value as one line of at most 200 characters. A URL with credentials is shown without them.
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
