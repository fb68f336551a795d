//! Settings of the LLM proxy.

use std::time::Duration;

use loom_common_secret::SecretString;
use loom_core::config::Env;
use reqwest::Url;

use crate::dialect::Dialect;

#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) providers: Vec<ProviderConfig>,
    /// The built-in provider `demo` with the model `loom-demo`.
    pub demo: bool,
    pub(crate) timeouts: Timeouts,
    pub(crate) retention: Duration,
    pub(crate) drain: crate::drain::Config,
}

#[derive(Clone, Debug)]
pub(crate) struct ProviderConfig {
    pub(crate) name: String,
    pub(crate) dialect: Dialect,
    /// As the provider's own SDK writes it: OpenAI's with `/v1`, Anthropic's without.
    pub(crate) base_url: Url,
    pub(crate) api_key: Option<SecretString>,
    /// A compatible provider may do without a key.
    pub(crate) keyless: bool,
    pub(crate) models: Vec<String>,
    /// It has the responses wire beside the chat one.
    pub(crate) responses: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    /// Until the provider's response begins.
    pub(crate) first_byte: Duration,
    /// Between two pieces of a response.
    pub(crate) idle: Duration,
}

impl Config {
    pub fn load(env: &mut Env) -> Self {
        let mut providers = vec![
            ProviderConfig {
                name: "anthropic".to_owned(),
                dialect: Dialect::Anthropic,
                base_url: url(env, "LOOM_SERVER_ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
                api_key: env.secret("LOOM_SERVER_ANTHROPIC_API_KEY"),
                keyless: false,
                models: Vec::new(),
                responses: false,
            },
            ProviderConfig {
                name: "openai".to_owned(),
                dialect: Dialect::OpenAi,
                base_url: url(env, "LOOM_SERVER_OPENAI_BASE_URL", "https://api.openai.com/v1"),
                api_key: env.secret("LOOM_SERVER_OPENAI_API_KEY"),
                keyless: false,
                models: Vec::new(),
                responses: true,
            },
        ];
        let list = "LOOM_SERVER_LLM_PROVIDERS";
        for name in env.list(list) {
            let is_name =
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if !is_name || name.len() > 40 || name == "demo" || name == "vertex" {
                env.problem(
                    list,
                    format!(
                        "`{name}`: a name is up to 40 of a-z, 0-9, -, and not `demo` or `vertex`"
                    ),
                );
                continue;
            }
            if providers.iter().any(|provider| provider.name == name) {
                env.problem(
                    list,
                    format!(
                        "`{name}` is there twice, or is a provider that has settings of its own"
                    ),
                );
                continue;
            }
            let prefix = format!("LOOM_SERVER_LLM_{}", name.to_uppercase().replace('-', "_"));
            let base_name = format!("{prefix}_BASE_URL");
            let base_url = env
                .optional::<Url>(&base_name, "an http(s) URL that ends before /chat/completions");
            let api_key = env.secret(&format!("{prefix}_API_KEY"));
            let models = env.list(&format!("{prefix}_MODELS"));
            let responses = env.flag(&format!("{prefix}_RESPONSES"), false);
            let Some(base_url) = base_url.filter(is_http) else {
                env.problem(&base_name, format!("is needed for the provider `{name}`: an http(s) URL, as https://api.example.com/v1"));
                continue;
            };
            let keyless = api_key.is_none();
            providers.push(ProviderConfig {
                name,
                dialect: Dialect::OpenAi,
                base_url,
                api_key,
                keyless,
                models,
                responses,
            });
        }
        let timeouts = Timeouts {
            connect: env.secs("LOOM_SERVER_LLM_CONNECT_TIMEOUT_SECS", 10, 1, 300),
            first_byte: env.secs("LOOM_SERVER_LLM_FIRST_BYTE_TIMEOUT_SECS", 600, 1, 3600),
            idle: env.secs("LOOM_SERVER_LLM_IDLE_TIMEOUT_SECS", 300, 1, 3600),
        };
        let days = env.number("LOOM_SERVER_LLM_REQUEST_RETENTION_DAYS", 90_u64, 1, 3650);
        let drain = crate::drain::Config::load(env);
        Self {
            providers,
            demo: false,
            timeouts,
            retention: Duration::from_secs(days * 24 * 3600),
            drain,
        }
    }
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

#[expect(clippy::expect_used, reason = "the defaults are literals of ours")]
fn url(env: &mut Env, name: &str, default: &str) -> Url {
    let fallback = default.parse::<Url>().expect("a default URL parses");
    let text = env.get(name, default.to_owned(), "an http(s) URL");
    match text.parse::<Url>() {
        Ok(url) if is_http(&url) => url,
        _ => {
            env.problem(name, format!("must be an http(s) URL, as {default}"));
            fallback
        }
    }
}
