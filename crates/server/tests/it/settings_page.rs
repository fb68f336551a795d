//! `docs/settings.md` is made from the code, which knows each setting with its default and what it may be,
//! and from `.env.example`, which says what it means. `UPDATE_SNAPSHOTS=1` writes it anew.

use std::{collections::BTreeMap, fmt::Write as _};

use loom_core::config::Setting;
use loom_server::config::{self, Overrides};

use crate::env_example::{self, EXAMPLE};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");

const HEAD: &str = "---
title: Settings
summary: Every setting of the server, with its default, what it may be, and what it means.
category: operations
order: 52
tags: [settings, configuration, environment, variables]
---

# Settings

The environment wins over `.env` in the working directory, which wins over the defaults. An empty value counts as absent. A **secret** can also come from a file: `<NAME>_FILE` names its path. `loom-server config check` tells all that is wrong at once, `config show` what is in force, and `doctor` whether what they lead to works.

This page is made from the code; [.env.example](../.env.example) is the same as a file to begin with.
";

/// A cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The entry of `.env.example` for each setting: its group, and its description.
fn described(text: &str) -> BTreeMap<String, (String, String)> {
    let (mut group, mut entries) = (String::new(), BTreeMap::new());
    let mut prose: Vec<&str> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("# --- ") {
            group = title.trim_end_matches('-').trim().to_owned();
            prose.clear();
        } else if let Some((name, _)) = env_example::setting(line) {
            entries.insert(name.to_owned(), (group.clone(), prose.join(" ")));
            prose.clear();
        } else if let Some(said) = line.strip_prefix("# ") {
            prose.push(said);
        } else {
            prose.clear();
        }
    }
    entries
}

fn groups(text: &str) -> Vec<String> {
    let titles = text.lines().filter_map(|line| line.strip_prefix("# --- "));
    let mut groups: Vec<String> = Vec::new();
    for title in titles.map(|title| title.trim_end_matches('-').trim().to_owned()) {
        if !groups.contains(&title) {
            groups.push(title);
        }
    }
    groups
}

fn row(setting: &Setting, meaning: &str) -> String {
    let default = match (&*setting.default, setting.secret) {
        (_, true) | ("", _) => String::new(),
        (default, false) => format!("`{}`", cell(default)),
    };
    let meaning = meaning.trim_end_matches("A secret.").trim();
    format!("| `{}` | {default} | {} | {} |\n", setting.name, cell(&setting.allowed), cell(meaning))
}

fn page() -> String {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let (own, further) = text.split_once("# --- Example:").unwrap();
    let described = described(own);
    let settings = config::load(BTreeMap::new(), Overrides::default()).settings;
    let mut page = HEAD.to_owned();
    for group in groups(own) {
        write!(
            page,
            "\n## {group}\n\n| setting | default | it may be | meaning |\n|---|---|---|---|\n"
        )
        .unwrap();
        for setting in &settings {
            let (of, meaning) = &described[&setting.name];
            if *of == group {
                page.push_str(&row(setting, meaning));
            }
        }
    }
    page.push_str("\n## Further providers of models\n\n");
    page.push_str(
        "For each name in `LOOM_SERVER_LLM_PROVIDERS`, in capitals and with `_` for `-`:\n\n",
    );
    page.push_str("```sh\n");
    for line in further.lines().filter(|line| env_example::setting(line).is_some()) {
        writeln!(page, "{}", line.trim_start_matches('#')).unwrap();
    }
    page.push_str("```\n");
    page
}

#[test]
#[expect(clippy::disallowed_methods, reason = "this is how one asks for the page to be written")]
fn the_page_of_settings_is_that_of_the_code() {
    let page = page();
    if std::env::var("UPDATE_SNAPSHOTS").is_ok_and(|value| value == "1") {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    let first = page.lines().zip(written.lines()).find(|(made, there)| made != there);
    assert!(page == written, "run with UPDATE_SNAPSHOTS=1 after a change of settings: {first:?}");
}
