//! Settings of the LLM proxy.

use std::time::Duration;

use loom_common_secret::SecretString;
use loom_core::config::Env;
use reqwest::Url;

use crate::{dialect::Dialect, pool, vertex};

#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) providers: Vec<ProviderConfig>,
    /// The built-in provider `demo` with the model `loom-demo`.
    pub demo: bool,
    pub(crate) timeouts: Timeouts,
    pub(crate) retention: Duration,
    pub(crate) pool: pool::Config,
    /// The files that assertions of the workload are read from.
    pub(crate) assertion_files: Vec<String>,
    pub(crate) drain: crate::drain::Config,
}

#[derive(Clone, Debug)]
pub(crate) struct ProviderConfig {
    pub(crate) name: String,
    pub(crate) dialect: Dialect,
    /// As the provider's own SDK writes it: OpenAI's with `/v1`, Anthropic's without.
    pub(crate) base_url: Url,
    pub(crate) api_key: Option<SecretString>,
    /// Callers may send a token of their own in place of ours.
    pub(crate) callers_tokens: bool,
    /// A compatible provider may do without a key.
    pub(crate) keyless: bool,
    pub(crate) models: Vec<String>,
    /// It has the responses wire beside the chat one.
    pub(crate) responses: bool,
    /// Of Vertex.
    pub(crate) place: Option<Place>,
}

/// Whose models of Vertex, and where.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// None: it cannot be asked.
    pub(crate) project: Option<String>,
    pub(crate) region: String,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    /// Until the provider's response begins.
    pub(crate) first_byte: Duration,
    /// Between two pieces of a response.
    pub(crate) idle: Duration,
    /// For all of a request, whoever is asked in turn, to the end of the reply.
    pub(crate) total: Duration,
    /// A client of a stream hears something at least so often.
    pub(crate) keep_alive: Duration,
    /// How often a request is sent again to the same place after a failure that may pass.
    pub(crate) retries: u32,
}

impl Config {
    pub fn load(env: &mut Env) -> Self {
        let mut providers = vec![
            ProviderConfig {
                name: "anthropic".to_owned(),
                dialect: Dialect::Anthropic,
                base_url: url(env, "LOOM_SERVER_ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
                api_key: env.secret("LOOM_SERVER_ANTHROPIC_API_KEY"),
                callers_tokens: false,
                keyless: false,
                models: Vec::new(),
                responses: false,
                place: None,
            },
            ProviderConfig {
                name: "openai".to_owned(),
                dialect: Dialect::OpenAi,
                base_url: url(env, "LOOM_SERVER_OPENAI_BASE_URL", "https://api.openai.com/v1"),
                api_key: env.secret("LOOM_SERVER_OPENAI_API_KEY"),
                callers_tokens: false,
                keyless: false,
                models: Vec::new(),
                responses: true,
                place: None,
            },
            vertex(env),
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
                callers_tokens: false,
                keyless,
                models,
                responses,
                place: None,
            });
        }
        let timeouts = Timeouts {
            connect: env.secs("LOOM_SERVER_LLM_CONNECT_TIMEOUT_SECS", 10, 1, 300),
            first_byte: env.secs("LOOM_SERVER_LLM_FIRST_BYTE_TIMEOUT_SECS", 600, 1, 3600),
            idle: env.secs("LOOM_SERVER_LLM_IDLE_TIMEOUT_SECS", 300, 1, 3600),
            total: env.secs("LOOM_SERVER_LLM_TOTAL_TIMEOUT_SECS", 3600, 1, 86_400),
            keep_alive: env.secs("LOOM_SERVER_LLM_KEEP_ALIVE_SECS", 15, 1, 3600),
            retries: env.number("LOOM_SERVER_LLM_RETRIES", 1_u32, 0, 10),
        };
        let callers = "LOOM_SERVER_LLM_CALLER_TOKENS";
        for name in env.list(callers) {
            match providers.iter_mut().find(|provider| provider.name == name) {
                Some(provider) => provider.callers_tokens = true,
                None => env.problem(callers, format!("`{name}` is no configured provider")),
            }
        }
        let days = env.number("LOOM_SERVER_LLM_REQUEST_RETENTION_DAYS", 90_u64, 1, 3650);
        let drain = crate::drain::Config::load(env);
        Self {
            providers,
            demo: false,
            timeouts,
            retention: Duration::from_secs(days * 24 * 3600),
            drain,
            pool: pool::Config::load(env),
            assertion_files: env.list("LOOM_SERVER_LLM_ASSERTION_FILES"),
        }
    }
}

fn vertex(env: &mut Env) -> ProviderConfig {
    let region = env.get("LOOM_SERVER_VERTEX_REGION", "global".to_owned(), "a region of Google's");
    let project = env.optional::<String>("LOOM_SERVER_VERTEX_PROJECT", "the id of a project");
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-:.".contains(&b))
    };
    if !is_name(&region) {
        env.problem("LOOM_SERVER_VERTEX_REGION", "must be as europe-west1, eu, us or global");
    }
    if project.as_deref().is_some_and(|project| !is_name(project)) {
        env.problem("LOOM_SERVER_VERTEX_PROJECT", "must be the id of a project, as my-project-123");
    }
    let region = if is_name(&region) { region } else { "global".to_owned() };
    ProviderConfig {
        name: vertex::PROVIDER.to_owned(),
        dialect: Dialect::Gemini,
        base_url: url(env, "LOOM_SERVER_VERTEX_BASE_URL", &vertex::base_url(&region)),
        api_key: env.secret("LOOM_SERVER_VERTEX_SERVICE_ACCOUNT"),
        keyless: false,
        models: env.list("LOOM_SERVER_VERTEX_MODELS"),
        callers_tokens: false,
        responses: false,
        place: Some(Place { project, region }),
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
