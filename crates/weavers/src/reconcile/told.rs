//! What the cluster says of a pod beside its status: that an image is being pulled, a volume not there.

use k8s_openapi::api::core::v1::Event as ClusterEvent;
use loom_core::Result;

use super::lead::Lead;
use crate::{Weavers, model::Event, pod::seen, store};

/// The reason of the cluster, the phase, and the code.
const TOLD: &[(&str, &str, Option<&str>)] = &[
    ("Pulling", "pulling", None),
    ("FailedMount", "warning", Some("mount")),
    ("FailedAttachVolume", "warning", Some("mount")),
    ("FailedCreatePodSandBox", "warning", Some("sandbox")),
    ("NodeNotReady", "warning", Some("node_not_ready")),
    ("NetworkNotReady", "warning", Some("network_not_ready")),
];
const LONGEST: usize = 1000;

impl Weavers {
    pub(super) async fn note(&self, lead: &Lead, event: &ClusterEvent) -> Result<()> {
        let reason = event.reason.as_deref().unwrap_or_default();
        let Some(&(_, phase, code)) = TOLD.iter().find(|(told, ..)| *told == reason) else {
            return Ok(());
        };
        let about = &event.involved_object;
        let name = about.name.as_deref().unwrap_or_default();
        let Some(id) = name.strip_prefix("weaver-").and_then(|id| id.parse().ok()) else {
            return Ok(());
        };
        // Of a pod that was called the same before, or of another installation: not of ours.
        if lead.pod(id).is_none_or(|pod| seen::uid(&pod) != about.uid.as_deref()) {
            return Ok(());
        }
        let row = store::of_installation(&self.deps.pool, &self.installation, id).await?;
        let Some(row) = row.filter(|row| row.ended_at.is_none()) else { return Ok(()) };
        let now = self.deps.clock.now();
        let at = event.first_timestamp.as_ref().or(event.metadata.creation_timestamp.as_ref());
        let at = at.and_then(seen::time).unwrap_or(now).min(now).max(row.created_at);
        let message = event.message.as_deref().map(|text| text.chars().take(LONGEST).collect());
        let code = code.map(str::to_owned);
        let step = Event { at, phase: phase.to_owned(), code, message };
        let mut transaction = loom_db::begin(&self.deps.pool).await?;
        if store::lock(&mut transaction, row.org_id, id).await?.is_some() {
            store::add_events(&mut transaction, id, &[step]).await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}
