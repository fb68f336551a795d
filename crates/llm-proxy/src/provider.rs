//! The configured providers, their credentials, and which of them serves a model.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::HeaderMap;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use loom_core::{Clock, Error, Result};
use reqwest::Url;

use crate::{
    config::{Config, ProviderConfig},
    demo,
    dialect::{Dialect, Operation},
    measures::Measures,
    pool::{CredentialKey, Keeper, Lease, Pool, Unavailable, retry_after},
    vertex,
};

/// Somewhere that models are served.
pub(crate) struct Provider {
    pub(crate) name: Arc<str>,
    pub(crate) dialect: Dialect,
    base_url: Url,
    urls: [(Operation, Url); 5],
    /// Of Vertex, once it is known whose: below which all models are.
    publishers: Option<Url>,
    pub(crate) models: Vec<String>,
    responses: bool,
    pub(crate) pool: Pool,
    /// It answered 400 to `stream_options`; its streams go without, their tokens unknown.
    pub(crate) refuses_stream_options: AtomicBool,
    pub(crate) measures: Arc<Measures>,
    /// The last request got no sound answer.
    pub(crate) failing: AtomicBool,
}

impl Provider {
    fn new(config: &ProviderConfig, pool: Pool) -> Self {
        let dialect = config.dialect;
        let url = |operation: Operation| (operation, join(&config.base_url, operation.path()));
        Self {
            name: config.name.as_str().into(),
            dialect,
            base_url: config.base_url.clone(),
            urls: [
                Operation::Messages,
                Operation::CountTokens,
                Operation::Chat,
                Operation::Responses,
                Operation::Embeddings,
            ]
            .map(url),
            publishers: config.place.as_ref().and_then(|place| {
                let project = place.project.as_deref()?;
                Some(vertex::models_url(&config.base_url, project, &place.region))
            }),
            models: config.models.clone(),
            responses: config.responses,
            pool,
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

    /// Where a request goes, with what of the client's query, and its body as it is there.
    ///
    /// # Errors
    /// 400 when no address can be made of it, 503 when it is not known whose Vertex it is.
    pub(crate) fn addressed(
        &self,
        operation: Operation,
        query: Option<&str>,
        body: Bytes,
    ) -> Result<(Url, Bytes)> {
        if self.is_vertex() {
            let publishers = self.publishers.as_ref().ok_or_else(|| self.not_configured())?;
            return vertex::addressed(publishers, operation, &body);
        }
        let mut url = self.url(operation);
        url.set_query(query);
        Ok((url, body))
    }

    /// The address of the list of models, or of one of them.
    pub(crate) fn models_url(&self, id: Option<&str>) -> Url {
        if self.is_vertex() {
            // It has no list of all publishers' models; this one tells whether it lets us in.
            return join(&self.base_url, "/publishers/google/models/gemini-2.5-flash");
        }
        let mut url = join(
            &self.base_url,
            if self.dialect == Dialect::Anthropic { "/v1/models" } else { "/models" },
        );
        if let (Some(id), Ok(mut segments)) = (id, url.path_segments_mut()) {
            segments.push(id);
        }
        url
    }

    /// By which of its operations a native request asks it for a model.
    pub(crate) fn native_operation(&self, model: &str) -> Operation {
        match self.dialect {
            Dialect::Anthropic => Operation::Messages,
            Dialect::OpenAi => Operation::Chat,
            Dialect::Gemini if vertex::is_claude(model) => Operation::Messages,
            Dialect::Gemini => Operation::GenerateContent,
        }
    }

    pub(crate) fn is_demo(&self) -> bool {
        &*self.name == demo::PROVIDER
    }

    /// OpenAI itself, and not one that is compatible.
    pub(crate) fn is_openai(&self) -> bool {
        &*self.name == "openai"
    }

    pub(crate) fn is_vertex(&self) -> bool {
        &*self.name == vertex::PROVIDER
    }

    /// The models that the configuration names.
    pub(crate) fn models(&self) -> &[String] {
        &self.models
    }

    fn is_vendor(&self) -> bool {
        self.is_openai() || self.is_vertex() || &*self.name == "anthropic"
    }

    /// Does it take this operation as it is, for this model? What it does not is put into other words.
    pub(crate) fn speaks(&self, operation: Operation, model: &str) -> bool {
        match operation {
            _ if self.is_demo() => true,
            _ if self.is_vertex() && vertex::is_claude(model) => {
                matches!(operation, Operation::Messages | Operation::CountTokens)
            }
            Operation::Responses => self.responses,
            _ => self.dialect == operation.dialect(),
        }
    }

    pub(crate) fn is_configured(&self) -> bool {
        let is_whose = !self.is_vertex() || self.publishers.is_some();
        is_whose && !self.pool.is_empty()
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

    /// The credential for the next request, or for its next attempt.
    ///
    /// # Errors
    /// When there is none, or none that may be used now.
    pub(crate) fn lease(
        &self,
        tried: &[CredentialKey],
        now: DateTime<Utc>,
    ) -> Result<Lease, Unavailable> {
        self.pool.lease(tried, now)
    }

    /// [`Provider::lease`], or the caller's own token if one came along.
    ///
    /// # Errors
    /// As for `lease`; 400 where callers' own tokens are not taken.
    pub(crate) fn lease_for(
        &self,
        headers: &HeaderMap,
        tried: &[CredentialKey],
        now: DateTime<Utc>,
    ) -> Result<Lease> {
        match self.pool.callers(&self.name, headers)? {
            Some(callers) if tried.contains(&callers.key()) => {
                Err(Unavailable::NoneLeft.of(&self.name))
            }
            Some(callers) => Ok(callers),
            None => self.lease(tried, now).map_err(|why| why.of(&self.name)),
        }
    }

    /// When its credentials all wait for rate limits: that of the first that will not, in whole seconds,
    /// where this answer names a later time, or none.
    pub(crate) fn sooner(&self, answer: &HeaderMap, now: DateTime<Utc>) -> Option<u64> {
        let whole = |wait: Duration| wait.as_millis().div_ceil(1000);
        let left = whole(self.pool.rests(now)?);
        let is_sooner = retry_after(answer, now).is_none_or(|told| left < whole(told));
        is_sooner.then(|| u64::try_from(left).unwrap_or(u64::MAX))
    }

    /// Where its own tokens come from, if it is Anthropic's API.
    pub(crate) fn own_token_url(&self) -> Option<String> {
        let is_anthropic = &*self.name == "anthropic";
        is_anthropic.then(|| join(&self.base_url, "/v1/oauth/token").into())
    }

    fn not_configured(&self) -> Error {
        if self.is_vertex() && self.publishers.is_none() {
            return Error::new(
                http::StatusCode::SERVICE_UNAVAILABLE,
                "feature_disabled",
                "no project for the provider `vertex`: set LOOM_SERVER_VERTEX_PROJECT",
            );
        }
        if self.is_vertex() {
            return Error::new(
                http::StatusCode::SERVICE_UNAVAILABLE,
                "feature_disabled",
                "no credential for the provider `vertex`: set LOOM_SERVER_VERTEX_SERVICE_ACCOUNT_FILE or store a service account",
            );
        }
        Unavailable::NotConfigured.of(&self.name)
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
    /// The model's name there, when the client's had the provider's name before it, or is a route's.
    pub(crate) rename: Option<String>,
    pub(crate) is_routed: bool,
}

impl Target {
    /// The model's name there, where a route chose it.
    pub(crate) fn routed(&self) -> Option<&str> {
        self.rename.as_deref().filter(|_| self.is_routed)
    }
}

impl Providers {
    pub(crate) fn new(config: &Config, clock: &Clock, keeper: Option<&Arc<Keeper>>) -> Self {
        let new = |provider: &ProviderConfig| {
            let pool = Pool::new(provider, config.pool, clock.clone(), keeper);
            Arc::new(Provider::new(provider, pool))
        };
        let mut all: Vec<_> = config.providers.iter().map(new).collect();
        if config.demo {
            all.push(new(&demo::config()));
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
        let in_others = operation != Operation::Embeddings;
        self.0.iter().filter(move |p| p.is_configured() && (in_others || p.speaks(operation, "")))
    }

    /// Who serves `model` on this wire: the demo its own; then the provider whose name stands before
    /// it (`groq/llama-3`); then one that lists it; then the vendor whose name for a model it is; then
    /// the wire's own vendor; then the only one that speaks the wire; then the only one.
    ///
    /// # Errors
    /// 404 `model_not_found`, 503 `feature_disabled`.
    pub(crate) fn serving(&self, operation: Operation, model: &str) -> Result<Target> {
        let usable = || self.usable(operation).filter(|p| !p.is_demo());
        let target = |provider: &Arc<Provider>| {
            Ok(Target { provider: Arc::clone(provider), rename: None, is_routed: false })
        };
        if model == demo::MODEL
            && let Some(provider) = self.named(demo::PROVIDER)
        {
            return target(provider);
        }
        if let Some((name, rest)) = model.split_once('/')
            && let Some(provider) = usable().find(|p| &*p.name == name)
            && !rest.is_empty()
        {
            let rename = Some(rest.to_owned());
            return Ok(Target { provider: Arc::clone(provider), rename, is_routed: false });
        }
        if let Some(provider) = usable().find(|p| p.models.iter().any(|known| known == model)) {
            return target(provider);
        }
        let own = match operation.dialect() {
            Dialect::Anthropic => "anthropic",
            Dialect::OpenAi | Dialect::Gemini => "openai",
        };
        let family = family(model);
        for vendor in family.iter().copied().chain([own]) {
            if let Some(provider) = usable().find(|p| &*p.name == vendor) {
                return target(provider);
            }
        }
        let mut speaking = usable().filter(|p| p.speaks(operation, model));
        if let (Some(only), None) = (speaking.next(), speaking.next()) {
            return target(only);
        }
        let mut others = usable();
        if let (Some(only), None) = (others.next(), others.next())
            // The one vendor does not have the other's models.
            && (family.is_empty() || !only.is_vendor())
        {
            return target(only);
        }
        if usable().any(|p| !p.is_vendor()) || self.usable(operation).any(|p| p.is_demo()) {
            return Err(model_not_found(model, self.usable(operation)));
        }
        Err(self.named(own).map_or_else(|| Error::not_found("provider"), |p| p.not_configured()))
    }
}

/// The vendors of models that are called so, the first one first.
fn family(model: &str) -> &'static [&'static str] {
    let is_o = |name: &str| {
        let mut name = name.chars();
        name.next() == Some('o') && name.next().is_some_and(|digit| digit.is_ascii_digit())
    };
    let base = model.strip_prefix("ft:").unwrap_or(model);
    if model.starts_with("claude-") {
        &["anthropic", vertex::PROVIDER]
    } else if model.starts_with("gemini-") {
        &[vertex::PROVIDER]
    } else if ["gpt-", "chatgpt-", "codex-"].iter().any(|name| base.starts_with(name)) || is_o(base)
    {
        &["openai"]
    } else {
        &[]
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
