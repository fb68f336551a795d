//! The SQL of the LLM proxy.

use loom_core::Result;

use crate::{ledger::Row, usage::Tier};

/// Stores a batch of request rows in one statement. Rows that are there already stay as they are.
pub(crate) async fn insert_requests(
    db: impl sqlx::PgExecutor<'_>,
    rows: &[Row],
) -> Result<(), sqlx::Error> {
    fn column<'r, T>(rows: &'r [Row], get: impl Fn(&'r Row) -> T) -> Vec<T> {
        rows.iter().map(get).collect()
    }
    fn tokens(rows: &[Row], get: impl Fn(&Row) -> Option<u64>) -> Vec<Option<i64>> {
        rows.iter().map(|row| get(row).and_then(|count| i64::try_from(count).ok())).collect()
    }
    sqlx::query!(
        r#"INSERT INTO llm_requests
             (id, started_at, org_id, user_id, api_key_id, thread_id, weaver_id, tags, request_id, operation, provider,
              credential_id, model, response_model, upstream_request_id, streamed, outcome, status, error_code,
              input_tokens, output_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens,
              reasoning_tokens, cost_nanousd, latency_ms, first_token_ms, request_bytes, response_bytes,
              served_from, web_searches, service_tier, usage_complete)
           SELECT id, started_at, org_id, user_id, api_key_id, thread_id, weaver_id, string_to_array(tags, ','), request_id,
              operation, provider, credential_id, model, response_model, upstream_request_id, streamed, outcome, status,
              error_code, input, output, cache_read, cache_write_5m, cache_write_1h, reasoning, cost, latency, first_token,
              request_bytes, response_bytes, served_from, searches, tier, complete
             FROM UNNEST($1::uuid[], $2::timestamptz[], $3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::uuid[],
                         $8::text[], $9::text[], $10::text[], $11::text[], $12::uuid[], $13::text[], $14::text[],
                         $15::text[], $16::bool[], $17::text[], $18::int[], $19::text[], $20::bigint[], $21::bigint[],
                         $22::bigint[], $23::bigint[], $24::bigint[], $25::bigint[], $26::bigint[], $27::float8[],
                         $28::float8[], $29::bigint[], $30::bigint[], $31::text[], $32::bigint[], $33::text[], $34::bool[])
               AS r (id, started_at, org_id, user_id, api_key_id, thread_id, weaver_id, tags, request_id, operation,
                     provider, credential_id, model, response_model, upstream_request_id, streamed, outcome, status,
                     error_code, input, output, cache_read, cache_write_5m, cache_write_1h, reasoning, cost, latency,
                     first_token, request_bytes, response_bytes, served_from, searches, tier, complete)
           ON CONFLICT ON CONSTRAINT llm_requests_pkey DO NOTHING"#,
        &column(rows, |r| r.id),
        &column(rows, |r| r.started_at),
        &column(rows, |r| r.org_id),
        &column(rows, |r| r.user_id) as _,
        &column(rows, |r| r.api_key_id) as _,
        &column(rows, |r| r.thread_id) as _,
        &column(rows, |r| r.weaver_id) as _,
        &column(rows, |r| r.tags.as_str()) as _,
        &column(rows, |r| &*r.request_id) as _,
        &column(rows, |r| r.operation) as _,
        &column(rows, |r| &*r.provider) as _,
        &column(rows, |r| r.credential_id) as _,
        &column(rows, |r| r.model.as_str()) as _,
        &column(rows, |r| r.response_model.as_deref()) as _,
        &column(rows, |r| r.upstream_request_id.as_deref()) as _,
        &column(rows, |r| r.streamed),
        &column(rows, |r| r.outcome) as _,
        &column(rows, |r| r.status) as _,
        &column(rows, |r| r.error_code.as_deref()) as _,
        &tokens(rows, |r| r.usage.input) as _,
        &tokens(rows, |r| r.usage.output) as _,
        &tokens(rows, |r| r.usage.cache_read) as _,
        &tokens(rows, |r| r.usage.cache_write_5m) as _,
        &tokens(rows, |r| r.usage.cache_write_1h) as _,
        &tokens(rows, |r| r.usage.reasoning) as _,
        &column(rows, |r| r.cost_nanousd) as _,
        &column(rows, |r| r.latency_ms),
        &column(rows, |r| r.first_token_ms) as _,
        &column(rows, |r| r.request_bytes),
        &column(rows, |r| r.response_bytes),
        &column(rows, |r| r.served_from) as _,
        &tokens(rows, |r| r.usage.web_searches) as _,
        &column(rows, |r| r.usage.tier.map(Tier::name)) as _,
        &column(rows, |r| r.usage_complete)
    )
    .execute(db)
    .await?;
    Ok(())
}
