//! What the feature says of its own state, and its metrics.

use loom_core::{
    health::{Check, Component, Status},
    telemetry::Metric,
};

use crate::Weavers;

pub const METRICS: &[Metric] = &[];

impl Weavers {
    pub fn health(&self) -> Check {
        let weavers = self.clone();
        Check::new("kubernetes", move || {
            let weavers = weavers.clone();
            async move { weavers.component().await }
        })
    }

    async fn component(&self) -> Component {
        Component::new(if self.config.enabled { Status::Healthy } else { Status::Disabled })
    }
}
