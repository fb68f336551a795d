//! Sessions from SDKs.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use loom_core::{
    Result,
    port::{BoxFuture, Delivery, SessionSink, Taken},
};

use crate::Sessions;

impl SessionSink for Sessions {
    fn session<'a>(
        &'a self,
        _delivery: &'a Delivery,
        _payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(async { Ok(Taken::Stored) })
    }

    fn aggregates<'a>(
        &'a self,
        _delivery: &'a Delivery,
        _payload: Bytes,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(async { Ok(Taken::Stored) })
    }

    fn crashed<'a>(
        &'a self,
        _delivery: &'a Delivery,
        _session: &'a str,
        _release: &'a str,
        _environment: &'a str,
        _at: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<Taken>> {
        Box::pin(async { Ok(Taken::Stored) })
    }
}
