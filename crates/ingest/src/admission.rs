//! Who sends: the key that is shown, the project that it is of, the page that it comes from.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::{header, request::Parts};
use loom_core::{
    id::OrgId,
    origin,
    port::{Delivery, DsnKey},
    principal::RequestInfo,
};

use crate::{
    Ingest,
    credentials::{Dsn, Shown},
    refusal::Refusal,
};

/// A sender that is let in.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    pub(crate) key: Arc<DsnKey>,
    pub(crate) delivery: Delivery,
}

impl Sender {
    pub(crate) fn org(&self) -> Option<OrgId> {
        Some(self.delivery.project.org)
    }
}

/// What beside headers and query says who sends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// The number in the path.
    pub(crate) project: Option<i64>,
    /// In the first line of an envelope.
    pub(crate) dsn: Option<Dsn>,
    pub(crate) sdk: Option<String>,
    pub(crate) sent_at: Option<DateTime<Utc>>,
}

/// Longer names of programs are cut.
const MAX_NAME: usize = 512;

impl Ingest {
    /// # Errors
    /// 401 without a key, 400 for what is none, 403 for one that does not let in here.
    pub(crate) async fn admit(
        &self,
        parts: &Parts,
        shown: Shown,
        said: Said,
    ) -> Result<Sender, Refusal> {
        let Said { project, dsn, sdk, sent_at } = said;
        if let (Some(dsn), Some(project)) = (&dsn, project)
            && dsn.project != project
        {
            return Err(Refusal::malformed("the dsn of the envelope is of another project"));
        }
        let public_key = match (shown.key, dsn.as_ref()) {
            (Some(key), Some(dsn)) if !key.eq_ignore_ascii_case(&dsn.key) => {
                return Err(Refusal::malformed("the dsn of the envelope has another key"));
            }
            (Some(key), _) => key,
            (None, Some(dsn)) => dsn.key.clone(),
            (None, None) => {
                return Err(Refusal::unauthenticated(
                    "no key: send X-Sentry-Auth, ?sentry_key=, or an envelope with its dsn",
                ));
            }
        };
        if public_key.len() != 32 || !public_key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Refusal::malformed("the key of a DSN is 32 hexadecimal digits"));
        }
        let public_key = public_key.to_ascii_lowercase();
        let key = self.deps.projects.by_key(&public_key).await?;
        let key = key.ok_or_else(|| Refusal::forbidden("there is no such key"))?;
        let number = key.project.number;
        if [project, dsn.map(|dsn| dsn.project)].into_iter().flatten().any(|asked| asked != number)
        {
            return Err(Refusal::forbidden("this key is of another project"));
        }
        if !key.enabled {
            return Err(Refusal::forbidden("this key is switched off"));
        }
        let from = parts.headers.get(header::ORIGIN).and_then(|value| value.to_str().ok());
        if from.is_some_and(|from| !origin::is_allowed(&key.project.allowed_origins, from)) {
            return Err(Refusal::forbidden("pages of this origin may not send to this project"));
        }
        let user_agent = parts.headers.get(header::USER_AGENT);
        let user_agent = user_agent.and_then(|value| value.to_str().ok()).map(cut);
        let delivery = Delivery {
            project: Arc::clone(&key.project),
            key: Some(key.id),
            received_at: self.deps.clock.now(),
            sent_at: sent_at.or(shown.timestamp),
            client: parts.extensions.get::<RequestInfo>().map(|info| info.ip),
            sdk: sdk.or(shown.client).as_deref().map(cut).or_else(|| user_agent.clone()),
            user_agent,
        };
        Ok(Sender { key, delivery })
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_NAME).collect()
}
