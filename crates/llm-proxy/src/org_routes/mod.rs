//! Routes: what an organisation calls its models, and who is asked for them. All of them are in memory,
//! read again when another replica says that they have changed.

mod choice;
mod http;
mod model;
mod store;

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use loom_core::{Error, Result, id::OrgId};
use loom_db::{Signal, Subscription};

use self::choice::Choice;
pub(crate) use self::http::routes;
use crate::{LlmProxy, candidates::Candidates, dialect::Operation, provider::Target};

/// How the word for other replicas begins; the organisation's id follows.
const WORD: &str = "routes ";
/// Before routes that could not be read are read again.
const PAUSE: Duration = Duration::from_secs(1);

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

    fn set(&self, org: OrgId, routes: HashMap<String, Choice>) {
        let mut all = HashMap::clone(&self.known.load());
        if routes.is_empty() {
            all.remove(&org);
        } else {
            all.insert(org, Arc::new(routes));
        }
        self.known.store(Arc::new(all));
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

    pub(crate) async fn read_routes_of(&self, org: OrgId) -> Result<()> {
        let _one_at_a_time = self.org_routes.reading.lock().await;
        let routes = store::list(&self.pool, org).await?;
        let on = routes.into_iter().filter(|route| route.enabled);
        let routes = on.map(|route| (route.name, Choice::new(route.targets))).collect();
        self.org_routes.set(org, routes);
        Ok(())
    }

    /// Reads the routes of all organisations.
    pub(crate) async fn read_routes(&self) -> Result<()> {
        let mut orgs = store::organisations(&self.pool).await?;
        orgs.extend(self.org_routes.known.load().keys().copied());
        orgs.sort_unstable();
        orgs.dedup();
        for org in orgs {
            self.read_routes_of(org).await?;
        }
        Ok(())
    }

    /// Goes on for as long as the process does.
    pub(crate) async fn listen_for_routes(self, mut words: Subscription) {
        while let Some(signal) = words.next().await {
            let org = match &signal {
                Signal::Said(said) => match said.strip_prefix(WORD) {
                    Some(org) => org.parse::<OrgId>().ok(),
                    None => continue,
                },
                Signal::ReadAgain => None,
            };
            loop {
                let read = match org {
                    Some(org) => self.read_routes_of(org).await,
                    None => self.read_routes().await,
                };
                let Err(error) = read else { break };
                if self.pool.is_closed() {
                    return;
                }
                tracing::warn!(?error, "the routes of models could not be read; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
