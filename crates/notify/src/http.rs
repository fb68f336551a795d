//! The routes of webhooks and deliveries, for those who run this installation.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, middleware};
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    authorize::{Action, authorize},
    error::Problem,
    id::{DeliveryId, WebhookId},
    page::{PageQuery, cut},
    port::Audit,
    principal::{RequestInfo, Scope, required},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Channel, DeliveryState, Mail, Notify,
    model::{DeliveryQuery, DeliveryView, WebhookView},
    store::{self, Filter},
    webhooks::{NewWebhook, WebhookChange},
};

#[derive(Clone)]
struct Admin {
    notify: Notify,
    audit: Arc<dyn Audit>,
}

impl Notify {
    /// The admin routes.
    pub fn routes(&self, audit: Arc<dyn Audit>) -> OpenApiRouter {
        OpenApiRouter::new()
            .routes(routes!(list_webhooks, create_webhook))
            .routes(routes!(get_webhook, change_webhook, delete_webhook))
            .routes(routes!(test_webhook))
            .routes(routes!(list_deliveries))
            .routes(routes!(retry_delivery))
            .routes(routes!(test_mail))
            .route_layer(middleware::from_fn(required))
            .with_state(Admin { notify: self.clone(), audit })
    }
}

#[derive(Serialize, ToSchema)]
struct Webhooks {
    webhooks: Vec<WebhookView>,
}

#[derive(Serialize, ToSchema)]
struct CreatedWebhook {
    #[serde(flatten)]
    webhook: WebhookView,
    /// `whsec_…`: signs what is sent. Shown this once.
    secret: String,
}

#[derive(Serialize, ToSchema)]
struct Deliveries {
    deliveries: Vec<DeliveryView>,
    next_cursor: Option<String>,
}

/// What was queued.
#[derive(Serialize, ToSchema)]
struct Queued {
    delivery_id: DeliveryId,
}

/// To whom a test is sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TestMail {
    to: String,
}

/// The webhooks of the installation, which hear of its alerts
#[utoipa::path(get, path = "/api/admin/webhooks", tag = "notifications", security(("api_key" = [])),
    responses((status = 200, body = Webhooks),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins", body = Problem, content_type = "application/problem+json")))]
async fn list_webhooks(State(admin): State<Admin>, principal: Principal) -> Result<Json<Webhooks>> {
    authorize(&principal, Action::ManageSystem(Scope::AdminRead))?;
    let webhooks = store::webhooks::list(&admin.notify.pool, None).await?;
    Ok(Json(Webhooks { webhooks }))
}

/// Make a webhook
///
/// The answer holds its secret, which is not shown again. What is sent is signed with it by the scheme
/// of the Standard Webhooks.
#[utoipa::path(post, path = "/api/admin/webhooks", tag = "notifications", security(("api_key" = [])),
    request_body = NewWebhook,
    responses((status = 201, body = CreatedWebhook),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`too_many_webhooks`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_request`: also a URL that leads to no public address", body = Problem, content_type = "application/problem+json")))]
async fn create_webhook(
    State(admin): State<Admin>,
    principal: Principal,
    info: RequestInfo,
    Json(new): Json<NewWebhook>,
) -> Result<(StatusCode, Json<CreatedWebhook>)> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let (webhook, secret) = admin.notify.add_webhook(&principal, new).await?;
    let details = json!({"name": webhook.name});
    admin.audit.done(&principal, &info, "webhook.create", webhook.id.to_string(), details).await?;
    let secret = secret.expose().to_owned();
    Ok((StatusCode::CREATED, Json(CreatedWebhook { webhook, secret })))
}

/// A webhook
#[utoipa::path(get, path = "/api/admin/webhooks/{id}", tag = "notifications", security(("api_key" = [])),
    params(("id" = WebhookId, Path)),
    responses((status = 200, body = WebhookView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn get_webhook(
    State(admin): State<Admin>,
    principal: Principal,
    Path(id): Path<WebhookId>,
) -> Result<Json<WebhookView>> {
    authorize(&principal, Action::ManageSystem(Scope::AdminRead))?;
    let all = store::webhooks::list(&admin.notify.pool, None).await?;
    let webhook = all.into_iter().find(|webhook| webhook.id == id);
    webhook.map(Json).ok_or_else(|| Error::not_found("webhook"))
}

/// Change a webhook
///
/// What is absent stays as it is. Its secret cannot be changed: make another webhook.
#[utoipa::path(patch, path = "/api/admin/webhooks/{id}", tag = "notifications", security(("api_key" = [])),
    params(("id" = WebhookId, Path)), request_body = WebhookChange,
    responses((status = 200, body = WebhookView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_request`", body = Problem, content_type = "application/problem+json")))]
async fn change_webhook(
    State(admin): State<Admin>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<WebhookId>,
    Json(change): Json<WebhookChange>,
) -> Result<Json<WebhookView>> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let webhook = admin.notify.change_webhook(id, change).await?;
    let details = json!({"name": webhook.name, "enabled": webhook.enabled});
    admin.audit.done(&principal, &info, "webhook.update", id.to_string(), details).await?;
    Ok(Json(webhook))
}

/// Delete a webhook
///
/// What waits to be sent to it is given up.
#[utoipa::path(delete, path = "/api/admin/webhooks/{id}", tag = "notifications", security(("api_key" = [])),
    params(("id" = WebhookId, Path)),
    responses((status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn delete_webhook(
    State(admin): State<Admin>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<WebhookId>,
) -> Result<StatusCode> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    admin.notify.delete_webhook(id).await?;
    admin.audit.done(&principal, &info, "webhook.delete", id.to_string(), json!({})).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Try a webhook out
///
/// Queues a call of the type `webhook.test`; the deliveries tell what becomes of it.
#[utoipa::path(post, path = "/api/admin/webhooks/{id}/test", tag = "notifications", security(("api_key" = [])),
    params(("id" = WebhookId, Path)),
    responses((status = 202, body = Queued),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`webhook_disabled`", body = Problem, content_type = "application/problem+json")))]
async fn test_webhook(
    State(admin): State<Admin>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<WebhookId>,
) -> Result<(StatusCode, Json<Queued>)> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let delivery_id = admin.notify.test_webhook(id).await?;
    let details = json!({"delivery_id": delivery_id});
    admin.audit.done(&principal, &info, "webhook.test", id.to_string(), details).await?;
    Ok((StatusCode::ACCEPTED, Json(Queued { delivery_id })))
}

/// What was sent or is to be sent, newest first; never what was in it
#[utoipa::path(get, path = "/api/admin/deliveries", tag = "notifications", security(("api_key" = [])),
    params(DeliveryQuery),
    responses((status = 200, body = Deliveries),
        (status = 400, description = "`invalid_cursor`, `invalid_query`", body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins and auditors", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_request`", body = Problem, content_type = "application/problem+json")))]
async fn list_deliveries(
    State(admin): State<Admin>,
    principal: Principal,
    Query(query): Query<DeliveryQuery>,
) -> Result<Json<Deliveries>> {
    authorize(&principal, Action::InspectSystem(Scope::AdminRead))?;
    let filter = Filter { state: query.state, channel: query.channel };
    let state = filter.state.map_or("", DeliveryState::as_str);
    let kind = format!("deliveries:{state}:{}", filter.channel.map_or("", Channel::as_str));
    let page = PageQuery { limit: query.limit, cursor: query.cursor };
    let limit = page.limit()?;
    let after = page.after_time(&kind)?;
    let rows = store::list(&admin.notify.pool, filter, after, limit + 1).await?;
    let (deliveries, next_cursor) = cut(rows, limit, &kind, |row| (row.created_at, row.id));
    Ok(Json(Deliveries { deliveries, next_cursor }))
}

/// Send once more what was given up
///
/// For a week after it failed; not what holds a sign-in secret, which is erased at once.
#[utoipa::path(post, path = "/api/admin/deliveries/{id}/retry", tag = "notifications", security(("api_key" = [])),
    params(("id" = DeliveryId, Path)),
    responses((status = 202, body = Queued),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins", body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`delivery_not_retriable`", body = Problem, content_type = "application/problem+json")))]
async fn retry_delivery(
    State(admin): State<Admin>,
    principal: Principal,
    info: RequestInfo,
    Path(id): Path<DeliveryId>,
) -> Result<(StatusCode, Json<Queued>)> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let again = store::retry(&admin.notify.pool, id, admin.notify.clock.now()).await?;
    if !again.ok_or_else(|| Error::not_found("delivery"))? {
        return Err(Error::conflict(
            "delivery_not_retriable",
            "only what failed within the last week and held no secret can be sent once more",
        ));
    }
    admin.notify.wake();
    admin.audit.done(&principal, &info, "delivery.retry", id.to_string(), json!({})).await?;
    Ok((StatusCode::ACCEPTED, Json(Queued { delivery_id: id })))
}

/// Send a test mail
///
/// The deliveries tell what becomes of it.
#[utoipa::path(post, path = "/api/admin/mail/test", tag = "notifications", security(("api_key" = [])),
    request_body = TestMail,
    responses((status = 202, body = Queued),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "For system admins", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_request`", body = Problem, content_type = "application/problem+json")))]
async fn test_mail(
    State(admin): State<Admin>,
    principal: Principal,
    info: RequestInfo,
    Json(TestMail { to }): Json<TestMail>,
) -> Result<(StatusCode, Json<Queued>)> {
    authorize(&principal, Action::ManageSystem(Scope::AdminWrite))?;
    let mail = Mail {
        kind: "test",
        to,
        subject: "Test mail of Loom".to_owned(),
        text: format!("{} asked for this mail. It arrived.\n", principal.name),
        html: None,
        expires_at: None,
    };
    let mut db = loom_db::begin(&admin.notify.pool).await?;
    let delivery_id = admin.notify.queue_mail(&mut db, &mail, None, None).await?;
    db.commit().await?;
    admin.notify.wake();
    let details = json!({"delivery_id": delivery_id});
    admin.audit.done(&principal, &info, "mail.test", mail.to, details).await?;
    Ok((StatusCode::ACCEPTED, Json(Queued { delivery_id })))
}
