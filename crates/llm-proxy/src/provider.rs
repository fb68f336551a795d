//! The configured providers, their credentials, and which of them serves a model.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use axum::http::HeaderValue;
use loom_common_secret::SecretString;
use loom_core::{Error, Result, id::CredentialId};
use reqwest::Url;

use crate::{
    config::{Config, ProviderConfig},
    demo,
    dialect::{Dialect, Operation},
    measures::Measures,
};

/// Somewhere that models are served.
pub(crate) struct Provider {
    pub(crate) name: Arc<str>,
    pub(crate) dialect: Dialect,
    base_url: Url,
    urls: [(Operation, Url); 5],
    pub(crate) models: Vec<String>,
    responses: bool,
    keyless: bool,
    from_env: Option<Credential>,
    stored: ArcSwap<Vec<Credential>>,
    next: AtomicUsize,
    /// It answered 400 to `stream_options`; its streams go without, their tokens unknown.
    pub(crate) refuses_stream_options: AtomicBool,
    pub(crate) measures: Arc<Measures>,
    /// The last request got no sound answer.
    pub(crate) failing: AtomicBool,
}

/// A key of a provider's, ready to be sent.
#[derive(Clone)]
pub(crate) struct Credential {
    /// None for the one from the environment.
    pub(crate) id: Option<CredentialId>,
    pub(crate) name: String,
    pub(crate) secret: SecretString,
    /// As it stands in the header, marked sensitive.
    pub(crate) header: HeaderValue,
}

impl Credential {
    pub(crate) fn new(
        id: Option<CredentialId>,
        name: String,
        secret: SecretString,
        dialect: Dialect,
    ) -> Option<Self> {
        let text = match dialect {
            Dialect::Anthropic => Cow::Borrowed(secret.expose()),
            Dialect::OpenAi => Cow::Owned(format!("Bearer {}", secret.expose())),
        };
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(Self { id, name, secret, header })
    }
}

impl Provider {
    fn new(config: &ProviderConfig) -> Self {
        let dialect = config.dialect;
        let url = |operation: Operation| (operation, join(&config.base_url, operation.path()));
        let from_env = config
            .api_key
            .clone()
            .and_then(|secret| Credential::new(None, "environment".to_owned(), secret, dialect));
        Self {
            name: config.name.as_str().into(),
            dialect,
            base_url: config.base_url.clone(),
            urls: Operation::ALL.map(url),
            models: config.models.clone(),
            responses: config.responses,
            keyless: config.keyless,
            from_env,
            stored: ArcSwap::default(),
            next: AtomicUsize::new(0),
            refuses_stream_options: AtomicBool::new(false),
            measures: Arc::new(Measures::new(&config.name)),
            failing: AtomicBool::new(false),
        }
    }

    /// The address of an operation.
    pub(crate) fn url(&self, operation: Operation) -> Url {
        self.urls
            .iter()
            .find(|(of, _)| *of == operation)
            .map_or_else(|| join(&self.base_url, operation.path()), |(_, url)| url.clone())
    }

    /// The address of the list of models, or of one of them.
    pub(crate) fn models_url(&self, id: Option<&str>) -> Url {
        let mut url = join(
            &self.base_url,
            if self.dialect == Dialect::Anthropic { "/v1/models" } else { "/models" },
        );
        if let (Some(id), Ok(mut segments)) = (id, url.path_segments_mut()) {
            segments.push(id);
        }
        url
    }

    pub(crate) fn is_demo(&self) -> bool {
        &*self.name == demo::PROVIDER
    }

    /// OpenAI itself, and not one that is compatible.
    pub(crate) fn is_openai(&self) -> bool {
        &*self.name == "openai"
    }

    fn is_vendor(&self) -> bool {
        self.is_openai() || &*self.name == "anthropic"
    }

    /// Does it take this operation as it is? What it does not is put into other words.
    pub(crate) fn speaks(&self, operation: Operation) -> bool {
        match operation {
            _ if self.is_demo() => true,
            Operation::Responses => self.responses,
            _ => self.dialect == operation.dialect(),
        }
    }

    pub(crate) fn is_configured(&self) -> bool {
        self.keyless || self.from_env.is_some() || !self.stored.load().is_empty()
    }

    /// # Errors
    /// 503 `feature_disabled` when it wants a credential and there is none.
    pub(crate) fn must_be_configured(&self) -> Result<()> {
        if self.is_configured() { Ok(()) } else { Err(self.not_configured()) }
    }

    /// It took a request that differs from a refused one by nothing but `stream_options`.
    pub(crate) fn note_refusal_of_stream_options(&self) {
        tracing::warn!(
            provider = &*self.name,
            "the provider refuses stream_options; the tokens of its streams will be unknown"
        );
        self.refuses_stream_options.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_stored(&self, credentials: Vec<Credential>) {
        self.stored.store(Arc::new(credentials));
    }

    pub(crate) fn credential_count(&self) -> usize {
        usize::from(self.from_env.is_some()) + self.stored.load().len()
    }

    /// The next credential, in turn. None: the provider wants none.
    ///
    /// # Errors
    /// 503 `feature_disabled` when it wants one and there is none.
    pub(crate) fn credential(&self) -> Result<Option<Credential>> {
        let stored = self.stored.load();
        let count = usize::from(self.from_env.is_some()) + stored.len();
        if count == 0 {
            return if self.keyless { Ok(None) } else { Err(self.not_configured()) };
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % count;
        Ok(self.from_env.iter().chain(stored.iter()).nth(turn).cloned())
    }

    /// Every credential, for a test; one `None` when the provider wants none.
    pub(crate) fn all_credentials(&self) -> Vec<Option<Credential>> {
        let all: Vec<_> =
            self.from_env.iter().chain(self.stored.load().iter()).cloned().map(Some).collect();
        if all.is_empty() { vec![None] } else { all }
    }

    fn not_configured(&self) -> Error {
        let upper = self.name.to_uppercase().replace('-', "_");
        Error::new(
            http::StatusCode::SERVICE_UNAVAILABLE,
            "feature_disabled",
            format!(
                "no credential for the provider `{}`: set LOOM_SERVER_{upper}_API_KEY or run `loom-server llm credential add {}`",
                self.name, self.name
            ),
        )
    }
}

/// `base` with `path` behind whatever path it has.
fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

/// All providers of this server.
pub(crate) struct Providers(Vec<Arc<Provider>>);

/// Where a request goes.
pub(crate) struct Target {
    pub(crate) provider: Arc<Provider>,
    /// The model's name there, when the client's had the provider's name before it.
    pub(crate) rename: Option<String>,
}

impl Providers {
    pub(crate) fn new(config: &Config) -> Self {
        let mut all: Vec<_> =
            config.providers.iter().map(|provider| Arc::new(Provider::new(provider))).collect();
        if config.demo {
            all.push(Arc::new(Provider::new(&demo::config())));
        }
        Self(all)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.0.iter()
    }

    /// By name, whether it has a credential or not.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Provider>> {
        self.0.iter().find(|provider| &*provider.name == name)
    }

    /// The configured providers that can be asked by an operation, in its own words or others.
    pub(crate) fn usable(&self, operation: Operation) -> impl Iterator<Item = &Arc<Provider>> {
        let in_others = !matches!(operation, Operation::CountTokens | Operation::Embeddings);
        self.0.iter().filter(move |p| p.is_configured() && (in_others || p.speaks(operation)))
    }

    /// Who serves `model` on this wire: the demo its own; then the provider whose name stands before
    /// it (`groq/llama-3`); then one that lists it; then the vendor whose name for a model it is; then
    /// the wire's own vendor; then the only one that speaks the wire; then the only one.
    ///
    /// # Errors
    /// 404 `model_not_found`, 503 `feature_disabled`.
    pub(crate) fn serving(&self, operation: Operation, model: &str) -> Result<Target> {
        let usable = || self.usable(operation).filter(|p| !p.is_demo());
        let target =
            |provider: &Arc<Provider>| Ok(Target { provider: Arc::clone(provider), rename: None });
        if model == demo::MODEL
            && let Some(provider) = self.named(demo::PROVIDER)
        {
            return target(provider);
        }
        if let Some((name, rest)) = model.split_once('/')
            && let Some(provider) = usable().find(|p| &*p.name == name)
            && !rest.is_empty()
        {
            return Ok(Target { provider: Arc::clone(provider), rename: Some(rest.to_owned()) });
        }
        if let Some(provider) = usable().find(|p| p.models.iter().any(|known| known == model)) {
            return target(provider);
        }
        let own = match operation.dialect() {
            Dialect::Anthropic => "anthropic",
            Dialect::OpenAi => "openai",
        };
        let family = family(model);
        for vendor in [family, Some(own)].into_iter().flatten() {
            if let Some(provider) = usable().find(|p| &*p.name == vendor) {
                return target(provider);
            }
        }
        let mut speaking = usable().filter(|p| p.speaks(operation));
        if let (Some(only), None) = (speaking.next(), speaking.next()) {
            return target(only);
        }
        let mut others = usable();
        if let (Some(only), None) = (others.next(), others.next())
            // The one vendor does not have the other's models.
            && (family.is_none() || !only.is_vendor())
        {
            return target(only);
        }
        if usable().any(|p| !p.is_vendor()) || self.usable(operation).any(|p| p.is_demo()) {
            return Err(model_not_found(model, self.usable(operation)));
        }
        Err(self.named(own).map_or_else(|| Error::not_found("provider"), |p| p.not_configured()))
    }
}

/// The vendor that calls its models so.
fn family(model: &str) -> Option<&'static str> {
    let is_o = |name: &str| {
        let mut name = name.chars();
        name.next() == Some('o') && name.next().is_some_and(|digit| digit.is_ascii_digit())
    };
    let base = model.strip_prefix("ft:").unwrap_or(model);
    if model.starts_with("claude-") {
        Some("anthropic")
    } else if ["gpt-", "chatgpt-", "codex-"].iter().any(|name| base.starts_with(name)) || is_o(base)
    {
        Some("openai")
    } else {
        None
    }
}

fn model_not_found<'a>(model: &str, speaking: impl Iterator<Item = &'a Arc<Provider>>) -> Error {
    let names: Vec<_> = speaking
        .map(|p| if p.is_demo() { format!("`{}`", demo::MODEL) } else { format!("`{}/…`", p.name) })
        .collect();
    Error::new(
        http::StatusCode::NOT_FOUND,
        "model_not_found",
        format!(
            "no provider here serves `{}`; there are {}",
            loom_core::text::cut(model, 100),
            names.join(", ")
        ),
    )
}
