//! The routes of alerts.

use std::collections::BTreeMap;

use axum::{extract::State, http::StatusCode};
use chrono::TimeDelta;
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action as Act, authorize},
    error::Problem,
    id::{AlertRuleId, DeliveryId, OrgId, ProjectId},
    page::{PageQuery, cut},
    principal::{RequestInfo, Scope},
};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    model::{
        Check, CrashAlertAction, CrashAlertRule, CrashAlertRuleChange, CrashAlertRuleWithSecrets,
        CrashAlertRules, CrashAlertSnooze, CrashAlertTold, CrashAlertToldPage, NewCrashAlertAction,
        NewCrashAlertRule, interval,
    },
    store::{self, Telling},
    tell::Said,
};
use crate::Crashes;

const LIST: &str = "crash_alerts";
/// Of one project.
const MOST: usize = 100;
const LONGEST_SNOOZE: i32 = 43_200;

/// The alerts of a project
#[utoipa::path(get, path = "/api/crash/projects/{project}/alerts", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug")),
    responses((status = 200, body = CrashAlertRules),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_crash_alerts(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(named): Path<String>,
) -> Result<Json<CrashAlertRules>> {
    authorize(&principal, Act::Use(Scope::CrashesRead))?;
    let project = crashes.project(&principal, &named).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    Ok(Json(CrashAlertRules { alerts: store::list(&mut db, principal.org, project.id).await? }))
}

/// Make an alert
///
/// The answer holds the secrets of its webhooks, which are not shown again. What they are sent is signed:
/// `x-loom-signature-256` is `sha256=` and the HMAC-SHA256 of the body; the headers of the Standard Webhooks
/// are there, too.
#[utoipa::path(post, path = "/api/crash/projects/{project}/alerts", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug")), request_body = NewCrashAlertRule,
    responses((status = 201, body = CrashAlertRuleWithSecrets),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`too_many_webhooks`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Also a URL that leads to no public address", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`quota_exceeded`", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create_crash_alert(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path(named): Path<String>,
    Json(new): Json<NewCrashAlertRule>,
) -> Result<(StatusCode, Json<CrashAlertRuleWithSecrets>)> {
    authorize(&principal, Act::ManageOrg(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    let now = crashes.deps.clock.now();
    let min_interval_minutes = interval(new.min_interval_minutes, &new.condition);
    Check {
        name: &new.name,
        condition: &new.condition,
        filters: &new.filters,
        actions: Some(&new.actions),
        min_interval_minutes,
    }
    .run(|url| crashes.deps.notify.check_hook(url))?;
    let mut rule = CrashAlertRule {
        id: AlertRuleId::new(now),
        project_id: project.id,
        name: new.name,
        condition: new.condition,
        filters: new.filters,
        actions: Vec::new(),
        min_interval_minutes,
        enabled: new.enabled,
        snoozed_until: None,
        created_at: now,
        updated_at: now,
    };
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    if store::list(&mut tx, principal.org, project.id).await?.len() >= MOST {
        let detail = format!("the project has {MOST} alerts, which is as many as it may");
        return Err(Error::new(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", detail));
    }
    let secrets = crashes.set_actions(&mut tx, &principal, &mut rule, new.actions).await?;
    store::put(&mut tx, principal.org, &rule).await?;
    tx.commit().await?;
    let details = json!({"name": rule.name, "project": project.id});
    let target = rule.id.to_string();
    crashes.deps.audit.done(&principal, &info, "crash_alert.create", target, details).await?;
    Ok((StatusCode::CREATED, Json(CrashAlertRuleWithSecrets { rule, secrets })))
}

/// Read an alert
#[utoipa::path(get, path = "/api/crash/projects/{project}/alerts/{alert}", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("alert" = AlertRuleId, Path)),
    responses((status = 200, body = CrashAlertRule),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get_crash_alert(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, id)): Path<(String, AlertRuleId)>,
) -> Result<Json<CrashAlertRule>> {
    authorize(&principal, Act::Use(Scope::CrashesRead))?;
    let project = crashes.project(&principal, &named).await?;
    let mut db = crashes.deps.pool.acquire().await?;
    Ok(Json(store::find(&mut db, principal.org, project.id, id).await?))
}

/// Change an alert
///
/// What is absent stays. `actions` are given whole: a webhook that is to stay by its `webhook_id`.
#[utoipa::path(patch, path = "/api/crash/projects/{project}/alerts/{alert}", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("alert" = AlertRuleId, Path)),
    request_body = CrashAlertRuleChange,
    responses((status = 200, body = CrashAlertRuleWithSecrets),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn patch_crash_alert(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path((named, id)): Path<(String, AlertRuleId)>,
    Json(change): Json<CrashAlertRuleChange>,
) -> Result<Json<CrashAlertRuleWithSecrets>> {
    authorize(&principal, Act::ManageOrg(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    let mut rule = store::find(&mut tx, principal.org, project.id, id).await?;
    rule.name = change.name.unwrap_or(rule.name);
    rule.condition = change.condition.unwrap_or(rule.condition);
    rule.filters = change.filters.unwrap_or(rule.filters);
    rule.min_interval_minutes = change.min_interval_minutes.unwrap_or(rule.min_interval_minutes);
    rule.enabled = change.enabled.unwrap_or(rule.enabled);
    rule.updated_at = crashes.deps.clock.now();
    Check {
        name: &rule.name,
        condition: &rule.condition,
        filters: &rule.filters,
        actions: change.actions.as_deref(),
        min_interval_minutes: rule.min_interval_minutes,
    }
    .run(|url| crashes.deps.notify.check_hook(url))?;
    let secrets = match change.actions {
        Some(actions) => crashes.set_actions(&mut tx, &principal, &mut rule, actions).await?,
        None => BTreeMap::new(),
    };
    store::put(&mut tx, principal.org, &rule).await?;
    tx.commit().await?;
    let details = json!({"name": rule.name, "enabled": rule.enabled});
    let target = rule.id.to_string();
    crashes.deps.audit.done(&principal, &info, "crash_alert.update", target, details).await?;
    Ok(Json(CrashAlertRuleWithSecrets { rule, secrets }))
}

/// Delete an alert
#[utoipa::path(delete, path = "/api/crash/projects/{project}/alerts/{alert}", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("alert" = AlertRuleId, Path)),
    responses((status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn delete_crash_alert(
    State(crashes): State<Crashes>,
    principal: Principal,
    info: RequestInfo,
    Path((named, id)): Path<(String, AlertRuleId)>,
) -> Result<StatusCode> {
    authorize(&principal, Act::ManageOrg(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    let rule = store::find(&mut tx, principal.org, project.id, id).await?;
    for webhook in rule.actions.iter().filter_map(CrashAlertAction::webhook) {
        crashes.deps.notify.drop_hook(&mut tx, principal.org, webhook).await?;
    }
    store::delete(&mut tx, principal.org, id).await?;
    tx.commit().await?;
    let details = json!({"name": rule.name});
    crashes
        .deps
        .audit
        .done(&principal, &info, "crash_alert.delete", id.to_string(), details)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Try an alert out
///
/// Sends a test to all its places, whatever its state; the deliveries tell what becomes of it.
#[utoipa::path(post, path = "/api/crash/projects/{project}/alerts/{alert}/test", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("alert" = AlertRuleId, Path)),
    responses((status = 202, body = CrashAlertTested),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn test_crash_alert(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, id)): Path<(String, AlertRuleId)>,
) -> Result<(StatusCode, Json<CrashAlertTested>)> {
    authorize(&principal, Act::ManageOrg(Scope::CrashesWrite))?;
    let project = crashes.project(&principal, &named).await?;
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    let rule = store::find(&mut tx, principal.org, project.id, id).await?;
    let said = Said::test();
    let deliveries = crashes.deliver(&mut tx, principal.org, &rule, None, &said).await?;
    let telling = Telling {
        org: principal.org,
        rule: &rule,
        issue: None,
        title: &said.subject(None),
        outcome: "test",
        deliveries: &deliveries,
        at: crashes.deps.clock.now(),
    };
    store::log(&mut tx, &telling).await?;
    tx.commit().await?;
    crashes.deps.notify.wake();
    Ok((StatusCode::ACCEPTED, Json(CrashAlertTested { delivery_ids: deliveries })))
}

/// What was queued.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct CrashAlertTested {
    delivery_ids: Vec<DeliveryId>,
}

/// Silence an alert for a while
#[utoipa::path(post, path = "/api/crash/projects/{project}/alerts/{alert}/snooze", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), ("alert" = AlertRuleId, Path)),
    request_body = CrashAlertSnooze,
    responses((status = 200, body = CrashAlertRule),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`crashes:write` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn snooze_crash_alert(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path((named, id)): Path<(String, AlertRuleId)>,
    Json(snooze): Json<CrashAlertSnooze>,
) -> Result<Json<CrashAlertRule>> {
    authorize(&principal, Act::Use(Scope::CrashesWrite))?;
    if !(0..=LONGEST_SNOOZE).contains(&snooze.minutes) {
        return Err(Error::invalid("minutes", "is 0 to 43200"));
    }
    let project = crashes.project(&principal, &named).await?;
    let now = crashes.deps.clock.now();
    let mut tx = loom_db::begin(&crashes.deps.pool).await?;
    let mut rule = store::find(&mut tx, principal.org, project.id, id).await?;
    rule.snoozed_until =
        (snooze.minutes > 0).then(|| now + TimeDelta::minutes(snooze.minutes.into()));
    rule.updated_at = now;
    store::put(&mut tx, principal.org, &rule).await?;
    tx.commit().await?;
    Ok(Json(rule))
}

/// What alerts have said, newest first, for 30 days
#[utoipa::path(get, path = "/api/crash/projects/{project}/alerts/deliveries", tag = "crashes", security(("api_key" = [])),
    params(("project" = String, Path, description = "Id, number or slug"), PageQuery),
    responses((status = 200, body = CrashAlertToldPage),
        (status = 400, description = "`invalid_cursor`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `crashes:read`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list_crash_alert_deliveries(
    State(crashes): State<Crashes>,
    principal: Principal,
    Path(named): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<CrashAlertToldPage>> {
    // Addresses of members stand there.
    authorize(&principal, Act::ManageOrg(Scope::CrashesRead))?;
    let project = crashes.project(&principal, &named).await?;
    let limit = page.limit()?;
    let after = page.after_time(LIST)?;
    let mut db = crashes.deps.pool.acquire().await?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found = store::logged(&mut db, (principal.org, project.id), after, one_more).await?;
    drop(db);
    let (found, next_cursor) = cut(found, limit, LIST, |one| (one.at, one.id));
    let ids: Vec<_> = found.iter().flat_map(|one| one.deliveries.clone()).collect();
    let views = crashes.deps.notify.deliveries(&ids).await?;
    let deliveries = found
        .into_iter()
        .map(|one| CrashAlertTold {
            id: one.id,
            rule_id: one.rule,
            issue_id: one.issue,
            title: one.title,
            outcome: one.outcome,
            at: one.at,
            deliveries: views
                .iter()
                .filter(|view| one.deliveries.contains(&view.id))
                .cloned()
                .collect(),
        })
        .collect();
    Ok(Json(CrashAlertToldPage { deliveries, next_cursor }))
}

impl Crashes {
    /// The webhooks of a project's rules are called no more.
    pub(crate) async fn drop_hooks(
        &self,
        db: &mut PgConnection,
        org: OrgId,
        project: ProjectId,
    ) -> Result<()> {
        for rule in store::list(db, org, project).await? {
            for hook in rule.actions.iter().filter_map(CrashAlertAction::webhook) {
                self.deps.notify.drop_hook(db, org, hook).await?;
            }
        }
        Ok(())
    }

    /// Makes the webhooks that are new, keeps those that are named, and drops the others; gives the
    /// secrets of the new ones.
    async fn set_actions(
        &self,
        db: &mut PgConnection,
        principal: &Principal,
        rule: &mut CrashAlertRule,
        wanted: Vec<NewCrashAlertAction>,
    ) -> Result<BTreeMap<String, String>> {
        let mut secrets = BTreeMap::new();
        let mut actions = Vec::new();
        for (at, action) in wanted.into_iter().enumerate() {
            let (url, kept, slack) = match action {
                NewCrashAlertAction::Email { users } => {
                    actions.push(CrashAlertAction::Email { users });
                    continue;
                }
                NewCrashAlertAction::Webhook { url, webhook_id } => (url, webhook_id, false),
                NewCrashAlertAction::Slack { url, webhook_id } => (url, webhook_id, true),
            };
            if let Some(id) = kept {
                let found = rule.actions.iter().find(|action| action.webhook() == Some(id));
                let found = found.cloned().ok_or_else(|| {
                    Error::invalid(format!("actions[{at}].webhook_id"), "is none of this rule")
                })?;
                actions.push(found);
                continue;
            }
            let url = url.unwrap_or_default();
            let name = if slack { "Slack" } else { "Alert" };
            let hook = self
                .deps
                .notify
                .add_hook(db, principal.org, (name, &url), principal.user_id())
                .await?;
            if slack {
                let end = url.find("://").and_then(|at| {
                    url.get(at + 3..)?.find(['/', '?', '#']).map(|path| at + 3 + path)
                });
                let host = url.get(..end.unwrap_or(url.len())).unwrap_or_default().to_owned();
                actions.push(CrashAlertAction::Slack { host, webhook_id: hook.id });
            } else {
                secrets.insert(hook.id.to_string(), hook.secret.expose().to_owned());
                actions.push(CrashAlertAction::Webhook { url, webhook_id: hook.id });
            }
        }
        for gone in rule.actions.iter().filter_map(CrashAlertAction::webhook) {
            if !actions.iter().any(|action| action.webhook() == Some(gone)) {
                self.deps.notify.drop_hook(db, principal.org, gone).await?;
            }
        }
        rule.actions = actions;
        Ok(secrets)
    }
}
