//! The SQL of what is taken.

use sqlx::PgPool;
use uuid::Uuid;

use super::Intake;

/// Stores a batch and puts it into the queue, all or nothing. What is there already changes nothing.
pub(super) async fn insert(pool: &PgPool, rows: &[Intake]) -> sqlx::Result<()> {
    let orgs: Vec<Uuid> = rows.iter().map(|row| row.org).collect();
    let projects: Vec<Uuid> = rows.iter().map(|row| row.project).collect();
    let events: Vec<Uuid> = rows.iter().map(|row| row.event).collect();
    let times: Vec<_> = rows.iter().map(|row| row.received_at).collect();
    let payloads: Vec<&[u8]> = rows.iter().map(|row| &*row.payload).collect();
    let deliveries: Vec<_> = rows.iter().map(|row| row.delivery.clone()).collect();
    sqlx::query!(
        "WITH stored AS (
             INSERT INTO crash_raw (org_id, project_id, event_id, received_at, payload, delivery)
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::bytea[], $6::jsonb[])
             ON CONFLICT DO NOTHING
             RETURNING org_id, project_id, event_id, received_at)
         INSERT INTO crash_queue (org_id, project_id, event_id, received_at)
         SELECT org_id, project_id, event_id, received_at FROM stored",
        &orgs,
        &projects,
        &events,
        &times,
        &payloads as &[&[u8]],
        &deliveries
    )
    .execute(pool)
    .await?;
    Ok(())
}
