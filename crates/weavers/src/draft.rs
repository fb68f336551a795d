//! What somebody asks for, and whether it can be.

use std::collections::BTreeMap;

use loom_common_secret::SecretString;
use loom_core::{
    Error, Principal, Result,
    error::FieldError,
    principal::{Scope, Scopes},
    text::is_plain_line,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Config,
    identity::{REPO_TOKEN_KEY, RESERVED, SCOPES},
    image,
    model::{Network, Spec},
    quantity,
};

const MAX_WORDS: usize = 256;
const MAX_WORD_BYTES: usize = 64 << 10;
const MAX_ENV: usize = 200;
const MAX_ENV_NAME: usize = 128;
const MAX_ENV_VALUE: usize = 32 << 10;
/// Of command, arguments and env together: a process is started with no more than about 128 KiB a string and
/// some MiB in all, and the row has to be small.
const MAX_BYTES: usize = 256 << 10;
const MAX_TAGS: usize = 50;
const MAX_TAG_KEY: usize = 63;
const MAX_TAG_VALUE: usize = 200;
const MAX_PATH: usize = 1024;
const MAX_URL: usize = 2048;
const MAX_BRANCH: usize = 255;
const MIN_HOURS: f64 = 0.01;
const MIN_IDLE: i32 = 60;
const MAX_IDLE: i32 = 7 * 86_400;
const MAX_USD: f64 = 1e6;
/// What nobody but us may say of a pod.
const OURS: &str = "loom.dev/";

/// A weaver to be made.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
pub(crate) struct WeaverDraft {
    /// As `ghcr.io/acme/agent:1.4`. Its process must run for as long as the weaver is wanted.
    image: String,
    /// In place of the image's entry point, each word by itself; no shell reads it.
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    /// At most 200. Values that look like secrets, by name or by shape, are kept sealed and shown to nobody.
    /// Names that begin with `LOOM_` are the server's.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// An absolute path.
    workdir: Option<String>,
    /// Cloned to `/workspace` before the process starts: an https URL without user and password.
    repo: Option<String>,
    branch: Option<String>,
    /// With which a private repository is cloned; kept sealed.
    #[schema(value_type = Option<String>, write_only)]
    #[serde(default, skip_serializing)]
    repo_token: Option<SecretString>,
    /// Up to 50, for finding it again.
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// `LOOM_SERVER_WEAVER_DEFAULT_TTL_HOURS` when absent.
    lifetime_hours: Option<f64>,
    #[serde(default)]
    resources: Resources,
    /// The organisation it belongs to, by id or slug; that of the request when absent.
    pub(crate) org_id: Option<String>,
    /// Answer once it runs, the default; else at once with 202.
    pub(crate) wait: Option<bool>,
    /// `LOOM_SERVER_WEAVER_NETWORK` when absent.
    #[schema(inline)]
    network: Option<Network>,
    /// US dollars that it may spend on models; when they are gone, it ends.
    budget_usd: Option<f64>,
    /// Ends after so long without output, a terminal, or a request to a model.
    idle_timeout_secs: Option<i32>,
    /// What its token may be used for: some of `llm:use`, `threads:read`, `threads:write`, `weavers:read`,
    /// `repos:read`, `repos:write`, and no more than its maker may. All but `repos:write` when absent.
    #[schema(inline)]
    scopes: Option<Vec<Scope>>,
}

/// What it may use, as Kubernetes writes quantities.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[schema(as = WeaverResources)]
pub(crate) struct Resources {
    /// Cores, as `2` or `500m`; `2` when absent.
    #[serde(alias = "cpu_limit")]
    pub(crate) cpu: Option<String>,
    /// As `8Gi`; `16Gi` when absent.
    #[serde(alias = "memory_limit")]
    pub(crate) memory: Option<String>,
    /// Of its own file systems, as `20Gi`; `10Gi` when absent.
    pub(crate) ephemeral_storage: Option<String>,
}

/// A draft in which all is as it may be.
pub(crate) struct Checked {
    pub(crate) spec: Spec,
    /// What must not lie open.
    pub(crate) secrets: BTreeMap<String, SecretString>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) network: Network,
    pub(crate) cpu_millis: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) ephemeral_bytes: i64,
    pub(crate) budget_nanousd: Option<i64>,
    pub(crate) idle_timeout_secs: Option<i32>,
}

#[derive(Default)]
struct Faults(Vec<FieldError>);

impl Faults {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        // A thousand faults help nobody.
        if self.0.len() < 20 {
            self.0.push(FieldError { path: path.into(), message: message.into() });
        }
    }
}

impl WeaverDraft {
    /// # Errors
    /// 422: `invalid_image`, `invalid_lifetime`, or all the fields that are wrong.
    pub(crate) fn check(self, by: &Principal, config: &Config) -> Result<Checked> {
        let image = check_image(&self.image, config)?;
        let lifetime_hours = hours(self.lifetime_hours.unwrap_or(config.default_hours), config)?;
        let mut faults = Faults::default();
        self.check_words(&mut faults);
        self.check_env(&mut faults);
        check_tags(&self.tags, &mut faults);
        if let Some(path) = &self.workdir
            && (!is_plain_line(path, MAX_PATH) || !is_absolute(path))
        {
            faults.add(
                "workdir",
                format!("is an absolute path of up to {MAX_PATH} bytes, without `..`"),
            );
        }
        if let Some(repo) = &self.repo
            && !is_repo(repo, &config.server_url)
        {
            faults.add(
                "repo",
                "is an https URL without user and password, as https://github.com/acme/app",
            );
        }
        if let Some(branch) = &self.branch {
            if self.repo.is_none() {
                faults.add("branch", "is of a repository: give `repo` too");
            }
            if !is_branch(branch) {
                faults.add("branch", "is no name of a branch");
            }
        }
        if self.repo_token.is_some() && self.repo.is_none() {
            faults.add("repo_token", "is for a repository: give `repo` too");
        }
        let token_fits = |token: &SecretString| is_plain_line(token.expose(), 4096);
        if !self.repo_token.as_ref().is_none_or(token_fits) {
            faults.add("repo_token", "is one line of 1 to 4096 bytes");
        }
        let amounts = self.resources.check(&mut faults);
        if self.budget_usd.is_some_and(|usd| !(0.0..=MAX_USD).contains(&usd)) {
            faults.add("budget_usd", "is 0 to 1000000");
        }
        if self.idle_timeout_secs.is_some_and(|secs| !(MIN_IDLE..=MAX_IDLE).contains(&secs)) {
            faults.add("idle_timeout_secs", format!("is {MIN_IDLE} to {MAX_IDLE}"));
        }
        let scopes = scopes(self.scopes.as_deref(), by.scopes, &mut faults);
        if !faults.0.is_empty() {
            return Err(Error::invalid_fields(faults.0));
        }
        let (mut secrets, mut env) = (BTreeMap::new(), BTreeMap::new());
        let redactor = loom_redact::shared();
        for (name, value) in self.env {
            if loom_redact::is_secret_field(&name) || !redactor.is_clean(&value) {
                secrets.insert(name, SecretString::from(value));
            } else {
                env.insert(name, value);
            }
        }
        let sealed = secrets.keys().cloned().collect();
        if let Some(token) = self.repo_token {
            secrets.insert(REPO_TOKEN_KEY.to_owned(), token);
        }
        Ok(Checked {
            spec: Spec {
                image,
                command: self.command,
                args: self.args,
                env,
                sealed,
                workdir: self.workdir,
                repo: self.repo,
                branch: self.branch,
                lifetime_hours,
                scopes,
            },
            secrets,
            tags: self.tags,
            network: self.network.unwrap_or(config.network),
            cpu_millis: amounts.0,
            memory_bytes: amounts.1,
            ephemeral_bytes: amounts.2,
            budget_nanousd: self.budget_usd.map(nanousd),
            idle_timeout_secs: self.idle_timeout_secs,
        })
    }

    fn check_words(&self, faults: &mut Faults) {
        let words = self.command.iter().chain(&self.args);
        if words.clone().count() > MAX_WORDS {
            faults.add("command", format!("and `args` have at most {MAX_WORDS} words"));
        }
        for (name, words) in [("command", &self.command), ("args", &self.args)] {
            for (index, word) in words.iter().enumerate() {
                if word.len() > MAX_WORD_BYTES || word.contains('\0') {
                    faults.add(
                        format!("{name}[{index}]"),
                        format!("is at most {MAX_WORD_BYTES} bytes without NUL"),
                    );
                }
            }
        }
        let env = self.env.iter().map(|(name, value)| name.len() + value.len());
        if words.map(String::len).chain(env).sum::<usize>() > MAX_BYTES {
            faults.add(
                "",
                format!("`command`, `args` and `env` hold at most {MAX_BYTES} bytes together"),
            );
        }
    }

    fn check_env(&self, faults: &mut Faults) {
        if self.env.len() > MAX_ENV {
            return faults.add("env", format!("has at most {MAX_ENV} names"));
        }
        for (name, value) in &self.env {
            // The name is the client's: it is not said again in whole.
            let path = format!("env.{}", loom_core::text::cut(name, 40));
            let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
            let is_name = name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
                && name.bytes().next().is_some_and(is_letter);
            if !is_name || name.len() > MAX_ENV_NAME {
                faults.add(
                    &path,
                    format!("is a name of letters, digits and `_`, of up to {MAX_ENV_NAME} bytes"),
                );
            } else if name.starts_with(RESERVED) {
                faults.add(&path, "begins with `LOOM_`, which only the server sets");
            }
            if value.len() > MAX_ENV_VALUE || value.contains('\0') {
                faults.add(&path, format!("holds at most {MAX_ENV_VALUE} bytes without NUL"));
            }
        }
    }
}

impl Resources {
    /// Thousandths of a core, bytes, bytes.
    fn check(&self, faults: &mut Faults) -> (i64, i64, i64) {
        let mut amount =
            |name: &str, text: Option<&str>, default: &str, (least, most): (&str, &str)| {
                let thousandths = |text: &str| quantity::thousandths(text);
                let (least_at, most_at) = (thousandths(least), thousandths(most));
                let found = thousandths(text.unwrap_or(default));
                match found.filter(|found| least_at <= Some(*found) && Some(*found) <= most_at) {
                    Some(found) => found,
                    None => {
                        faults.add(
                            format!("resources.{name}"),
                            format!("is a quantity from {least} to {most}, as {default}"),
                        );
                        0
                    }
                }
            };
        let cpu = amount("cpu", self.cpu.as_deref(), "2", ("10m", "128"));
        let memory = amount("memory", self.memory.as_deref(), "16Gi", ("16Mi", "1Ti"));
        let disk =
            amount("ephemeral_storage", self.ephemeral_storage.as_deref(), "10Gi", ("16Mi", "2Ti"));
        (cpu, memory / 1000, disk / 1000)
    }
}

fn check_image(image: &str, config: &Config) -> Result<String> {
    let fault =
        |why: String| Error::new(http::StatusCode::UNPROCESSABLE_ENTITY, "invalid_image", why);
    let whole = image::whole(image).ok_or_else(|| {
        fault("`image` is the name of an image, as ghcr.io/acme/agent:1.4".to_owned())
    })?;
    if !image::is_allowed(&whole, &config.images) {
        return Err(fault(format!(
            "this image may not run here; there may {} (LOOM_SERVER_WEAVER_IMAGES)",
            config.images.join(", ")
        )));
    }
    Ok(image.to_owned())
}

/// # Errors
/// 422 `invalid_lifetime`.
pub(crate) fn hours(hours: f64, config: &Config) -> Result<f64> {
    let most = config.max_hours;
    if (MIN_HOURS.min(most)..=most).contains(&hours) {
        return Ok(hours);
    }
    Err(Error::new(
        http::StatusCode::UNPROCESSABLE_ENTITY,
        "invalid_lifetime",
        format!("`lifetime_hours` is {MIN_HOURS} to {most}"),
    ))
}

/// # Errors
/// 422 with what is wrong.
pub(crate) fn tags(tags: &BTreeMap<String, String>) -> Result<()> {
    let mut faults = Faults::default();
    check_tags(tags, &mut faults);
    if faults.0.is_empty() { Ok(()) } else { Err(Error::invalid_fields(faults.0)) }
}

fn check_tags(tags: &BTreeMap<String, String>, faults: &mut Faults) {
    if tags.len() > MAX_TAGS {
        return faults.add("tags", format!("are at most {MAX_TAGS}"));
    }
    for (key, value) in tags {
        let path = format!("tags.{}", loom_core::text::cut(key, 40));
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
        let is_key = (1..=MAX_TAG_KEY).contains(&key.len())
            && key.bytes().all(fits)
            && key.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !is_key {
            faults.add(&path, format!("is 1 to {MAX_TAG_KEY} letters, digits and `.`, `_`, `/`, `-`, and begins with a letter or digit"));
        } else if key.to_ascii_lowercase().starts_with(OURS) {
            faults.add(&path, "begins with `loom.dev/`, which only the server sets");
        }
        if !value.is_empty() && !is_plain_line(value, MAX_TAG_VALUE) {
            faults.add(&path, format!("holds one line of up to {MAX_TAG_VALUE} bytes"));
        }
    }
}

/// What the token may be used for: nothing that its maker may not.
fn scopes(wanted: Option<&[Scope]>, own: Scopes, faults: &mut Faults) -> Vec<String> {
    let possible = |scope: Scope| SCOPES.contains(&scope) || scope == Scope::ReposWrite;
    let chosen: Scopes = match wanted {
        None => SCOPES.into_iter().filter(|scope| own.contains(*scope)).collect(),
        Some(wanted) => {
            for scope in wanted {
                if !possible(*scope) {
                    faults.add("scopes", format!("`{scope}` is nothing that a weaver may have"));
                } else if !own.contains(*scope) {
                    faults.add("scopes", format!("`{scope}` is more than this credential has"));
                }
            }
            wanted.iter().copied().collect()
        }
    };
    chosen.iter().map(|scope| scope.as_str().to_owned()).collect()
}

fn is_absolute(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|part| part == "..")
}

/// An https URL, or one of this server, which may be without TLS.
fn is_repo(url: &str, server: &str) -> bool {
    let is_plain = (1..=MAX_URL).contains(&url.len())
        && url.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'`\\<>^{|}$;#?".contains(&byte));
    let rest = url.strip_prefix("https://").or_else(|| {
        let path = url.strip_prefix(server)?;
        path.starts_with('/').then(|| url.split_once("://").map_or(url, |(_, rest)| rest))
    });
    let Some((host, path)) = rest.and_then(|rest| rest.split_once('/')) else { return false };
    is_plain
        && !host.is_empty()
        && !host.contains('@')
        && !path.is_empty()
        && !path.starts_with('-')
}

/// As git checks names of refs.
fn is_branch(name: &str) -> bool {
    let is_bad = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\$`'\"".contains(c);
    (1..=MAX_BRANCH).contains(&name.len())
        && !name.contains(is_bad)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.starts_with(['-', '/'])
        && !name.ends_with(['/', '.'])
        && !name.contains("//")
        && !name.split('/').any(|part| part.starts_with('.') || part.ends_with(".lock"))
}

#[expect(clippy::cast_possible_truncation, reason = "at most 1e15")]
fn nanousd(usd: f64) -> i64 {
    (usd * 1e9).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_an_https_url_that_hides_nothing() {
        for good in [
            "https://github.com/a/b",
            "https://git.example.com:8443/a/b.git",
            "http://loom:8080/git/a/b",
        ] {
            assert!(is_repo(good, "http://loom:8080"), "{good}");
        }
        for bad in [
            "",
            "http://github.com/a/b",
            "https://u:p@github.com/a/b",
            "https://t@github.com/a",
            "git@github.com:a/b",
            "https://github.com",
            "https:///a",
            "--upload-pack=x",
            "https://h/$(id)",
            "https://h/a b",
            "file:///etc",
            "http://loom:8080.evil.com/a",
            "http://loom:80801/a",
            "https://h/-x",
            "https://h/a;id",
        ] {
            assert!(!is_repo(bad, "http://loom:8080"), "{bad}");
        }
    }

    #[test]
    fn a_branch_is_what_git_takes_and_no_option() {
        for good in ["main", "feature/x-1", "v1.2", "é"] {
            assert!(is_branch(good), "{good}");
        }
        for bad in [
            "", "-x", "a..b", "a b", "a~1", "a:b", "x.lock", "/a", "a/", "a//b", "@{1}", "$(id)",
            ".a", "a/.b",
        ] {
            assert!(!is_branch(bad), "{bad}");
        }
    }

    #[test]
    fn a_token_has_no_scope_that_its_maker_lacks() {
        let own: Scopes =
            [Scope::LlmUse, Scope::WeaversWrite, Scope::ReposWrite].into_iter().collect();
        let chosen = |wanted: Option<&[Scope]>| {
            let mut faults = Faults::default();
            (scopes(wanted, own, &mut faults), faults.0.len())
        };
        assert_eq!(chosen(None), (vec!["llm:use".to_owned()], 0));
        assert_eq!(chosen(Some(&[Scope::ReposWrite])), (vec!["repos:write".to_owned()], 0));
        assert_eq!(chosen(Some(&[])), (vec![], 0));
        assert_eq!(chosen(Some(&[Scope::ThreadsRead])).1, 1);
        assert_eq!(chosen(Some(&[Scope::WeaversWrite])).1, 1);
    }
}
