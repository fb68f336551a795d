//! `.env.example` lists every setting that the server reads, with its default and what it means.

use std::collections::BTreeMap;

use loom_server::config::{self, Overrides};

pub(crate) const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.env.example");

/// `#NAME=value` of a line; prose has a space after the `#`.
pub(crate) fn setting(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix('#')?.split_once('=')?;
    let is_name = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    is_name.then_some((name, value))
}

type Settings = Vec<(String, String)>;

/// The settings of the file, and those of the example of a further provider at its end.
fn example() -> (Settings, Settings) {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let (file, further) = text.split_once("# --- Example:").unwrap();
    let settings = |text: &str| -> Settings {
        text.lines()
            .filter_map(setting)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    (settings(file), settings(further))
}

#[test]
fn every_setting_is_in_the_file_with_its_default_and_nothing_else_is() {
    let loaded = config::load(BTreeMap::new(), Overrides::default());
    let read: BTreeMap<_, _> =
        loaded.settings.into_iter().map(|setting| (setting.name, setting.default)).collect();
    let (settings, _) = example();
    let written: BTreeMap<_, _> = settings.iter().cloned().collect();
    assert_eq!(written.len(), settings.len(), "a setting is in the file twice");
    let missing: Vec<_> = read.keys().filter(|name| !written.contains_key(*name)).collect();
    assert!(missing.is_empty(), ".env.example lacks {missing:?}");
    let unknown: Vec<_> = written.keys().filter(|name| !read.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "nothing reads {unknown:?} of .env.example");
    assert_eq!(written, read, "a default in .env.example is not that of the code");
}

#[test]
fn every_setting_has_a_description_above_it() {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let (file, _) = text.split_once("# --- Example:").unwrap();
    for entry in file.split("\n\n").filter(|entry| entry.lines().any(|l| setting(l).is_some())) {
        let mut lines: Vec<_> = entry.lines().collect();
        assert!(lines.pop().and_then(setting).is_some(), "one setting ends an entry: {entry}");
        let prose = lines.concat();
        assert!(prose.len() > 20 && lines.iter().all(|l| l.starts_with("# ")), "{entry}");
    }
}

#[test]
fn the_file_as_it_is_and_with_every_line_taken_in_is_sound() {
    let (settings, further) = example();
    for all in [settings.clone(), settings.into_iter().chain(further).collect()] {
        let loaded = config::load(all.into_iter().collect(), Overrides::default());
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        assert!(loaded.unknown.is_empty(), "{:?}", loaded.unknown);
    }
}

#[test]
fn the_example_of_a_further_provider_shows_all_of_its_settings() {
    let (_, further) = example();
    let loaded = config::load(further.iter().cloned().collect(), Overrides::default());
    let names: Vec<_> = further.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[0], "LOOM_SERVER_LLM_PROVIDERS");
    let read: Vec<_> = loaded
        .settings
        .iter()
        .map(|setting| setting.name.as_str())
        .filter(|name| name.starts_with("LOOM_SERVER_LLM_GROQ_"))
        .collect();
    assert_eq!(names[1..], read);
}

#[test]
fn the_file_tells_of_secrets_in_files_and_marks_every_secret() {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    assert!(text.contains("NAME_FILE"), "the rule of NAME_FILE is not told");
    let loaded = config::load(BTreeMap::new(), Overrides::default());
    for secret in loaded.settings.iter().filter(|setting| setting.secret) {
        let entry = text.split("\n\n").find(|entry| entry.contains(&format!("#{}=", secret.name)));
        assert!(entry.unwrap().contains("A secret."), "{} is not marked as a secret", secret.name);
    }
}
