//! What a project says about masking (`crash_projects.scrubbing`).

use loom_core::error::FieldError;
use regex_automata::meta::Regex;
use serde_json::Value;

use super::names::{self, Names};

const MOST_FIELDS: usize = 200;
const MOST_PATTERNS: usize = 20;
const LONGEST_FIELD: usize = 64;
const LONGEST_PATTERN: usize = 500;
/// Of a compiled pattern: `\w{1000}` would take megabytes.
const LARGEST: usize = 256 * 1024;

/// What happens to addresses of people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ip {
    #[default]
    Keep,
    /// Only the network: `203.0.113.0`, `2001:db8:1::`.
    Anonymise,
    Drop,
}

/// Cheap to clone as far as a list of patterns is: they are shared.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(super) defaults: bool,
    pub(super) names: Names,
    pub(super) patterns: Vec<Regex>,
    pub(super) ip: Ip,
}

impl Default for Settings {
    fn default() -> Self {
        let names = Names { defaults: true, ..Names::default() };
        Self { defaults: true, names, patterns: Vec::new(), ip: Ip::Keep }
    }
}

impl Settings {
    /// `{defaults?, sensitive_fields?, safe_fields?, patterns?, ip?}`; all that is wrong, by path.
    pub(crate) fn parse(value: &Value) -> Result<Self, Vec<FieldError>> {
        let mut settings = Self::default();
        let mut errors = Vec::new();
        let Some(of) = value.as_object() else {
            return Err(vec![error("", "must be an object")]);
        };
        for (name, value) in of {
            match name.as_str() {
                "defaults" => match value.as_bool() {
                    Some(defaults) => settings.defaults = defaults,
                    None => errors.push(error(name, "must be true or false")),
                },
                "ip" => match value.as_str() {
                    Some("keep") => settings.ip = Ip::Keep,
                    Some("anonymise") => settings.ip = Ip::Anonymise,
                    Some("drop") => settings.ip = Ip::Drop,
                    _ => errors.push(error(name, "must be `keep`, `anonymise` or `drop`")),
                },
                "sensitive_fields" => settings.names.secret = fields(name, value, &mut errors),
                "safe_fields" => {
                    settings.names.safe = fields(name, value, &mut errors).into_iter().collect();
                }
                "patterns" => settings.patterns = patterns(value, &mut errors),
                _ => errors.push(error(
                    name,
                    "is not known; there are `defaults`, `sensitive_fields`, `safe_fields`, `patterns` and `ip`",
                )),
            }
        }
        settings.names.defaults = settings.defaults;
        if errors.is_empty() { Ok(settings) } else { Err(errors) }
    }
}

fn texts<'a>(
    name: &str,
    value: &'a Value,
    (most, longest): (usize, usize),
    errors: &mut Vec<FieldError>,
) -> Vec<(usize, &'a str)> {
    let Some(list) = value.as_array() else {
        errors.push(error(name, "must be a list of texts"));
        return Vec::new();
    };
    if list.len() > most {
        errors
            .push(error(name, &format!("has {} entries; at most {most} are allowed", list.len())));
    }
    let mut texts = Vec::new();
    for (at, entry) in list.iter().enumerate().take(most) {
        match entry.as_str() {
            Some(text) if !text.is_empty() && text.len() <= longest => texts.push((at, text)),
            _ => errors.push(error(
                &format!("{name}[{at}]"),
                &format!("must be a text of 1 to {longest} characters"),
            )),
        }
    }
    texts
}

fn fields(name: &str, value: &Value, errors: &mut Vec<FieldError>) -> Vec<String> {
    let mut fields = Vec::new();
    for (at, text) in texts(name, value, (MOST_FIELDS, LONGEST_FIELD), errors) {
        let plain = names::owned(text);
        if plain.len() < 2 {
            errors.push(error(&format!("{name}[{at}]"), "needs two letters or digits at least"));
        } else {
            fields.push(plain);
        }
    }
    fields
}

fn patterns(value: &Value, errors: &mut Vec<FieldError>) -> Vec<Regex> {
    let mut patterns = Vec::new();
    for (at, text) in texts("patterns", value, (MOST_PATTERNS, LONGEST_PATTERN), errors) {
        let path = format!("patterns[{at}]");
        let config =
            Regex::config().nfa_size_limit(Some(LARGEST)).onepass_size_limit(Some(LARGEST));
        match Regex::builder().configure(config).build(text) {
            Ok(pattern) if pattern.is_match("") => {
                errors.push(error(&path, "matches the empty text"));
            }
            Ok(pattern) => patterns.push(pattern),
            Err(cause) => {
                let cause = match (cause.syntax_error(), cause.size_limit()) {
                    (Some(syntax), _) => syntax.to_string(),
                    (_, Some(_)) => "it is too large when compiled".to_owned(),
                    _ => cause.to_string(),
                };
                errors.push(error(
                    &path,
                    &format!("is not a regular expression that can be used: {cause}"),
                ));
            }
        }
    }
    patterns
}

fn error(path: &str, message: &str) -> FieldError {
    FieldError { path: path.to_owned(), message: message.to_owned() }
}
