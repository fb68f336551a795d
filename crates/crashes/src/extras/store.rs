//! The SQL of attachments and feedback.

use bytes::Bytes;
use loom_core::{
    Result,
    id::{EventId, OrgId, ProjectId},
    port::Delivery,
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::model::{AttachmentView, Feedback};

/// Of one event: what is beyond is not kept, nor listed.
const MOST: i64 = 100;

pub(super) struct File {
    pub id: Uuid,
    pub event: EventId,
    pub name: String,
    pub content_type: Option<String>,
    pub kind: String,
    pub sha256: Vec<u8>,
    pub size: i64,
    pub content: Bytes,
    /// In the object store; `content` is then empty.
    pub location: Option<String>,
}

/// A file as it lies in the store.
pub(crate) struct Stored {
    pub name: String,
    pub size: i64,
    pub content: Vec<u8>,
    pub location: Option<String>,
}

/// False: it is there already, or there are too many.
pub(super) async fn insert_file(
    db: &mut PgConnection,
    delivery: &Delivery,
    file: &File,
) -> Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO crash_attachments
             (id, org_id, project_id, event_id, received_at, name, content_type, kind, size, sha256, content, location)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $13
          WHERE (SELECT count(*) FROM crash_attachments WHERE project_id = $3 AND event_id = $4) < $12
         ON CONFLICT DO NOTHING",
        file.id,
        delivery.project.org.0,
        delivery.project.id.0,
        file.event.0,
        delivery.received_at,
        file.name,
        file.content_type,
        file.kind,
        file.size,
        file.sha256,
        &*file.content,
        MOST,
        file.location
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn attachments(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    event: EventId,
) -> Result<Vec<AttachmentView>> {
    Ok(sqlx::query_as!(
        AttachmentView,
        "SELECT id, name, content_type, kind, size AS size_bytes, received_at FROM crash_attachments
          WHERE org_id = $1 AND project_id = $2 AND event_id = $3
          ORDER BY received_at, id LIMIT $4",
        org.0,
        project.0,
        event.0,
        MOST
    )
    .fetch_all(pool)
    .await?)
}

pub(super) async fn content(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    event: EventId,
    id: Uuid,
) -> Result<Option<Stored>> {
    Ok(sqlx::query_as!(
        Stored,
        "SELECT name, size, content, location FROM crash_attachments
          WHERE org_id = $1 AND project_id = $2 AND event_id = $3 AND id = $4",
        org.0,
        project.0,
        event.0,
        id
    )
    .fetch_optional(pool)
    .await?)
}

/// The newest minidump of an event.
pub(super) async fn minidump(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    event: EventId,
) -> Result<Option<Stored>> {
    Ok(sqlx::query_as!(
        Stored,
        "SELECT name, size, content, location FROM crash_attachments
          WHERE org_id = $1 AND project_id = $2 AND event_id = $3 AND kind = 'event.minidump'
          ORDER BY received_at DESC, id DESC LIMIT 1",
        org.0,
        project.0,
        event.0
    )
    .fetch_optional(pool)
    .await?)
}

pub(super) struct Said {
    pub id: Uuid,
    pub event: EventId,
    pub name: Option<String>,
    pub email: Option<String>,
    pub message: String,
}

pub(super) async fn insert_said(pool: &PgPool, delivery: &Delivery, said: &Said) -> Result<()> {
    sqlx::query!(
        "INSERT INTO crash_feedback (id, org_id, project_id, event_id, received_at, name, email, message)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8
          WHERE (SELECT count(*) FROM crash_feedback WHERE project_id = $3 AND event_id = $4) < $9
         ON CONFLICT DO NOTHING",
        said.id,
        delivery.project.org.0,
        delivery.project.id.0,
        said.event.0,
        delivery.received_at,
        said.name,
        said.email,
        said.message,
        MOST
    )
    .execute(pool)
    .await?;
    Ok(())
}

pub(super) async fn feedback(
    pool: &PgPool,
    org: OrgId,
    project: ProjectId,
    event: EventId,
) -> Result<Vec<Feedback>> {
    Ok(sqlx::query_as!(
        Feedback,
        "SELECT id, name, email, message, received_at FROM crash_feedback
          WHERE org_id = $1 AND project_id = $2 AND event_id = $3
          ORDER BY received_at, id LIMIT $4",
        org.0,
        project.0,
        event.0,
        MOST
    )
    .fetch_all(pool)
    .await?)
}
