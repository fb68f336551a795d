//! Rates of releases, for other features.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    port::{BoxFuture, Project, ReleaseHealth, ReleaseRates},
};

use crate::{
    Sessions,
    session::{SLOT, slot},
    store::read::{self, Filter, Which},
};

impl ReleaseHealth for Sessions {
    fn rates<'a>(
        &'a self,
        project: &'a Project,
        versions: &'a [String],
    ) -> BoxFuture<'a, Result<HashMap<String, ReleaseRates>>> {
        Box::pin(async move {
            let filter =
                Filter { org: project.org, project: project.id, release: None, environment: None };
            let (totals, days) = tokio::try_join!(
                self.totals(filter, Which::Versions(versions)),
                self.days(filter)
            )?;
            let rates = totals.iter().map(|total| {
                let release = self.release(total, &days);
                let rates = ReleaseRates {
                    sessions: release.sessions,
                    users: release.users,
                    crash_free_sessions: release.crash_free_sessions,
                    crash_free_users: release.crash_free_users,
                    adoption: release.adoption,
                };
                (release.version, rates)
            });
            Ok(rates.collect())
        })
    }

    fn sessions<'a>(
        &'a self,
        project: &'a Project,
        environment: Option<&'a str>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<i64>> {
        Box::pin(async move {
            let filter =
                Filter { org: project.org, project: project.id, release: None, environment };
            // To the half hour; the last is taken whole.
            let end = if slot(to) == to { to } else { slot(to) + SLOT };
            let rows = read::by_release(&self.deps.pool, filter, slot(from), end).await?;
            Ok(rows.iter().map(|(_, counts)| counts.total()).sum())
        })
    }
}
