//! Routes: what an organisation calls its models, and who is asked for them. All of them are in memory,
//! read again when another replica says that they have changed.

mod choice;
mod http;
mod model;
mod store;

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use loom_core::{Error, Result, id::OrgId};

use self::choice::Choice;
pub(crate) use self::http::routes;
use crate::{LlmProxy, candidates::Candidates, dialect::Operation, provider::Target};

/// How the word for other replicas begins; the organisation's id follows.
pub(crate) const WORD: &str = "routes";

type OfOrg = Arc<HashMap<String, Choice>>;

/// The routes that are switched on, by organisation.
#[derive(Default)]
pub(crate) struct OrgRoutes {
    known: ArcSwap<HashMap<OrgId, OfOrg>>,
    /// What was read earlier is not stored later.
    reading: tokio::sync::Mutex<()>,
}

impl OrgRoutes {
    /// The names of an organisation's routes, sorted.
    pub(crate) fn names(&self, org: OrgId) -> Vec<String> {
        let known = self.known.load();
        let mut names: Vec<_> =
            known.get(&org).into_iter().flat_map(|routes| routes.keys().cloned()).collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn has(&self, org: OrgId, name: &str) -> bool {
        self.known.load().get(&org).is_some_and(|routes| routes.contains_key(name))
    }
}

impl LlmProxy {
    /// Who can be asked for a model, in this order.
    ///
    /// # Errors
    /// 404 `model_not_found`, 503 `feature_disabled`.
    pub(crate) fn candidates(
        &self,
        org: OrgId,
        surface: Operation,
        model: &str,
    ) -> Result<Candidates> {
        let known = self.org_routes.known.load();
        let Some(route) = known.get(&org).and_then(|routes| routes.get(model)) else {
            return self.providers.serving(surface, model).map(Into::into);
        };
        let targets = route.order().into_iter().filter_map(|target| {
            let provider = self
                .providers
                .usable(surface)
                .find(|provider| *provider.name == *target.provider)?;
            let rename = Some(target.model.clone());
            Some(Target { provider: Arc::clone(provider), rename, is_routed: true })
        });
        let targets: Vec<_> = targets.collect();
        if targets.is_empty() {
            return Err(Error::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "feature_disabled",
                format!("no provider of the route `{model}` has a credential and can be asked so"),
            ));
        }
        Ok(targets.into())
    }

    /// Reads the routes of an organisation, or of all.
    pub(crate) async fn read_routes(&self, org: Option<OrgId>) -> Result<()> {
        let _one_at_a_time = self.org_routes.reading.lock().await;
        let mut read: HashMap<OrgId, HashMap<String, Choice>> = HashMap::new();
        for (org, name, targets) in store::in_force(&self.pool, org).await? {
            read.entry(org).or_default().insert(name, Choice::new(targets));
        }
        let mut known = match org {
            None => HashMap::new(),
            Some(org) => {
                let mut known = HashMap::clone(&self.org_routes.known.load());
                known.remove(&org);
                known
            }
        };
        known.extend(read.into_iter().map(|(org, routes)| (org, Arc::new(routes))));
        self.org_routes.known.store(Arc::new(known));
        Ok(())
    }
}
