//! Whom a monitor's alerts go to.

use axum::extract::State;
use loom_core::{
    Error, Json, Path, Principal, Result,
    authorize::{Action, authorize},
    error::Problem,
    principal::{RequestInfo, Scope},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{find, not_found, reads};
use crate::{
    Crons,
    alerts::{Alerts, Receiver},
    store,
};

const MOST_EMAILS: usize = 10;

/// How alerts of a monitor are to go out.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct AlertsRequest {
    /// At most 10 addresses, of members of the organisation.
    #[serde(default)]
    emails: Vec<String>,
    /// Called with a signature, as the other webhooks are: `cron.failing` and `cron.recovered`.
    webhook_url: Option<String>,
    /// An incident becomes an issue of the monitor's project.
    #[serde(default = "yes")]
    issue: bool,
    /// Told again after so long while it lasts; absent: once.
    reminder_minutes: Option<i32>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AlertsView {
    emails: Vec<String>,
    webhook_url: Option<String>,
    /// Signs the calls; shown only in the answer to the change that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_secret: Option<String>,
    issue: bool,
    reminder_minutes: Option<i32>,
}

impl AlertsView {
    fn of(alerts: &Alerts, webhook_secret: Option<String>) -> Self {
        Self {
            emails: alerts.emails.clone(),
            webhook_url: alerts.webhook.as_ref().map(|receiver| receiver.url.clone()),
            webhook_secret,
            issue: alerts.issue,
            reminder_minutes: alerts.reminder_minutes,
        }
    }
}

/// Scheme and host: with Slack, and others like it, the rest is all that is needed to write there.
fn host_of(url: &str) -> String {
    let host = url.find("://").map_or(0, |at| at + 3);
    let rest = url.get(host..).unwrap_or_default();
    let end = rest.find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    let host = url.get(..end).unwrap_or_default();
    // Nor who signs in there.
    match (host.find("://"), host.rfind('@')) {
        (Some(scheme), Some(at)) => {
            let (scheme, host) = (host.get(..scheme + 3), host.get(at + 1..));
            format!("{}{}", scheme.unwrap_or_default(), host.unwrap_or_default())
        }
        _ => host.to_owned(),
    }
}

/// Read whom a monitor's alerts go to
///
/// Of the webhook only the host, unless you may change it.
#[utoipa::path(
    get,
    path = "/api/crons/monitors/{slug}/alerts",
    operation_id = "get_monitor_alerts",
    tag = "crons",
    params(("slug" = String, Path)),
    responses(
        (status = 200, body = AlertsView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_alerts(
    State(crons): State<Crons>,
    principal: Principal,
    Path(slug): Path<String>,
) -> Result<Json<AlertsView>> {
    reads(&principal)?;
    let mut db = crons.deps.pool.acquire().await?;
    let monitor = find(&mut db, &principal, &slug).await?;
    let mut view = AlertsView::of(&monitor.alerts, None);
    if authorize(&principal, Action::ManageOrg(Scope::CronsWrite)).is_err() {
        view.webhook_url = view.webhook_url.as_deref().map(host_of);
    }
    Ok(Json(view))
}

/// Set whom a monitor's alerts go to
///
/// By admins of the organisation: mail and calls go to whom they name.
#[utoipa::path(
    put,
    path = "/api/crons/monitors/{slug}/alerts",
    operation_id = "put_monitor_alerts",
    tag = "crons",
    params(("slug" = String, Path)),
    request_body = AlertsRequest,
    responses(
        (status = 200, body = AlertsView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 415, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn put_alerts(
    State(crons): State<Crons>,
    principal: Principal,
    info: RequestInfo,
    Path(slug): Path<String>,
    Json(request): Json<AlertsRequest>,
) -> Result<Json<AlertsView>> {
    authorize(&principal, Action::ManageOrg(Scope::CronsWrite))?;
    if request.emails.len() > MOST_EMAILS {
        return Err(Error::invalid("emails", format!("are at most {MOST_EMAILS}")));
    }
    let orgs = crons.deps.orgs.as_ref();
    loom_notify::check_recipients(orgs, principal.org, "emails", &request.emails).await?;
    if request.reminder_minutes.is_some_and(|minutes| !(5..=40_320).contains(&minutes)) {
        return Err(Error::invalid("reminder_minutes", "is 5 to 40320"));
    }
    let notify = &crons.deps.notify;
    if let Some(url) = &request.webhook_url {
        notify.check_hook(url).map_err(|why| Error::invalid("webhook_url", why))?;
    }
    let mut tx = loom_db::begin(&crons.deps.pool).await?;
    let found = store::monitors::lock(&mut tx, principal.org, &slug).await?;
    let mut monitor = found.ok_or_else(not_found)?;
    let old = monitor.alerts.webhook.take();
    let mut secret = None;
    monitor.alerts = Alerts {
        emails: request.emails,
        webhook: match (old, request.webhook_url) {
            (Some(old), Some(url)) if old.url == url => Some(old),
            (old, url) => {
                if let Some(old) = old {
                    notify.drop_hook(&mut tx, principal.org, old.id).await?;
                }
                match url {
                    None => None,
                    Some(url) => {
                        let name = format!("cron monitor {slug}");
                        let by = principal.user_id();
                        let hook =
                            notify.add_hook(&mut tx, principal.org, (&name, &url), by).await?;
                        secret = Some(hook.secret.expose().to_owned());
                        Some(Receiver { id: hook.id, url })
                    }
                }
            }
        },
        issue: request.issue,
        reminder_minutes: request.reminder_minutes,
    };
    monitor.updated_at = crons.deps.clock.now();
    store::monitors::update(&mut tx, &monitor).await?;
    tx.commit().await?;
    crons.engine.changed(Some(monitor.id)).await;
    let target = monitor.id.to_string();
    let audit = &crons.deps.audit;
    audit.done(&principal, &info, "cron_monitor.alerts", target, json!({"slug": slug})).await?;
    Ok(Json(AlertsView::of(&monitor.alerts, secret)))
}
