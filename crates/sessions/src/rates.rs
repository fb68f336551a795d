//! Rates of releases, for other features.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    port::{BoxFuture, Project, ReleaseHealth, ReleaseRates},
};

use crate::Sessions;

impl ReleaseHealth for Sessions {
    fn rates<'a>(
        &'a self,
        _project: &'a Project,
        _versions: &'a [String],
    ) -> BoxFuture<'a, Result<HashMap<String, ReleaseRates>>> {
        Box::pin(async { Ok(HashMap::new()) })
    }

    fn sessions<'a>(
        &'a self,
        _project: &'a Project,
        _environment: Option<&'a str>,
        _from: DateTime<Utc>,
        _to: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<i64>> {
        Box::pin(async { Ok(0) })
    }
}
