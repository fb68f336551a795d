//! The handlers, one file for each thing that is asked for.

pub(crate) mod change;
pub(crate) mod create;
pub(crate) mod read;
pub(crate) mod watch;

use loom_core::{Error, Principal, Result, id::WeaverId};

use crate::{
    Weavers,
    access::{self, Access},
    model::Row,
    store,
    view::WeaverView,
};

impl Weavers {
    /// # Errors
    /// 503 when this server runs no weavers.
    pub(crate) fn require_enabled(&self) -> Result<()> {
        if self.config.enabled {
            return Ok(());
        }
        Err(Error::new(
            http::StatusCode::SERVICE_UNAVAILABLE,
            "feature_disabled",
            "this server runs no weavers: LOOM_SERVER_WEAVER_ENABLED is not set",
        ))
    }

    /// A weaver, to be looked at.
    ///
    /// # Errors
    /// 403 without the scope, 404.
    pub(crate) async fn to_read(&self, principal: &Principal, id: WeaverId) -> Result<Row> {
        self.visible(access::reads(principal)?, id).await
    }

    /// A weaver, to be changed or entered; `feature_disabled` comes after who may.
    ///
    /// # Errors
    /// 403, 404, 503.
    pub(crate) async fn to_write(&self, principal: &Principal, id: WeaverId) -> Result<Row> {
        let access = access::writes(principal)?;
        let mut db = self.deps.pool.acquire().await?;
        let row = store::find(&mut db, principal.org, id).await?;
        drop(db);
        let row = access::changed(principal, access, row)?;
        self.require_enabled()?;
        Ok(row)
    }

    pub(crate) async fn visible(&self, access: Access, id: WeaverId) -> Result<Row> {
        let mut db = self.deps.pool.acquire().await?;
        access::seen(access, store::find(&mut db, access.org, id).await?)
    }

    /// With what they have spent.
    pub(crate) async fn views(&self, rows: Vec<Row>) -> Result<Vec<WeaverView>> {
        let Some(org) = rows.first().map(|row| row.org_id) else { return Ok(Vec::new()) };
        let ids: Vec<WeaverId> = rows.iter().map(|row| row.id).collect();
        let spent = self.deps.spend.of_weavers(org, &ids).await?;
        let now = self.deps.clock.now();
        let view = |row: Row| {
            let nanousd = spent.get(&row.id).map_or(0, |spent| spent.nanousd);
            WeaverView::of(row, nanousd, now)
        };
        Ok(rows.into_iter().map(view).collect())
    }

    pub(crate) async fn view(&self, row: Row) -> Result<WeaverView> {
        self.views(vec![row]).await?.pop().ok_or_else(access::not_found)
    }
}
