//! Rules by which somebody is told of a release.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::{HeaderName, StatusCode, header};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::{FieldError, Problem},
    id::AlertRuleId,
    page::{self, PageQuery},
    principal::{RequestInfo, Scope},
    text,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    Sessions,
    store::alerts::{self, Alert, Firing, Kind},
};

const MOST: i64 = 50;
const MOST_EMAILS: usize = 10;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AlertsQuery {
    /// Id, number or slug.
    #[serde(alias = "project_id")]
    project: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct AppSessionAlerts {
    alerts: Vec<Alert>,
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct AppSessionAlert {
    #[serde(flatten)]
    alert: Alert,
    /// The releases that it was told of and that do badly still.
    firing: Vec<Firing>,
    /// Signs what the webhook is sent. Shown this once, when the URL is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_secret: Option<String>,
}

/// A rule to be made.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewAppSessionAlert)]
pub(crate) struct NewAlert {
    /// Id, number or slug.
    project_id: String,
    name: String,
    kind: Kind,
    /// Per cent: the bar, or of a regression the confidence that is wanted. 99 and 95 when absent.
    threshold: Option<f64>,
    /// Fewer sessions in the window say nothing; 100 when absent.
    min_sessions: Option<i32>,
    /// 30 to 43,200, in half hours; 1,440 when absent.
    window_minutes: Option<i32>,
    /// Absent: each release by itself.
    release: Option<String>,
    /// Absent: all together.
    environment: Option<String>,
    /// At most 10.
    #[serde(default)]
    emails: Vec<String>,
    /// Called with a signature. It must lead to a public address.
    webhook_url: Option<String>,
    #[serde(default = "yes")]
    enabled: bool,
}

fn yes() -> bool {
    true
}

/// What is to change of a rule; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[schema(as = AppSessionAlertChange)]
pub(crate) struct AlertChange {
    name: Option<String>,
    threshold: Option<f64>,
    min_sessions: Option<i32>,
    window_minutes: Option<i32>,
    emails: Option<Vec<String>>,
    /// Empty: none any more.
    webhook_url: Option<String>,
    enabled: Option<bool>,
}

fn check(alert: &Alert, has_webhook: bool) -> Result<()> {
    let mut errors = Vec::new();
    let mut wrong = |path: &str, message: &str| {
        errors.push(FieldError { path: path.to_owned(), message: message.to_owned() });
    };
    if !text::is_plain_line(&alert.name, 100) {
        wrong("name", "is one line of 1 to 100 bytes");
    }
    if !(0.0..=100.0).contains(&alert.threshold) {
        wrong("threshold", "is from 0 to 100");
    }
    if alert.min_sessions < 1 {
        wrong("min_sessions", "is at least 1");
    }
    if !(30..=43_200).contains(&alert.window_minutes) || alert.window_minutes % 30 != 0 {
        wrong("window_minutes", "is a multiple of 30 from 30 to 43200");
    }
    for (name, value, most) in
        [("release", &alert.release, 250), ("environment", &alert.environment, 64)]
    {
        if value.as_ref().is_some_and(|value| !text::is_plain_line(value, most)) {
            wrong(name, "is one line of text");
        }
    }
    let is_address = |email: &String| loom_notify::is_address(email);
    if alert.emails.len() > MOST_EMAILS || !alert.emails.iter().all(is_address) {
        wrong("emails", "are at most 10 e-mail addresses");
    }
    if alert.emails.is_empty() && !has_webhook {
        wrong("emails", "or `webhook_url` says who is told");
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::invalid_fields(errors)) }
}

fn not_found() -> Error {
    Error::not_found("alert")
}

/// The rules of a project, the oldest first.
#[utoipa::path(
    get,
    path = "/api/app-sessions/alerts",
    operation_id = "list_app_session_alerts",
    tag = "app-sessions",
    params(PageQuery, AlertsQuery),
    responses(
        (status = 200, body = AppSessionAlerts),
        (status = 400, description = "`invalid_cursor` or `invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`sessions:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such project", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn list_alerts(
    State(sessions): State<Sessions>,
    principal: Principal,
    Query(page): Query<PageQuery>,
    Query(query): Query<AlertsQuery>,
) -> Result<Json<AppSessionAlerts>> {
    authorize(&principal, Action::Use(Scope::SessionsRead))?;
    let project = sessions.project(&principal, &query.project).await?;
    let limit = page.limit()?;
    let kind = format!("app-session-alerts/{}", project.id);
    let after: Option<(DateTime<Utc>, AlertRuleId)> = page.after_time(&kind)?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let of = Some((project.org, project.id));
    let found = alerts::list(&sessions.deps.pool, of, after, one_more).await?;
    let (alerts, next_cursor) =
        page::cut(found, limit, &kind, |alert| (alert.created_at, alert.id));
    Ok(Json(AppSessionAlerts { alerts, next_cursor }))
}

/// Make a rule.
#[utoipa::path(
    post,
    path = "/api/app-sessions/alerts",
    operation_id = "create_app_session_alert",
    tag = "app-sessions",
    request_body = NewAlert,
    responses(
        (status = 201, body = AppSessionAlert),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `sessions:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such project", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`too_many_alerts` or `too_many_webhooks`", body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn create_alert(
    State(sessions): State<Sessions>,
    principal: Principal,
    info: RequestInfo,
    Json(new): Json<NewAlert>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<AppSessionAlert>)> {
    authorize(&principal, Action::ManageOrg(Scope::SessionsWrite))?;
    let project = sessions.project(&principal, &new.project_id).await?;
    let now = sessions.now();
    let by_default = if new.kind == Kind::Regression { 95.0 } else { 99.0 };
    let mut alert = Alert {
        id: AlertRuleId::new(now),
        org_id: project.org,
        project_id: project.id,
        name: new.name,
        kind: new.kind,
        threshold: new.threshold.unwrap_or(by_default),
        min_sessions: new.min_sessions.unwrap_or(100),
        window_minutes: new.window_minutes.unwrap_or(1440),
        release: new.release,
        environment: new.environment,
        emails: new.emails,
        webhook_id: None,
        enabled: new.enabled,
        created_by: principal.user_id(),
        created_at: now,
        updated_at: now,
    };
    let url = new.webhook_url.filter(|url| !url.is_empty());
    check(&alert, url.is_some())?;
    let orgs = sessions.deps.orgs.as_ref();
    loom_notify::check_recipients(orgs, alert.org_id, "emails", &alert.emails).await?;
    let mut tx = loom_db::begin(&sessions.deps.pool).await?;
    let webhook_secret = sessions.set_webhook(&mut tx, &principal, &mut alert, url).await?;
    if !alerts::insert(&mut tx, &alert, MOST).await? {
        return Err(Error::conflict(
            "too_many_alerts",
            format!("the project has {MOST} alerts already; delete one that is not needed"),
        ));
    }
    tx.commit().await?;
    let details = json!({"name": alert.name, "kind": alert.kind.as_str(), "project": project.id});
    let target = alert.id.to_string();
    sessions
        .deps
        .audit
        .done(&principal, &info, "app_session_alert.create", target, details)
        .await?;
    let location = format!("/api/app-sessions/alerts/{}", alert.id);
    let body = AppSessionAlert { alert, firing: Vec::new(), webhook_secret };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)))
}

/// A rule, and which releases it was told of.
#[utoipa::path(
    get,
    path = "/api/app-sessions/alerts/{id}",
    operation_id = "get_app_session_alert",
    tag = "app-sessions",
    params(("id" = AlertRuleId, Path)),
    responses(
        (status = 200, body = AppSessionAlert),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`sessions:read` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_alert(
    State(sessions): State<Sessions>,
    principal: Principal,
    Path(id): Path<AlertRuleId>,
) -> Result<Json<AppSessionAlert>> {
    authorize(&principal, Action::Use(Scope::SessionsRead))?;
    let mut db = sessions.deps.pool.acquire().await?;
    let alert = alerts::find(&mut db, principal.org, id).await?.ok_or_else(not_found)?;
    let firing = alerts::firing(&mut db, id).await?;
    Ok(Json(AppSessionAlert { alert, firing, webhook_secret: None }))
}

/// Change a rule. What it has told is forgotten: it is judged anew.
#[utoipa::path(
    patch,
    path = "/api/app-sessions/alerts/{id}",
    operation_id = "change_app_session_alert",
    tag = "app-sessions",
    params(("id" = AlertRuleId, Path)),
    request_body = AlertChange,
    responses(
        (status = 200, body = AppSessionAlert),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `sessions:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn change_alert(
    State(sessions): State<Sessions>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<AlertRuleId>,
    Json(change): Json<AlertChange>,
) -> Result<Json<AppSessionAlert>> {
    authorize(&principal, Action::ManageOrg(Scope::SessionsWrite))?;
    let mut tx = loom_db::begin(&sessions.deps.pool).await?;
    let mut alert = alerts::find(&mut tx, principal.org, id).await?.ok_or_else(not_found)?;
    alert.name = change.name.unwrap_or(alert.name);
    alert.threshold = change.threshold.unwrap_or(alert.threshold);
    alert.min_sessions = change.min_sessions.unwrap_or(alert.min_sessions);
    alert.window_minutes = change.window_minutes.unwrap_or(alert.window_minutes);
    if let Some(emails) = change.emails {
        let orgs = sessions.deps.orgs.as_ref();
        loom_notify::check_recipients(orgs, alert.org_id, "emails", &emails).await?;
        alert.emails = emails;
    }
    alert.enabled = change.enabled.unwrap_or(alert.enabled);
    alert.updated_at = sessions.now();
    let has_webhook = match &change.webhook_url {
        Some(url) => !url.is_empty(),
        None => alert.webhook_id.is_some(),
    };
    check(&alert, has_webhook)?;
    let mut webhook_secret = None;
    if let Some(url) = change.webhook_url {
        if let Some(old) = alert.webhook_id.take() {
            alerts::update(&mut tx, &alert).await?;
            sessions.deps.notify.drop_hook(&mut tx, alert.org_id, old).await?;
        }
        let url = Some(url).filter(|url| !url.is_empty());
        webhook_secret = sessions.set_webhook(&mut tx, &principal, &mut alert, url).await?;
    }
    alerts::update(&mut tx, &alert).await?;
    alerts::forget(&mut tx, id).await?;
    tx.commit().await?;
    let (target, details) = (id.to_string(), json!({"name": alert.name}));
    sessions
        .deps
        .audit
        .done(&principal, &info, "app_session_alert.change", target, details)
        .await?;
    Ok(Json(AppSessionAlert { alert, firing: Vec::new(), webhook_secret }))
}

/// Delete a rule.
#[utoipa::path(
    delete,
    path = "/api/app-sessions/alerts/{id}",
    operation_id = "delete_app_session_alert",
    tag = "app-sessions",
    params(("id" = AlertRuleId, Path)),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Only admins of the organisation, with `sessions:write`", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn delete_alert(
    State(sessions): State<Sessions>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<AlertRuleId>,
) -> Result<StatusCode> {
    authorize(&principal, Action::ManageOrg(Scope::SessionsWrite))?;
    let mut tx = loom_db::begin(&sessions.deps.pool).await?;
    let alert = alerts::find(&mut tx, principal.org, id).await?.ok_or_else(not_found)?;
    alerts::delete(&mut tx, principal.org, id).await?;
    if let Some(webhook) = alert.webhook_id {
        sessions.deps.notify.drop_hook(&mut tx, principal.org, webhook).await?;
    }
    tx.commit().await?;
    let (target, details) = (id.to_string(), json!({"name": alert.name}));
    sessions
        .deps
        .audit
        .done(&principal, &info, "app_session_alert.delete", target, details)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Sessions {
    /// Makes the webhook of a rule; gives its secret.
    async fn set_webhook(
        &self,
        db: &mut sqlx::PgConnection,
        principal: &Principal,
        alert: &mut Alert,
        url: Option<String>,
    ) -> Result<Option<String>> {
        let Some(url) = url else { return Ok(None) };
        let name = text::cut(&format!("Alert {}", alert.name), 100).to_owned();
        let notify = &self.deps.notify;
        notify.check_hook(&url).map_err(|why| Error::invalid("webhook_url", why))?;
        let hook = notify.add_hook(db, principal.org, (&name, &url), principal.user_id()).await?;
        alert.webhook_id = Some(hook.id);
        Ok(Some(hook.secret.expose().to_owned()))
    }
}
