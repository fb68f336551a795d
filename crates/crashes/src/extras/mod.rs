//! What comes beside events: files, and what users say.

pub(crate) mod http;
pub(crate) mod model;
mod store;

use bytes::Bytes;
use loom_core::{
    Error, Result,
    id::{EventId, OrgId, new_uuid},
    port::{Attachment, Delivery, Taken},
    text,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Crashes, event, pipeline::Claimed, scrub};

/// What is larger is refused.
const MAX_FILE: usize = 100 << 20;
/// What is larger lies in the object store.
const IN_DATABASE: usize = 64 << 10;
const MAX_MESSAGE: usize = 4096;
const MAX_NAME: usize = 200;

fn line(text: &str, most: usize) -> String {
    let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
    text::cut(text.trim(), most).to_owned()
}

/// The minidump that came with an event.
pub(crate) async fn minidump(
    crashes: &Crashes,
    claimed: &Claimed,
) -> Result<Option<store::Stored>> {
    let (org, event) = (OrgId(claimed.org), EventId(claimed.event));
    store::minidump(&crashes.deps.pool, org, claimed.project, event).await
}

/// The content of an attachment.
pub(crate) async fn read(crashes: &Crashes, file: store::Stored) -> Result<Bytes> {
    match file.location {
        Some(location) => crashes.artifacts.read_attachment(&location).await,
        None => Ok(Bytes::from(file.content)),
    }
}

impl Crashes {
    pub(crate) async fn attach_file(&self, delivery: &Delivery, file: Attachment) -> Result<Taken> {
        if file.content.len() > MAX_FILE {
            return Ok(Taken::Rejected("an attachment is at most 100 MiB".to_owned()));
        }
        let sha256 = if file.content.len() > IN_DATABASE {
            // It would hold others up who are served by the same thread.
            let content = file.content.clone();
            tokio::task::spawn_blocking(move || Sha256::digest(&content).to_vec())
                .await
                .map_err(Error::internal)?
        } else {
            Sha256::digest(&file.content).to_vec()
        };
        let size = i64::try_from(file.content.len()).unwrap_or(i64::MAX);
        let (content, location) = if file.content.len() > IN_DATABASE {
            let org = delivery.project.org;
            (Bytes::new(), Some(self.artifacts.put_attachment(org, file.content).await?))
        } else {
            (file.content, None)
        };
        let row = store::File {
            id: new_uuid(delivery.received_at),
            event: file.event,
            name: Some(line(&file.name, MAX_NAME))
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "unnamed".to_owned()),
            content_type: file.content_type.as_deref().map(|kind| line(kind, MAX_NAME)),
            kind: line(&file.kind, MAX_NAME),
            sha256,
            size,
            content,
            location,
        };
        let mut tx = loom_db::begin(&self.deps.pool).await?;
        let is_new = store::insert_file(&mut tx, delivery, &row).await?;
        if let Some(location) = &row.location {
            // One that is there already leaves the new content to the clean-up.
            self.artifacts.settle_attachment(&mut tx, location, is_new).await?;
        }
        tx.commit().await?;
        Ok(Taken::Stored)
    }

    /// What a user says: kept with the event that it is about, else as an event of an issue of its own.
    pub(crate) async fn take_feedback(&self, delivery: &Delivery, payload: Bytes) -> Result<Taken> {
        let said = match event::object(&payload) {
            Ok(said) => said,
            Err(reason) => return Ok(Taken::Rejected(reason)),
        };
        let Some(settings) = self.deps.directory.settings(delivery.project.id).await? else {
            return Ok(Taken::Rejected("the project is gone".to_owned()));
        };
        // As the newer SDKs have it: an event with it in its contexts.
        let inner = said.pointer("/contexts/feedback").unwrap_or(&said);
        let text = |names: &[&str], most: usize| {
            let found = names.iter().find_map(|name| inner.get(*name).and_then(Value::as_str))?;
            let mut value = Value::String(text::cut(&found.replace('\0', ""), most).to_owned());
            scrub::scrub(&mut value, &settings.scrubbing);
            value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let Some(message) = text(&["message", "comments"], MAX_MESSAGE) else {
            return Ok(Taken::Rejected("the feedback has no message".to_owned()));
        };
        let id = |name: &str| -> Option<EventId> {
            inner.get(name).and_then(Value::as_str).and_then(|id| id.parse().ok())
        };
        let is_report = said.get("contexts").is_none();
        let about =
            id("associated_event_id").or_else(|| if is_report { id("event_id") } else { None });
        let name = text(&["name"], MAX_NAME);
        let email = text(&["contact_email", "email"], MAX_NAME);
        if let Some(about) = about {
            let row = store::Said {
                id: new_uuid(delivery.received_at),
                event: about,
                name,
                email,
                message,
            };
            store::insert_said(&self.deps.pool, delivery, &row).await?;
            return Ok(Taken::Stored);
        }
        let own = said.get("event_id").and_then(Value::as_str).and_then(|id| id.parse().ok());
        let own = own.unwrap_or_else(|| EventId::new(delivery.received_at));
        let mut event = said.clone();
        let Some(members) = event.as_object_mut() else {
            return Ok(Taken::Rejected("the feedback is no object".to_owned()));
        };
        members.insert("level".to_owned(), "info".into());
        members.insert("fingerprint".to_owned(), json!(["user-feedback"]));
        members.remove("message");
        let exception = json!({"values": [{"type": "User feedback", "value": message}]});
        members.insert("exception".to_owned(), exception);
        members.insert("user".to_owned(), json!({"username": name, "email": email}));
        let payload = serde_json::to_vec(&event).map_err(Error::internal)?;
        self.take(delivery, own, Bytes::from(payload)).await
    }
}
