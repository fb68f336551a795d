//! The SQL of the log of requests.

use chrono::{DateTime, TimeDelta, Utc};
use loom_core::{
    Result,
    id::{LlmRequestId, OrgId, ThreadId},
};
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use super::model::{Filters, Logged, RequestUsage, RequestsQuery};

/// Whose rows are seen: all, those of a user, or those of nobody.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    All,
    Of(Uuid),
    Nobodys,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    started_at: DateTime<Utc>,
    user_id: Option<Uuid>,
    api_key_id: Option<Uuid>,
    thread_id: Option<Uuid>,
    weaver_id: Option<Uuid>,
    tags: Vec<String>,
    request_id: String,
    operation: String,
    provider: String,
    credential_id: Option<Uuid>,
    model: String,
    response_model: Option<String>,
    upstream_request_id: Option<String>,
    served_from: Option<String>,
    streamed: bool,
    outcome: String,
    status: Option<i32>,
    error_code: Option<String>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cache_read_tokens: Option<i64>,
    cache_write_5m_tokens: Option<i64>,
    cache_write_1h_tokens: Option<i64>,
    reasoning_tokens: Option<i64>,
    usage_complete: bool,
    web_searches: Option<i64>,
    service_tier: Option<String>,
    cost_nanousd: Option<i64>,
    latency_ms: f64,
    first_token_ms: Option<f64>,
    request_bytes: i64,
    response_bytes: i64,
}

impl From<Row> for Logged {
    #[expect(clippy::cast_precision_loss, reason = "a request's cost is far below 2^53")]
    fn from(row: Row) -> Self {
        let writes = match (row.cache_write_5m_tokens, row.cache_write_1h_tokens) {
            (None, None) => None,
            (short, long) => Some(short.unwrap_or_default() + long.unwrap_or_default()),
        };
        Self {
            id: LlmRequestId(row.id),
            started_at: row.started_at,
            user_id: row.user_id.map(loom_core::id::UserId),
            api_key_id: row.api_key_id.map(loom_core::id::ApiKeyId),
            thread_id: row.thread_id.map(ThreadId),
            weaver_id: row.weaver_id.map(loom_core::id::WeaverId),
            tags: row.tags,
            request_id: row.request_id,
            operation: row.operation,
            provider: row.provider,
            credential_id: row.credential_id.map(loom_core::id::CredentialId),
            model: row.model,
            response_model: row.response_model,
            upstream_request_id: row.upstream_request_id,
            served_from: row.served_from,
            streamed: row.streamed,
            outcome: row.outcome,
            status: row.status,
            error_code: row.error_code,
            usage: RequestUsage {
                input_tokens: row.input_tokens,
                output_tokens: row.output_tokens,
                cache_read_tokens: row.cache_read_tokens,
                cache_write_tokens: writes,
                cache_write_1h_tokens: row.cache_write_1h_tokens,
                reasoning_tokens: row.reasoning_tokens,
            },
            usage_complete: row.usage_complete,
            web_searches: row.web_searches,
            service_tier: row.service_tier,
            cost_usd: row.cost_nanousd.map(|nano| nano as f64 / 1e9),
            latency_ms: row.latency_ms,
            first_token_ms: row.first_token_ms,
            request_bytes: row.request_bytes,
            response_bytes: row.response_bytes,
        }
    }
}

/// The rows of an organisation that somebody may see.
fn select(org: OrgId, seen: Seen) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(
        "SELECT id, started_at, user_id, api_key_id, thread_id, weaver_id, tags, request_id, operation, provider,
                credential_id, model, response_model, upstream_request_id, served_from, streamed, outcome, status, error_code,
                input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens,
                reasoning_tokens, usage_complete, web_searches, service_tier, cost_nanousd, latency_ms,
                first_token_ms, request_bytes, response_bytes
           FROM llm_requests WHERE org_id = ",
    );
    query.push_bind(org.0);
    match seen {
        Seen::All => {}
        Seen::Of(user) => {
            query.push(" AND user_id = ").push_bind(user);
        }
        Seen::Nobodys => {
            query.push(" AND user_id IS NULL");
        }
    }
    query
}

/// What matches, newest first.
pub(super) async fn page(
    pool: &PgPool,
    org: OrgId,
    seen: Seen,
    filters: &Filters,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: usize,
) -> Result<Vec<Logged>> {
    let mut sql = select(org, seen);
    let Filters { query, thread, min_cost_nanousd } = filters;
    let RequestsQuery { model, provider, outcome, status, user_id, api_key_id, weaver_id, .. } =
        query;
    let texts = [
        (" AND model = ", model.as_deref()),
        (" AND provider = ", provider.as_deref()),
        (" AND outcome = ", outcome.map(super::model::Outcome::name)),
        (" AND request_id = ", query.request_id.as_deref()),
    ];
    for (condition, value) in texts {
        if let Some(value) = value {
            sql.push(condition).push_bind(value);
        }
    }
    let ids = [
        (" AND user_id = ", *user_id),
        (" AND api_key_id = ", *api_key_id),
        (" AND thread_id = ", *thread),
        (" AND weaver_id = ", *weaver_id),
    ];
    for (condition, value) in ids {
        if let Some(value) = value {
            sql.push(condition).push_bind(value);
        }
    }
    if let Some(status) = status {
        sql.push(" AND status = ").push_bind(*status);
    }
    if let Some(tag) = &query.tag {
        sql.push(" AND tags @> ARRAY[").push_bind(tag).push("]");
    }
    if let Some(cost) = min_cost_nanousd {
        sql.push(" AND cost_nanousd >= ").push_bind(*cost);
    }
    if let Some(from) = query.from {
        sql.push(" AND started_at >= ").push_bind(from);
    }
    if let Some(to) = query.to {
        sql.push(" AND started_at < ").push_bind(to);
    }
    if let Some((at, id)) = after {
        // The first for the partitions, the second for the place in them.
        sql.push(" AND started_at <= ").push_bind(at);
        sql.push(" AND (started_at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
    }
    sql.push(" ORDER BY started_at DESC, id DESC LIMIT ");
    sql.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows: Vec<Row> = sql.build_query_as().fetch_all(pool).await?;
    Ok(rows.into_iter().map(Logged::from).collect())
}

/// By id, which tells its day.
pub(super) async fn one(
    pool: &PgPool,
    org: OrgId,
    seen: Seen,
    id: LlmRequestId,
) -> Result<Option<Logged>> {
    let Some(at) = id.0.get_timestamp().and_then(|at| {
        let (secs, nanos) = at.to_unix();
        DateTime::from_timestamp(i64::try_from(secs).ok()?, nanos)
    }) else {
        return Ok(None);
    };
    let mut sql = select(org, seen);
    sql.push(" AND id = ").push_bind(id.0);
    sql.push(" AND started_at >= ").push_bind(at - TimeDelta::milliseconds(1));
    sql.push(" AND started_at < ").push_bind(at + TimeDelta::milliseconds(2));
    let row: Option<Row> = sql.build_query_as().fetch_optional(pool).await?;
    Ok(row.map(Logged::from))
}
