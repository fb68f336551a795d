//! Making a weaver: the row first, then waiting until it runs.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use http::{HeaderMap, StatusCode, header};
use loom_core::{
    Error, Json, Principal, Result, error::Problem, id::WeaverId, principal::RequestInfo,
};
use loom_db::{Signal, Subscription};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    CHANNEL, Weavers,
    access::{self},
    draft::{Checked, WeaverDraft},
    identity::hours_to_millis,
    model::{Row, Status, pod_name},
    quantity,
    store::{self, list::Used},
    stream,
    tell::Kind,
    view::WeaverView,
};

const KEY: &str = "idempotency-key";
const LONGEST_KEY: usize = 255;

/// Create a weaver
///
/// A pod in the cluster, with a token of its own in `LOOM_TOKEN_FILE` by which it reaches this server and, through it,
/// models. Answers once it runs; with `wait: false` at once. The same `Idempotency-Key` makes one weaver.
#[utoipa::path(
    post,
    path = "/api/weaver",
    operation_id = "create_weaver",
    tag = "weavers",
    params(("idempotency-key" = Option<String>, Header, description = "1 to 255 printable ASCII characters; a repeated request gives the weaver that the first one made")),
    request_body = WeaverDraft,
    responses(
        (status = 201, description = "It runs, or has run", body = WeaverView),
        (status = 202, description = "It is on its way", body = WeaverView),
        (status = 400, description = "`malformed_json`, `invalid_idempotency_key`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The organisation", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_request`, `invalid_image`, `invalid_lifetime`, `idempotency_key_reused`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`too_many_weavers`: which quota, and what is used of it", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "`weaver_failed`: it could not be started; `reason_code` and `weaver_id` say more", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`feature_disabled`", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "`weaver_timeout`: it did not run in time, and was removed", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn create_weaver(
    State(weavers): State<Weavers>,
    principal: Principal,
    info: RequestInfo,
    headers: HeaderMap,
    Json(draft): Json<WeaverDraft>,
) -> Result<Response> {
    let principal = match &draft.org_id {
        Some(org) => weavers.deps.orgs.acting_in(&principal, org).await?,
        None => principal,
    };
    access::writes(&principal)?;
    weavers.require_enabled()?;
    let key = idempotency_key(&headers, &principal)?;
    let digest = digest(&draft)?;
    let waits = draft.wait.unwrap_or(true);
    let checked = draft.check(&principal, &weavers.config)?;
    // In this order: what happens to it in between is heard.
    let said = weavers.deps.hub.subscribe(CHANNEL);
    let made = weavers.make(&principal, checked, key.as_deref().map(|key| (key, &digest))).await?;
    if made.is_new {
        let details = json!({"image": made.row.spec.image, "network": made.row.network});
        let target = made.row.id.to_string();
        weavers.deps.audit.done(&principal, &info, "weaver.create", target, details).await?;
    }
    let location = [(header::LOCATION, format!("/api/weaver/{}", made.row.id))];
    if !waits {
        let view = weavers.view(made.row).await?;
        return Ok((StatusCode::ACCEPTED, location, Json(view)).into_response());
    }
    let row = weavers.wait_for(made.row, said).await?;
    let view = weavers.view(row).await?;
    Ok((StatusCode::CREATED, location, Json(view)).into_response())
}

/// Of whoever asks: two who choose the same key do not get each other's weavers.
fn idempotency_key(headers: &HeaderMap, principal: &Principal) -> Result<Option<String>> {
    let Some(value) = headers.get(KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let is_key = (1..=LONGEST_KEY).contains(&text.len())
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !is_key {
        return Err(Error::malformed(
            "invalid_idempotency_key",
            format!(
                "`{KEY}` must have 1 to {LONGEST_KEY} printable ASCII characters; a random UUID is a good one"
            ),
        ));
    }
    let whose = match principal.user_id() {
        Some(user) => user.to_string(),
        None => "service".to_owned(),
    };
    Ok(Some(format!("{whose} {text}")))
}

fn digest(draft: &WeaverDraft) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(draft).map_err(Error::internal)?;
    Ok(Sha256::digest(&json).to_vec())
}

struct Made {
    row: Row,
    is_new: bool,
}

impl Weavers {
    async fn make(
        &self,
        by: &Principal,
        checked: Checked,
        idempotency: Option<(&str, &Vec<u8>)>,
    ) -> Result<Made> {
        let now = self.deps.clock.now();
        let id = WeaverId::new(now);
        let sealed_env = self.seal_env(id, &checked.secrets)?;
        let lifetime = TimeDelta::milliseconds(hours_to_millis(checked.spec.lifetime_hours));
        let row = Row {
            id,
            org_id: by.org,
            owner_id: by.user_id(),
            installation: self.installation.clone(),
            spec: checked.spec,
            sealed_env,
            tags: checked.tags,
            network: checked.network,
            cpu_millis: checked.cpu_millis,
            memory_bytes: checked.memory_bytes,
            ephemeral_bytes: checked.ephemeral_bytes,
            budget_nanousd: checked.budget_nanousd,
            idle_timeout_secs: checked.idle_timeout_secs,
            status: Status::Pending,
            reason_code: None,
            reason: None,
            ending: None,
            pod_name: pod_name(id),
            pod_uid: None,
            node: None,
            trouble: None,
            restarts: 0,
            exit_code: None,
            created_at: now,
            scheduled_at: None,
            started_at: None,
            ready_at: None,
            exited_at: None,
            ended_at: None,
            expires_at: now + lifetime,
            warned_at: None,
            active_at: now,
            version: 1,
        };
        let mut tx = loom_db::begin(&self.deps.pool).await?;
        // Under the lock of the quota: the same request twice at a time makes one.
        let used = store::list::used(&mut tx, &self.installation, by.org, by.user_id()).await?;
        if let Some((key, digest)) = idempotency
            && let Some((earlier, of)) = store::list::by_key(&mut tx, by.org, key).await?
        {
            if of != *digest {
                return Err(Error::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "idempotency_key_reused",
                    "another request was sent with this idempotency key; a new request needs a new key",
                ));
            }
            let row = store::find(&mut tx, by.org, earlier).await?;
            return Ok(Made { row: row.ok_or_else(access::not_found)?, is_new: false });
        }
        self.check_quota(&used, &row)?;
        store::insert(&mut tx, &row, idempotency.map(|(key, of)| (key, of.as_slice()))).await?;
        self.told(&mut tx, &row, Kind::Created).await?;
        tx.commit().await?;
        self.deps.notify.wake();
        metrics::counter!("loom_weavers_created_total").increment(1);
        self.look_at(id);
        self.announce(&row);
        Ok(Made { row, is_new: true })
    }

    /// # Errors
    /// 429 that says which quota, and what is used.
    fn check_quota(&self, used: &Used, wanted: &Row) -> Result<()> {
        let config = &self.config;
        let full = |which: &str, used: String, limit: String| {
            Err(Error::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_weavers",
                format!(
                    "{used} of {limit} {which} are in use; delete a weaver that is not needed, or try again when one has ended"
                ),
            )
            .with("quota", which)
            .with("used", used)
            .with("limit", limit)
            .retry_after(std::time::Duration::from_secs(60)))
        };
        for (which, used, limit) in [
            ("weavers of this installation", used.all, config.max_total),
            ("weavers of this organisation", used.of_org, config.max_per_org),
            ("weavers of this user", used.of_user, config.max_per_user),
        ] {
            // Service keys are nobody in particular: the organisation's quota is theirs.
            let concerns = which != "weavers of this user" || wanted.owner_id.is_some();
            if concerns && used >= limit {
                return full(which, used.to_string(), limit.to_string());
            }
        }
        if let Some(cores) = config.max_cpu
            && used.cpu_millis + wanted.cpu_millis > cores * 1000
        {
            let used = quantity::cores(used.cpu_millis);
            return full("cores of this organisation", used, cores.to_string());
        }
        if let Some(gib) = config.max_memory_gib
            && used.memory_bytes + wanted.memory_bytes > gib << 30
        {
            let used = quantity::bytes(used.memory_bytes);
            return full("memory of this organisation", used, format!("{gib}Gi"));
        }
        Ok(())
    }

    /// Until it runs, or is over.
    ///
    /// # Errors
    /// 502 when it failed, 504 when it does not run in time: then it is removed.
    async fn wait_for(&self, row: Row, said: Subscription) -> Result<Row> {
        let (org, id) = (row.org_id, row.id);
        let waiting = self.until_settled(row, said);
        let Ok(row) = tokio::time::timeout(self.config.ready_timeout, waiting).await else {
            let mut db = self.deps.pool.acquire().await?;
            let row = store::find(&mut db, org, id).await?.ok_or_else(access::not_found)?;
            drop(db);
            if row.status != Status::Pending {
                return settled(row);
            }
            let secs = self.config.ready_timeout.as_secs();
            let waits = row.trouble.as_ref().map(|trouble| format!(": {}", trouble.message));
            let why = format!("did not run within {secs} seconds{}", waits.unwrap_or_default());
            self.have_end(&row, Status::Failed, "ready_timeout", &why).await?;
            return Err(Error::new(
                StatusCode::GATEWAY_TIMEOUT,
                "weaver_timeout",
                format!("the weaver {why}; it was removed"),
            )
            .with("weaver_id", id.to_string()));
        };
        settled(row?)
    }

    async fn until_settled(&self, mut row: Row, mut said: Subscription) -> Result<Row> {
        while row.status == Status::Pending && row.ending.is_none() {
            let Some(signal) = said.next().await else {
                return Err(Error::unavailable("the server is stopping; the weaver is on its way"));
            };
            let concerns = match &signal {
                Signal::ReadAgain => true,
                Signal::Said(word) => stream::told(word).is_some_and(|told| told.id == row.id),
            };
            if concerns {
                let mut db = self.deps.pool.acquire().await?;
                row = store::find(&mut db, row.org_id, row.id)
                    .await?
                    .ok_or_else(access::not_found)?;
            }
        }
        Ok(row)
    }
}

fn settled(row: Row) -> Result<Row> {
    let has_run = row.started_at.is_some();
    // One that was over before anybody looked is still being taken down.
    let status = row.ending.unwrap_or(row.status);
    let is_well = matches!(status, Status::Running | Status::Succeeded);
    if is_well || (has_run && status == Status::Failed && row.exit_code.is_some()) {
        return Ok(row);
    }
    let why = row.reason.clone().unwrap_or_else(|| format!("it is {}", row.status.as_str()));
    Err(Error::new(
        StatusCode::BAD_GATEWAY,
        "weaver_failed",
        format!("the weaver could not be started: {why}"),
    )
    .with("weaver_id", row.id.to_string())
    .with("reason_code", row.reason_code))
}
