//! Reading configuration: environment over `.env` over default. Each crate has a `Config` with a
//! `load(&mut Env)`; the server composes them. All problems are collected and told at once.

use std::{collections::BTreeMap, fmt::Display, fs, path::PathBuf, str::FromStr, time::Duration};

use loom_common_secret::{REDACTED, SecretString};

/// The variables, what was asked of them, and what was wrong.
#[derive(Default)]
pub struct Env {
    vars: BTreeMap<String, String>,
    settings: Vec<Setting>,
    problems: Vec<Problem>,
    secrets: Vec<SecretString>,
}

/// One setting as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    /// As it stands in `.env.example`; empty when there is none.
    pub default: String,
    /// What is in force; a secret is redacted.
    pub value: String,
    pub secret: bool,
    /// What it may be, as `a number from 1 to 3600`.
    pub allowed: String,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub name: String,
    /// None for a secret, or when it is absent.
    pub value: Option<String>,
    pub message: String,
}

impl Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {:?}: {}", self.name, value, self.message),
            None => write!(f, "{}: {}", self.name, self.message),
        }
    }
}

impl Env {
    /// From name-value pairs; later ones win. An empty value counts as absent.
    pub fn new(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let vars = vars.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect();
        Self { vars, ..Self::default() }
    }

    fn raw(&self, name: &str) -> Option<String> {
        self.vars.get(name).map(|value| value.trim().to_owned())
    }

    fn saw(&mut self, name: &str, default: String, value: String, allowed: &str) {
        let (name, allowed) = (name.to_owned(), allowed.to_owned());
        self.settings.push(Setting { name, default, value, secret: false, allowed });
    }

    /// Something is wrong with `name`; `message` says what is allowed.
    pub fn problem(&mut self, name: &str, message: impl Into<String>) {
        let secret = self.settings.iter().any(|setting| setting.name == name && setting.secret);
        let value = if secret { None } else { self.raw(name) };
        self.problems.push(Problem { name: name.to_owned(), value, message: message.into() });
    }

    /// A value with a default. `allowed` completes the sentence "must be …".
    pub fn get<T: FromStr + Display>(&mut self, name: &str, default: T, allowed: &str) -> T {
        let shown = default.to_string();
        let value = match self.raw(name).map(|text| text.parse::<T>()) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(_)) => {
                self.problem(name, format!("must be {allowed}"));
                default
            }
        };
        self.saw(name, shown, value.to_string(), allowed);
        value
    }

    /// A value within bounds.
    pub fn number<T: FromStr + Display + PartialOrd + Copy>(
        &mut self,
        name: &str,
        default: T,
        min: T,
        max: T,
    ) -> T {
        let allowed = format!("a number from {min} to {max}");
        let value = self.get(name, default, &allowed);
        if value < min || value > max {
            self.problem(name, format!("must be {allowed}"));
            return default;
        }
        value
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: &str, default: bool) -> bool {
        self.get(name, default, "true or false")
    }

    /// Whole seconds (the name ends in `_SECS`).
    pub fn secs(&mut self, name: &str, default: u64, min: u64, max: u64) -> Duration {
        Duration::from_secs(self.number(name, default, min, max))
    }

    /// A value without a default.
    pub fn optional<T: FromStr + Display>(&mut self, name: &str, allowed: &str) -> Option<T> {
        let value = match self.raw(name).map(|text| text.parse::<T>()) {
            None => None,
            Some(Ok(value)) => Some(value),
            Some(Err(_)) => {
                self.problem(name, format!("must be {allowed}"));
                None
            }
        };
        self.saw(
            name,
            String::new(),
            value.as_ref().map(ToString::to_string).unwrap_or_default(),
            allowed,
        );
        value
    }

    pub fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.optional::<String>(name, "a path").map(PathBuf::from)
    }

    /// A comma-separated list.
    pub fn list(&mut self, name: &str) -> Vec<String> {
        let text = self.optional::<String>(name, "a comma-separated list").unwrap_or_default();
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    /// One of a few words.
    pub fn choice<T: Copy>(
        &mut self,
        name: &str,
        default: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let value = self.raw(name).unwrap_or_else(|| default.to_owned());
        let found = choices.iter().find(|(word, _)| *word == value).map(|(_, choice)| *choice);
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let allowed = format!("one of {}", words.join(", "));
        if found.is_none() {
            self.problem(name, format!("must be {allowed}"));
        }
        self.saw(name, default.to_owned(), value, &allowed);
        found.or_else(|| {
            choices.iter().find(|(word, _)| *word == default).map(|(_, choice)| *choice)
        })
    }

    /// A secret, from `<name>` or from the file that `<name>_FILE` names.
    pub fn secret(&mut self, name: &str) -> Option<SecretString> {
        let file_name = format!("{name}_FILE");
        let secret = match (self.raw(name), self.raw(&file_name)) {
            (Some(_), Some(_)) => {
                self.problem(&file_name, format!("give {name} or {file_name}, not both"));
                None
            }
            (Some(value), None) => Some(SecretString::from(value)),
            (None, Some(path)) => match fs::read_to_string(&path) {
                Ok(text) if !text.trim().is_empty() => Some(SecretString::from(text.trim())),
                Ok(_) => {
                    self.problem(&file_name, "the file is empty");
                    None
                }
                Err(error) => {
                    self.problem(&file_name, format!("the file cannot be read: {error}"));
                    None
                }
            },
            (None, None) => None,
        };
        let shown = if secret.is_some() { REDACTED } else { "" };
        self.settings.push(Setting {
            name: name.to_owned(),
            default: String::new(),
            value: shown.to_owned(),
            secret: true,
            allowed: "a secret".to_owned(),
        });
        self.secrets.extend(secret.clone());
        secret
    }

    /// Every secret that was read, for what masks them.
    pub fn secrets(&self) -> &[SecretString] {
        &self.secrets
    }

    /// Everything that was read, in order.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Variables with one of these prefixes that nothing asked for: likely misspelt.
    pub fn unknown(&self, prefixes: &[&str]) -> Vec<String> {
        let known = |name: &str| {
            self.settings.iter().any(|s| {
                s.name == name || (s.secret && name.strip_suffix("_FILE") == Some(&s.name))
            })
        };
        self.vars
            .keys()
            .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)) && !known(name))
            .cloned()
            .collect()
    }
}
