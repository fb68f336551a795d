//! One event, put together for people: what came and what processing made of it.

use chrono::{DateTime, SecondsFormat, Utc};
use loom_core::{
    Error, Principal, Result,
    id::{EventId, ThreadId},
};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;

use super::{
    model::{Issue, ProjectHead},
    store::{self, events::EventRow},
};
use crate::{Crashes, event::breadcrumbs, intake::decompress, pipeline::Processed};

/// Members of the payload that are shown beside what was made of them.
const PARTS: [&str; 10] = [
    "user",
    "contexts",
    "extra",
    "fingerprint",
    "logger",
    "message",
    "modules",
    "request",
    "sdk",
    "server_name",
];

/// As lists show it.
pub(super) fn summary(row: &EventRow) -> Map<String, Value> {
    let shown = json!({
        "id": row.event_id, "issue_id": row.issue_id, "received_at": millis(row.received_at),
        "at": millis(row.at), "level": row.level, "title": row.title, "release": row.release,
        "dist": row.dist, "environment": row.environment, "platform": row.platform,
        "transaction": row.transaction, "user_label": row.user_label, "trace_id": row.trace_id,
        "session_id": row.session_id, "tags": row.tags,
    });
    match shown {
        Value::Object(shown) => shown,
        _ => Map::new(),
    }
}

fn millis(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

impl Crashes {
    /// The whole event, as far as the principal may see what it belongs to.
    pub(super) async fn whole_event(
        &self,
        principal: &Principal,
        project: &ProjectHead,
        issue: &Issue,
        row: &EventRow,
    ) -> Result<Value> {
        let (raw, around, files) = {
            let mut db = self.deps.pool.acquire().await?;
            let org = principal.org;
            let raw = store::events::raw(&mut db, org, project.id, row).await?;
            let held = store::events::held(&mut db, org, issue.id).await?;
            let place = Some((row.received_at, row.event_id.0));
            let older = store::events::beside(&mut db, org, &held, place, false).await?;
            let newer = store::events::beside(&mut db, org, &held, place, true).await?;
            let files = more(&mut db, project, row.event_id).await?;
            (raw, (older, newer), files)
        };
        let mut shown = summary(row);
        let (payload, delivery) = match raw {
            Some((payload, delivery)) => (unpack(&payload)?, delivery),
            // Older than what is kept.
            None => (Value::Null, Value::Null),
        };
        let processed = Processed::read(&row.processed).map_err(Error::internal)?;
        let processed = serde_json::to_value(processed).map_err(Error::internal)?;
        for part in PARTS {
            let instead = processed.get("instead").and_then(|instead| instead.get(part));
            let value = instead.or_else(|| payload.get(part)).cloned();
            shown.insert(part.to_owned(), value.unwrap_or_default());
        }
        shown.insert("breadcrumbs".to_owned(), json!(breadcrumbs(&payload)));
        shown.insert(
            "exceptions".to_owned(),
            overlaid(&payload, "exception", &processed, "exceptions"),
        );
        shown.insert("threads".to_owned(), overlaid(&payload, "threads", &processed, "threads"));
        let thread = match row.thread_id {
            None => None,
            Some(id) => self.deps.threads.by_ids(principal, &[ThreadId(id)]).await?.pop(),
        };
        let thread = thread.map(|thread| json!({ "id": thread.id, "title": thread.title }));
        let rest = json!({
            "project": { "id": project.id, "slug": project.slug },
            "issue": {
                "id": issue.id, "short_id": issue.short_id, "title": issue.title, "status": issue.status,
            },
            "hash": hex::encode(&row.hash),
            "thread": thread,
            "attachments": files.0,
            "feedback": files.1,
            "previous_event_id": around.0,
            "next_event_id": around.1,
            "delivery": delivery,
            "images": processed.get("images"),
            "missing_files": processed.get("missing_files"),
            "faults": processed.get("faults"),
            "grouping": processed.get("grouping"),
            "raw": payload,
        });
        if let Value::Object(rest) = rest {
            shown.extend(rest);
        }
        Ok(Value::Object(shown))
    }
}

/// Exceptions or threads as they came, their `frames` as they were processed beside the `raw_frames`.
pub(crate) fn overlaid(payload: &Value, theirs: &str, processed: &Value, ours: &str) -> Value {
    let instead = processed.get("instead").and_then(|instead| instead.get(theirs));
    let came =
        instead.or_else(|| payload.get(theirs)).map(|came| came.get("values").unwrap_or(came));
    let mut came = match came {
        Some(Value::Array(list)) => list.iter().filter(|one| one.is_object()).cloned().collect(),
        Some(one @ Value::Object(_)) => vec![one.clone()],
        _ => Vec::new(),
    };
    let made = processed.get(ours).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // The simple form has one exception, by other names.
    if came.is_empty() && theirs == "exception" && !made.is_empty() {
        came.push(json!({
            "type": payload.get("exception_type"), "value": payload.get("exception_value"),
            "stacktrace": payload.get("stacktrace"),
        }));
    }
    for (index, one) in came.iter_mut().enumerate() {
        let Some(one) = one.as_object_mut() else { continue };
        let stack = one.remove("stacktrace");
        let raw =
            one.remove("raw_stacktrace").filter(|raw| !raw.is_null()).or_else(|| stack.clone());
        let frames = |stack: Option<Value>| match stack {
            Some(mut stack) => stack.get_mut("frames").map(Value::take).unwrap_or_default(),
            None => Value::Null,
        };
        if theirs == "exception"
            && let Some(Value::Object(head)) =
                processed.get("heads").and_then(|heads| heads.get(index))
        {
            one.extend(head.clone());
        }
        let made = made.get(index).filter(|made| !made.is_null()).cloned();
        one.insert("raw_frames".to_owned(), frames(raw));
        one.insert("frames".to_owned(), made.unwrap_or_else(|| frames(stack)));
    }
    Value::Array(came)
}

/// What came with an event: files and what users said, at most 100 of each.
async fn more(
    db: &mut PgConnection,
    project: &ProjectHead,
    event: EventId,
) -> Result<(Value, Value)> {
    let files = sqlx::query!(
        "SELECT id, name, content_type, kind, size FROM crash_attachments
          WHERE project_id = $1 AND event_id = $2 ORDER BY id LIMIT 100",
        project.id.0,
        event.0,
    )
    .fetch_all(&mut *db)
    .await?;
    let files: Vec<Value> = files
        .into_iter()
        .map(|file| {
            json!({
                "id": file.id, "name": file.name, "content_type": file.content_type, "kind": file.kind,
                "size": file.size,
            })
        })
        .collect();
    let said = sqlx::query!(
        "SELECT received_at, name, email, message FROM crash_feedback
          WHERE project_id = $1 AND event_id = $2 ORDER BY id LIMIT 100",
        project.id.0,
        event.0,
    )
    .fetch_all(db)
    .await?;
    let said: Vec<Value> = said
        .into_iter()
        .map(|one| {
            json!({
                "received_at": millis(one.received_at), "name": one.name, "email": one.email,
                "message": one.message,
            })
        })
        .collect();
    Ok((Value::Array(files), Value::Array(said)))
}

pub(crate) fn unpack(packed: &[u8]) -> Result<Value> {
    if packed.is_empty() {
        return Ok(Value::Null);
    }
    let json = decompress(packed).map_err(Error::internal)?;
    serde_json::from_slice(&json).map_err(Error::internal)
}
