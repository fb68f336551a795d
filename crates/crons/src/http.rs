//! The handlers, one file for each thing that is asked for.

pub(crate) mod alerts;
pub(crate) mod checkins;
pub(crate) mod figures;
pub(crate) mod keys;
pub(crate) mod monitors;
pub(crate) mod preview;
pub(crate) mod sentry;
pub(crate) mod watch;

use loom_core::{
    Error, Principal, Result,
    authorize::{Action, authorize},
    principal::Scope,
};
use sqlx::PgConnection;

use crate::{model::Monitor, store};

fn reads(principal: &Principal) -> Result<()> {
    authorize(principal, Action::Use(Scope::CronsRead))
}

fn writes(principal: &Principal) -> Result<()> {
    authorize(principal, Action::Use(Scope::CronsWrite))
}

fn may_write(principal: &Principal) -> bool {
    principal.scopes.contains(Scope::CronsWrite)
}

fn not_found() -> Error {
    Error::not_found("monitor")
}

async fn find(db: &mut PgConnection, principal: &Principal, slug: &str) -> Result<Monitor> {
    store::monitors::find(db, principal.org, slug).await?.ok_or_else(not_found)
}
