//! Grouping of events.

mod corpus;
mod property;
mod table;

use chrono::TimeDelta;
use loom_core::id::ProjectId;
use serde_json::Value;

use super::{Grouping, Rules, group};
use crate::event::{self, Event};

pub(super) fn event(raw: Value) -> Event {
    let project = ProjectId(uuid::Uuid::nil());
    let received = "2026-05-01T12:00:00Z".parse().unwrap();
    event::of_value(raw, project, received, TimeDelta::zero()).unwrap()
}

pub(super) fn grouped(raw: Value) -> Grouping {
    group(&event(raw), &Rules::default())
}
