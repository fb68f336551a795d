//! The SQL of organisations' own prices.

use chrono::{DateTime, Utc};
use loom_core::{Error, Result, error::OnConstraint, id::OrgId};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Rates, overrides::WORD};

/// Own prices of one organisation.
pub(super) const MAX_PRICES: i64 = 1000;
/// Of all of them, in this server's memory.
const MAX_IN_FORCE: i64 = 100_000;

/// What a model costs an organisation, in US dollars per million tokens.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = LlmPrice)]
pub(crate) struct PriceRow {
    pub(super) id: Uuid,
    #[serde(skip)]
    pub(super) org_id: Uuid,
    /// As in the path of the native routes.
    pub(super) provider: String,
    /// Exactly this name, or the undated name of dated ones.
    pub(super) model: String,
    pub(super) input: f64,
    pub(super) output: f64,
    /// A class without a price of its own costs what input does.
    pub(super) cache_read: Option<f64>,
    pub(super) cache_write_5m: Option<f64>,
    pub(super) cache_write_1h: Option<f64>,
    /// Per thousand. Without it, a request with web searches has no cost.
    pub(super) web_searches: Option<f64>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(super) created_at: DateTime<Utc>,
    #[serde(serialize_with = "loom_core::clock::millis")]
    pub(super) updated_at: DateTime<Utc>,
}

impl PriceRow {
    pub(super) fn rates(&self) -> Rates {
        Rates {
            input: self.input,
            output: self.output,
            cache_read: self.cache_read,
            cache_write_5m: self.cache_write_5m,
            cache_write_1h: self.cache_write_1h,
        }
    }
}

/// Of all organisations, or of one.
pub(super) async fn in_force(pool: &PgPool, org: Option<OrgId>) -> Result<Vec<PriceRow>> {
    Ok(sqlx::query_as!(
        PriceRow,
        "SELECT id, org_id, provider, model, input, output, cache_read, cache_write_5m, cache_write_1h,
                web_searches, created_at, updated_at
           FROM llm_prices WHERE ($1::uuid IS NULL OR org_id = $1) ORDER BY org_id, provider, model LIMIT $2",
        org.map(|org| org.0),
        MAX_IN_FORCE
    )
    .fetch_all(pool)
    .await?)
}

/// A page, by provider and model.
pub(super) async fn page(
    pool: &PgPool,
    org: OrgId,
    after: Option<(String, String)>,
    limit: usize,
) -> Result<Vec<PriceRow>> {
    let (provider, model) = after.unzip();
    Ok(sqlx::query_as!(
        PriceRow,
        "SELECT id, org_id, provider, model, input, output, cache_read, cache_write_5m, cache_write_1h,
                web_searches, created_at, updated_at
           FROM llm_prices WHERE org_id = $1 AND ($2::text IS NULL OR (provider, model) > ($2, $3::text))
          ORDER BY provider, model LIMIT $4",
        org.0,
        provider,
        model,
        i64::try_from(limit).unwrap_or(i64::MAX)
    )
    .fetch_all(pool)
    .await?)
}

pub(super) async fn insert(db: &mut PgConnection, row: &PriceRow) -> Result<()> {
    let inserted = sqlx::query!(
        "INSERT INTO llm_prices (id, org_id, provider, model, input, output, cache_read, cache_write_5m,
                                 cache_write_1h, web_searches, created_at, updated_at)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
          WHERE (SELECT count(*) FROM llm_prices WHERE org_id = $2) < $13",
        row.id,
        row.org_id,
        row.provider,
        row.model,
        row.input,
        row.output,
        row.cache_read,
        row.cache_write_5m,
        row.cache_write_1h,
        row.web_searches,
        row.created_at,
        row.updated_at,
        MAX_PRICES
    )
    .execute(&mut *db)
    .await
    .on_constraint("llm_prices_model_key", || {
        Error::conflict("conflict", "this model has a price of your own; change that one")
    })?;
    if inserted.rows_affected() == 0 {
        let detail = format!("an organisation has at most {MAX_PRICES} prices of its own");
        return Err(Error::conflict("too_many", detail));
    }
    Ok(())
}

/// Sets the numbers; provider and model stay. None: there is no such price.
pub(super) async fn update(
    db: &mut PgConnection,
    org: OrgId,
    id: Uuid,
    rates: Rates,
    web_searches: Option<f64>,
    now: DateTime<Utc>,
) -> Result<Option<PriceRow>> {
    Ok(sqlx::query_as!(
        PriceRow,
        "UPDATE llm_prices SET input = $3, output = $4, cache_read = $5, cache_write_5m = $6,
                cache_write_1h = $7, web_searches = $8, updated_at = $9
          WHERE org_id = $1 AND id = $2
         RETURNING id, org_id, provider, model, input, output, cache_read, cache_write_5m, cache_write_1h,
                web_searches, created_at, updated_at",
        org.0,
        id,
        rates.input,
        rates.output,
        rates.cache_read,
        rates.cache_write_5m,
        rates.cache_write_1h,
        web_searches,
        now
    )
    .fetch_optional(db)
    .await?)
}

/// The provider and model that it was of.
pub(super) async fn delete(
    db: &mut PgConnection,
    org: OrgId,
    id: Uuid,
) -> Result<Option<(String, String)>> {
    let row = sqlx::query!(
        "DELETE FROM llm_prices WHERE org_id = $1 AND id = $2 RETURNING provider, model",
        org.0,
        id
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.provider, row.model)))
}

/// Tells every server, at the commit.
pub(super) async fn tell(db: &mut PgConnection, org: OrgId) -> Result<()> {
    sqlx::query!("SELECT pg_notify($1, $2)", crate::CHANNEL, format!("{WORD} {org}"))
        .execute(db)
        .await?;
    Ok(())
}
