//! Weavers: listed, looked at.

use std::collections::BTreeMap;

use axum::extract::State;
use http::Uri;
use loom_core::{
    Error, Json, Path, Principal, Query, Result,
    error::Problem,
    id::WeaverId,
    page::{self, PageQuery},
};
use uuid::Uuid;

use crate::{
    Weavers,
    access::{self},
    model::Status,
    store::{self, list::Filter},
    view::{Timeline, WeaverPage, WeaverView},
};

const MAX_FILTERS: usize = 20;

/// Both may come several times, which the usual reader of query strings does not take.
fn filter(uri: &Uri) -> Result<Filter> {
    let mut filter = Filter::default();
    let mut count = 0;
    for pair in uri.query().unwrap_or_default().split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !matches!(name, "tag" | "status") {
            continue;
        }
        count += 1;
        if count > MAX_FILTERS {
            return Err(Error::invalid(name, format!("come at most {MAX_FILTERS} times")));
        }
        let value = decode(value)
            .ok_or_else(|| Error::malformed("invalid_query", format!("`{name}` is no text")))?;
        if name == "status" {
            for word in value.split(',') {
                let status = Status::parse(word).ok_or_else(|| {
                    let all =
                        "pending, running, terminating, succeeded, failed, expired, deleted, lost";
                    Error::invalid("status", format!("is one of {all}, or several with commas"))
                })?;
                filter.statuses.push(status);
            }
        } else {
            let (key, wanted) =
                value.split_once(':').ok_or_else(|| Error::invalid("tag", "is `key:value`"))?;
            filter.tags.insert(key.to_owned(), wanted.to_owned());
        }
    }
    Ok(filter)
}

fn decode(text: &str) -> Option<String> {
    let text = text.replace('+', " ");
    let text = percent_encoding::percent_decode_str(&text).decode_utf8().ok()?;
    (!text.contains('\0')).then(|| text.into_owned())
}

/// List weavers, the newest first
///
/// One's own; for admins all of the organisation's; for a weaver itself.
#[utoipa::path(
    get,
    path = "/api/weavers",
    operation_id = "list_weavers",
    tag = "weavers",
    params(
        PageQuery,
        ("tag" = Option<Vec<String>>, Query, description = "`key:value`; all that are given must be there", explode),
        ("status" = Option<Vec<String>>, Query, description = "`pending`, `running`, `terminating`, `succeeded`, `failed`, `expired`, `deleted` or `lost`; any of those that are given", explode),
    ),
    responses(
        (status = 200, body = WeaverPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn list_weavers(
    State(weavers): State<Weavers>,
    principal: Principal,
    Query(page): Query<PageQuery>,
    uri: Uri,
) -> Result<Json<WeaverPage>> {
    let access = access::reads(&principal)?;
    let filter = filter(&uri)?;
    let words: Vec<&str> = filter.statuses.iter().map(|status| status.as_str()).collect();
    let tags: BTreeMap<&String, &String> = filter.tags.iter().collect();
    let kind = format!("weavers:{words:?}:{tags:?}");
    let limit = page.limit()?;
    let after: Option<(_, Uuid)> = page.after_time(&kind)?;
    let mut db = weavers.deps.pool.acquire().await?;
    let one_more = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found = store::list::page(&mut db, access, &filter, after, one_more).await?;
    drop(db);
    let (found, next_cursor) = page::cut(found, limit, &kind, |row| (row.created_at, row.id.0));
    Ok(Json(WeaverPage { weavers: weavers.views(found).await?, next_cursor }))
}

/// Read a weaver
#[utoipa::path(
    get,
    path = "/api/weaver/{id}",
    operation_id = "get_weaver",
    tag = "weavers",
    params(("id" = WeaverId, Path)),
    responses(
        (status = 200, body = WeaverView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`weaver_not_found`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_weaver(
    State(weavers): State<Weavers>,
    principal: Principal,
    Path(id): Path<WeaverId>,
) -> Result<Json<WeaverView>> {
    let row = weavers.to_read(&principal, id).await?;
    weavers.view(row).await.map(Json)
}

/// What happened to a weaver
///
/// `queued`, `scheduled`, `pulling`, `started`, `ready`, `exit`, `ended`, each with its time, how long it took, and
/// when something went wrong, the cause in plain words; `warning` in between.
#[utoipa::path(
    get,
    path = "/api/weaver/{id}/timeline",
    operation_id = "get_weaver_timeline",
    tag = "weavers",
    params(("id" = WeaverId, Path)),
    responses(
        (status = 200, body = Timeline),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`weaver_not_found`", body = Problem, content_type = "application/problem+json"),
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn get_timeline(
    State(weavers): State<Weavers>,
    principal: Principal,
    Path(id): Path<WeaverId>,
) -> Result<Json<Timeline>> {
    let row = weavers.to_read(&principal, id).await?;
    let mut db = weavers.deps.pool.acquire().await?;
    let events = store::events(&mut db, row.org_id, row.id).await?;
    Ok(Json(Timeline::of(&row, events, weavers.deps.clock.now())))
}
